-- migrate:up

-- What is kept of clips for a while, so that their matches can be explained without the clip: no
-- audio, but landmarks and contrast of the parts that convinced most. About 4 kB a second of it.
CREATE TABLE clip_parts (
    query_id uuid NOT NULL REFERENCES match_queries (id) ON DELETE CASCADE,
    -- Seconds of the clip.
    begin_s double precision NOT NULL,
    end_s double precision NOT NULL,
    features bytea NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (query_id, begin_s, end_s)
);
CREATE INDEX clip_parts_by_time ON clip_parts (create_time);
-- Compressed already.
ALTER TABLE clip_parts ALTER features SET STORAGE EXTERNAL;
