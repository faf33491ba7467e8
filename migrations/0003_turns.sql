-- migrate:up

-- When a job was last queued afresh: what the jobs that it has started did before belongs to
-- an earlier run of it.
ALTER TABLE processing_jobs ADD COLUMN queue_time timestamptz NOT NULL DEFAULT now();
UPDATE processing_jobs SET queue_time = create_time;

-- A job that waits for those that it has started has its result already.
ALTER TABLE processing_jobs DROP CONSTRAINT processing_jobs_check2,
ADD CONSTRAINT processing_jobs_result_check
CHECK ((state IN ('SUCCEEDED', 'WAITING')) = (result IS NOT NULL));

-- Whose turn it is has to be found among any number of queued jobs, without reading them all.
CREATE INDEX processing_jobs_turns ON processing_jobs (
    source_host, coalesce(channel_id, '00000000-0000-0000-0000-000000000000'), create_time, id
) WHERE state = 'QUEUED' AND kind = 'INGEST';
CREATE INDEX processing_jobs_to_list ON processing_jobs (create_time, id)
WHERE state = 'QUEUED' AND kind <> 'INGEST';
CREATE INDEX processing_jobs_at_work ON processing_jobs (kind, source_host)
WHERE state = 'RUNNING';
CREATE INDEX processing_jobs_due ON processing_jobs (next_attempt_time)
WHERE state = 'RETRYING';

-- Gives a worker the job whose turn it is, or no row.
--
-- slot: what the worker has room for: a recording (INGEST), a channel or a folder to list
-- (LISTING), or a folder to watch for good (WATCH). Each has its own, so that listing never
-- waits behind recordings.
--
-- Of recordings it is the turn of the channel of which the fewest are being worked on; what
-- belongs to none counts as one channel. Between equals the oldest goes first. There are at most
-- `channel_jobs` of a channel and `host_jobs` of a host at once, and none of a host that is paused.
--
-- One statement, so that a worker that stops in the middle holds nothing; one at a time, so that
-- the bounds hold; rows that somebody else has locked are passed over.
CREATE FUNCTION claim_turn(
    slot text, lease interval, channel_jobs integer, host_jobs integer
) RETURNS SETOF processing_jobs LANGUAGE plpgsql
-- A plan that was made while there were few jobs would read them all when there are many.
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    chosen uuid;
    lane record;
