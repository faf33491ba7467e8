-- migrate:up

-- When a job was last queued afresh: what the jobs that it has started did before belongs to
-- an earlier run of it.
ALTER TABLE processing_jobs ADD COLUMN queue_time timestamptz NOT NULL DEFAULT now();
UPDATE processing_jobs SET queue_time = create_time;

-- A job that waits for those that it has started has its result already.
ALTER TABLE processing_jobs DROP CONSTRAINT processing_jobs_check2,
ADD CONSTRAINT processing_jobs_result_check
CHECK ((state IN ('SUCCEEDED', 'WAITING')) = (result IS NOT NULL));
