-- migrate:up

-- What DUPLICATES jobs have found. `first` is the longer video.
CREATE TABLE duplicate_pairs (
    job_id uuid NOT NULL REFERENCES processing_jobs (id) ON DELETE CASCADE,
    first_id uuid NOT NULL REFERENCES videos (id) ON DELETE CASCADE,
    second_id uuid NOT NULL REFERENCES videos (id) ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('FULL', 'CONTAINS', 'PARTIAL')),
    -- See soundhash.v1.SharedRange, seconds.
    ranges jsonb NOT NULL,
    shared_s double precision NOT NULL,
    first_share double precision NOT NULL,
    second_share double precision NOT NULL,
    PRIMARY KEY (job_id, first_id, second_id)
);
CREATE INDEX duplicate_pairs_by_length
ON duplicate_pairs (job_id, shared_s DESC, first_id, second_id);
CREATE INDEX processing_jobs_duplicates ON processing_jobs (queue_time DESC, id DESC)
WHERE kind = 'DUPLICATES';
CREATE INDEX duplicate_pairs_by_first ON duplicate_pairs (first_id);
CREATE INDEX duplicate_pairs_by_second ON duplicate_pairs (second_id);