BEGIN
    UPDATE processing_jobs SET state = 'QUEUED', next_attempt_time = NULL,
        update_time = clock_timestamp()
    WHERE id IN (
        SELECT j.id FROM processing_jobs AS j
        WHERE j.state = 'RETRYING' AND j.next_attempt_time <= clock_timestamp()
        ORDER BY j.next_attempt_time LIMIT 100 FOR UPDATE SKIP LOCKED
    );
    PERFORM pg_advisory_xact_lock(hashtextextended('soundhash claim_turn', 0));

    -- What a dead worker has left. It has its place within the bounds already.
    SELECT j.id INTO chosen FROM processing_jobs AS j
    WHERE j.state = 'RUNNING' AND j.lease_expires < clock_timestamp()
        AND (j.kind = 'INGEST') = (slot = 'INGEST')
        AND (j.parameters @> '{"watch": true}') = (slot = 'WATCH')
        AND (j.attempt < j.max_attempts OR slot = 'WATCH')
        AND NOT EXISTS (
            SELECT FROM source_pauses AS p
            WHERE p.host = j.source_host AND p.until > clock_timestamp()
        )
    ORDER BY j.lease_expires LIMIT 1 FOR UPDATE SKIP LOCKED;

    IF chosen IS NULL AND slot <> 'INGEST' THEN
        SELECT j.id INTO chosen FROM processing_jobs AS j
        WHERE j.state = 'QUEUED' AND j.kind <> 'INGEST'
            AND (j.parameters @> '{"watch": true}') = (slot = 'WATCH')
            AND NOT EXISTS (
                SELECT FROM source_pauses AS p
                WHERE p.host = j.source_host AND p.until > clock_timestamp()
            )
        ORDER BY j.create_time, j.id LIMIT 1 FOR UPDATE SKIP LOCKED;
    ELSIF chosen IS NULL THEN
        -- From host to host and from channel to channel, over what lies between them.
        FOR lane IN
            WITH RECURSIVE at_work AS MATERIALIZED (
                SELECT j.source_host AS host, coalesce(j.channel_id, nobody) AS channel,
                    count(*) AS n
                FROM processing_jobs AS j WHERE j.state = 'RUNNING' AND j.kind = 'INGEST'
                GROUP BY 1, 2
            ), hosts AS (
                (
                    SELECT j.source_host AS host FROM processing_jobs AS j
                    WHERE j.state = 'QUEUED' AND j.kind = 'INGEST'
                    ORDER BY j.source_host LIMIT 1
                ) UNION ALL
                SELECT (
                    SELECT j.source_host FROM processing_jobs AS j
                    WHERE j.state = 'QUEUED' AND j.kind = 'INGEST' AND j.source_host > hosts.host
                    ORDER BY j.source_host LIMIT 1
                ) FROM hosts WHERE hosts.host IS NOT NULL
            ), open AS (
                SELECT hosts.host FROM hosts WHERE hosts.host IS NOT NULL AND (
                    hosts.host = '' OR (
                        (SELECT coalesce(sum(w.n), 0) FROM at_work AS w WHERE w.host = hosts.host)
                        < host_jobs
                        AND NOT EXISTS (
                            SELECT FROM source_pauses AS p
                            WHERE p.host = hosts.host AND p.until > clock_timestamp()
                        )
                    )
                )
            ), lanes AS (
                SELECT open.host, (
                    SELECT coalesce(j.channel_id, nobody) FROM processing_jobs AS j
                    WHERE j.state = 'QUEUED' AND j.kind = 'INGEST' AND j.source_host = open.host
                    ORDER BY coalesce(j.channel_id, nobody) LIMIT 1
                ) AS channel FROM open
                UNION ALL
                SELECT lanes.host, (
                    SELECT coalesce(j.channel_id, nobody) FROM processing_jobs AS j
                    WHERE j.state = 'QUEUED' AND j.kind = 'INGEST' AND j.source_host = lanes.host
                        AND coalesce(j.channel_id, nobody) > lanes.channel
                    ORDER BY coalesce(j.channel_id, nobody) LIMIT 1
                ) FROM lanes WHERE lanes.channel IS NOT NULL
            ), busy AS (
                SELECT l.host, l.channel, coalesce((
                    SELECT sum(w.n) FROM at_work AS w WHERE w.channel = l.channel
                ), 0) AS n
                FROM lanes AS l WHERE l.channel IS NOT NULL
            )
            SELECT b.host, b.channel FROM busy AS b CROSS JOIN LATERAL (
                SELECT j.create_time, j.id FROM processing_jobs AS j
                WHERE j.state = 'QUEUED' AND j.kind = 'INGEST' AND j.source_host = b.host
                    AND coalesce(j.channel_id, nobody) = b.channel
                ORDER BY j.create_time, j.id LIMIT 1
            ) AS oldest
            WHERE b.channel = nobody OR b.n < channel_jobs
            ORDER BY b.n, oldest.create_time, oldest.id
        LOOP
            SELECT j.id INTO chosen FROM processing_jobs AS j
            WHERE j.state = 'QUEUED' AND j.kind = 'INGEST' AND j.source_host = lane.host
                AND coalesce(j.channel_id, nobody) = lane.channel
            ORDER BY j.create_time, j.id LIMIT 1 FOR UPDATE SKIP LOCKED;
            EXIT WHEN chosen IS NOT NULL;
        END LOOP;
    END IF;

    RETURN QUERY UPDATE processing_jobs AS j SET state = 'RUNNING',
        lease_token = gen_random_uuid(), lease_expires = clock_timestamp() + lease,
        attempt = j.attempt + 1, next_attempt_time = NULL, failure = NULL, progress = '{}',
        start_time = clock_timestamp(), update_time = clock_timestamp()
    WHERE j.id = chosen RETURNING j.*;
END $$;
