-- migrate:up

-- One row that every change of what is indexed increments in its own transaction. Its row lock
-- makes such changes commit in the order of their revisions, so that "everything up to revision
-- R" is well defined for readers (a sequence would let a smaller number commit later).
CREATE TABLE catalogue (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint NOT NULL DEFAULT 0,
    -- Tells databases apart: index volumes on disk that were made from another are not used.
    identity uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO catalogue DEFAULT VALUES;

CREATE TABLE channels (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL UNIQUE,
    create_time timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE videos (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- The match index's key: small, and never reused.
    recording_id bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    channel_id uuid REFERENCES channels (id) ON DELETE SET NULL,
    title text NOT NULL,
    source_url text NOT NULL DEFAULT '',
    external_id text CHECK (external_id <> ''),
    source_key text CHECK (source_key <> ''),
    content_sha256 text NOT NULL CHECK (content_sha256 ~ '^[0-9a-f]{64}$'),
    duration_s double precision NOT NULL CHECK (duration_s >= 0),
    segment_count integer NOT NULL CHECK (segment_count >= 0),
    landmark_count bigint NOT NULL CHECK (landmark_count >= 0),
    params_digest text NOT NULL,
    revision bigint NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT videos_external_id_key UNIQUE (external_id),
    CONSTRAINT videos_source_key_key UNIQUE (source_key),
    CONSTRAINT videos_content_sha256_key UNIQUE (content_sha256)
);
CREATE INDEX videos_by_time ON videos (create_time DESC, id DESC);
CREATE INDEX videos_by_revision ON videos (revision);
CREATE INDEX videos_by_channel ON videos (channel_id, create_time DESC, id DESC);

CREATE TABLE audio_fingerprints (
    video_id uuid NOT NULL REFERENCES videos (id) ON DELETE CASCADE,
    segment_index integer NOT NULL CHECK (segment_index >= 0),
    start_s double precision NOT NULL,
    duration_s double precision NOT NULL,
    landmark_count integer NOT NULL,
    landmarks bytea NOT NULL,
    descriptor bytea NOT NULL,
    vector bytea NOT NULL,
    md5 text NOT NULL,
    params_digest text NOT NULL,
    PRIMARY KEY (video_id, segment_index)
);
-- Compressed already.
ALTER TABLE audio_fingerprints ALTER landmarks SET STORAGE EXTERNAL;
ALTER TABLE audio_fingerprints ALTER descriptor SET STORAGE EXTERNAL;

-- Lets servers that were away learn what to hide. Rows are small and kept.
CREATE TABLE video_deletions (
    recording_id bigint PRIMARY KEY,
    revision bigint NOT NULL,
    delete_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX video_deletions_by_revision ON video_deletions (revision);

CREATE TABLE processing_jobs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    kind text NOT NULL,
    state text NOT NULL DEFAULT 'QUEUED' CHECK (
        state IN ('QUEUED', 'RUNNING', 'RETRYING', 'SUCCEEDED', 'FAILED', 'CANCELLED')
    ),
    -- Identity of the source: 'sha256:...' or 'url:...'. The same source is the same job.
    dedupe_key text NOT NULL UNIQUE,
    request_id text UNIQUE CHECK (request_id <> ''),
    parameters jsonb NOT NULL,
    progress jsonb NOT NULL DEFAULT '{}',
    failure jsonb,
    result jsonb,
    attempt integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL,
    next_attempt_time timestamptz,
    -- The token of the worker that has it; every write of the worker compares it.
    lease_token uuid,
    lease_expires timestamptz,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    start_time timestamptz,
    finish_time timestamptz,
    CHECK ((state = 'RUNNING') = (lease_token IS NOT NULL)),
    CHECK ((state = 'RETRYING') = (next_attempt_time IS NOT NULL)),
    CHECK ((state = 'SUCCEEDED') = (result IS NOT NULL))
);
CREATE INDEX processing_jobs_by_time ON processing_jobs (create_time DESC, id DESC);
CREATE INDEX processing_jobs_unfinished ON processing_jobs (state)
WHERE state IN ('QUEUED', 'RUNNING', 'RETRYING');

-- A question: a clip or a stream.
CREATE TABLE match_queries (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    kind text NOT NULL CHECK (kind IN ('CLIP', 'STREAM')),
    clip_duration_s double precision NOT NULL,
    elapsed_s double precision NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);

-- Answers keep what was said, also after the video is gone.
CREATE TABLE match_results (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    query_id uuid NOT NULL REFERENCES match_queries (id) ON DELETE CASCADE,
    video_id uuid NOT NULL,
    title text NOT NULL,
    source_url text NOT NULL,
    external_id text NOT NULL,
    clip_start_s double precision NOT NULL,
    clip_end_s double precision NOT NULL,
    video_start_s double precision NOT NULL,
    video_end_s double precision NOT NULL,
    speed double precision NOT NULL,
    pitch double precision NOT NULL,
    confidence double precision NOT NULL,
    parts jsonb NOT NULL,
    also_at_s double precision [] NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX match_results_by_time ON match_results (create_time DESC, id DESC);
CREATE INDEX match_results_by_video ON match_results (video_id, create_time DESC, id DESC);
CREATE INDEX match_results_by_query ON match_results (query_id);

-- Every change is announced when it commits; a lost announcement only delays, for listeners
-- also look by themselves from time to time.
CREATE FUNCTION announce_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('soundhash_jobs', NEW.id::text);
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER INSERT OR UPDATE ON processing_jobs
FOR EACH ROW EXECUTE FUNCTION announce_job();

CREATE FUNCTION announce_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('soundhash_catalogue', NEW.revision::text);
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER UPDATE ON catalogue
FOR EACH ROW EXECUTE FUNCTION announce_revision();
