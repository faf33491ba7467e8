-- migrate:up

-- A list of videos at a source. `name` alone stays what an operator calls a collection.
ALTER TABLE channels
ADD COLUMN service text NOT NULL DEFAULT '',
ADD COLUMN service_id text NOT NULL DEFAULT '',
ADD COLUMN url text NOT NULL DEFAULT '',
ADD COLUMN description text NOT NULL DEFAULT '',
ADD COLUMN thumbnail_url text NOT NULL DEFAULT '',
-- What the source calls the list of its uploads, where it has a name.
ADD COLUMN uploads_id text NOT NULL DEFAULT '',
-- Where an interrupted listing goes on; null when none is under way.
ADD COLUMN list_cursor jsonb,
ADD COLUMN list_time timestamptz,
ADD COLUMN schedule text NOT NULL DEFAULT '',
ADD COLUMN next_run_time timestamptz,
ADD COLUMN fetch_options jsonb NOT NULL DEFAULT '{}',
-- Of its last submission: the schedule repeats it.
ADD COLUMN max_videos integer NOT NULL DEFAULT 0,
ADD COLUMN since timestamptz,
ADD CONSTRAINT channels_scheduled CHECK ((schedule = '') = (next_run_time IS NULL));
CREATE UNIQUE INDEX channels_by_service ON channels (service, service_id) WHERE service <> '';
CREATE INDEX channels_due ON channels (next_run_time) WHERE next_run_time IS NOT NULL;
CREATE INDEX channels_by_time ON channels (create_time DESC, id DESC);

-- Other names by which a channel was asked for: handles, legacy user names.
CREATE TABLE channel_aliases (
    service text NOT NULL,
    name text NOT NULL,
    channel_id uuid NOT NULL REFERENCES channels (id) ON DELETE CASCADE,
    PRIMARY KEY (service, name)
);
CREATE INDEX channel_aliases_by_channel ON channel_aliases (channel_id);

ALTER TABLE processing_jobs
ADD COLUMN parent_id uuid REFERENCES processing_jobs (id) ON DELETE CASCADE,
-- Of a channel's videos and of its listing: workers take turns between channels.
ADD COLUMN channel_id uuid REFERENCES channels (id) ON DELETE SET NULL,
-- Where it fetches from: hosts have bounds of their own and can be paused.
ADD COLUMN source_host text NOT NULL DEFAULT '',
DROP CONSTRAINT processing_jobs_state_check,
ADD CONSTRAINT processing_jobs_state_check CHECK (
    state IN ('QUEUED', 'RUNNING', 'RETRYING', 'WAITING', 'SUCCEEDED', 'FAILED', 'CANCELLED')
);
CREATE INDEX processing_jobs_by_parent ON processing_jobs (parent_id, state)
WHERE parent_id IS NOT NULL;
CREATE INDEX processing_jobs_by_channel ON processing_jobs (channel_id, state)
WHERE channel_id IS NOT NULL;
CREATE INDEX processing_jobs_failed ON processing_jobs ((failure ->> 'reason'), state)
WHERE failure IS NOT NULL;
CREATE INDEX processing_jobs_waiting ON processing_jobs (state) WHERE state = 'WAITING';

-- Twitch clips are listed by themselves.
CREATE INDEX processing_jobs_clips ON processing_jobs (create_time DESC, id DESC)
WHERE starts_with(dedupe_key, 'media:twitchclips:');

-- What a channel's source lists, in its order.
CREATE TABLE channel_videos (
    channel_id uuid NOT NULL REFERENCES channels (id) ON DELETE CASCADE,
    service text NOT NULL,
    media_id text NOT NULL,
    url text NOT NULL,
    title text NOT NULL,
    description text NOT NULL DEFAULT '',
    thumbnail_url text NOT NULL DEFAULT '',
    publish_time timestamptz,
    duration_s double precision,
    -- The newest first, as sources list; new ones get ever smaller positions.
    position bigint NOT NULL,
    skip_reason text NOT NULL DEFAULT '',
    job_id uuid REFERENCES processing_jobs (id) ON DELETE SET NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel_id, service, media_id)
);
CREATE INDEX channel_videos_by_position ON channel_videos (channel_id, position);

ALTER TABLE videos
ADD COLUMN service text NOT NULL DEFAULT '',
ADD COLUMN media_id text NOT NULL DEFAULT '',
ADD COLUMN description text NOT NULL DEFAULT '',
ADD COLUMN publish_time timestamptz,
ADD COLUMN thumbnail_url text NOT NULL DEFAULT '';
CREATE UNIQUE INDEX videos_by_media ON videos (service, media_id) WHERE media_id <> '';

-- A host that keeps refusing is left alone as a whole until then.
CREATE TABLE source_pauses (
    host text PRIMARY KEY,
    until timestamptz NOT NULL,
    refusals integer NOT NULL CHECK (refusals > 0),
    reason text NOT NULL,
    update_time timestamptz NOT NULL DEFAULT now()
);

-- Proxies that failed, by the SHA-256 of their address: it may hold a password.
CREATE TABLE proxy_benches (
    proxy_sha256 text PRIMARY KEY,
    until timestamptz NOT NULL,
    failures integer NOT NULL CHECK (failures > 0)
);

-- Units of an API that were spent on its day.
CREATE TABLE quota_use (
    api text NOT NULL,
    day date NOT NULL,
    units integer NOT NULL CHECK (units >= 0),
    PRIMARY KEY (api, day)
);

-- Files of scanned folders, as they were when they were last looked at.
CREATE TABLE folder_files (
    folder text NOT NULL,
    path text NOT NULL,
    size_bytes bigint NOT NULL,
    mtime_ns bigint NOT NULL,
    -- Empty for what is no media.
    content_sha256 text NOT NULL,
    -- Whether these bytes came by another way too: their video then stays when the file goes.
    shared boolean NOT NULL DEFAULT false,
    PRIMARY KEY (folder, path)
);
CREATE INDEX folder_files_by_content ON folder_files (content_sha256);

-- What is kept of videos in object storage. A row is there before its object is and stays until
-- the object is gone, so that none is forgotten, however a process ends.
CREATE TABLE media_objects (
    -- The storage's address without secrets: keys of another one are left alone.
    storage text NOT NULL,
    key text NOT NULL,
    -- A worker chooses it before it stores the video, which need not be there (yet, or any more).
    video_id uuid NOT NULL,
    -- WRITING: by a worker, or left behind by one. KEPT: whole, and the video is there.
    -- DOOMED: to be deleted.
    state text NOT NULL DEFAULT 'WRITING' CHECK (state IN ('WRITING', 'KEPT', 'DOOMED')),
    size_bytes bigint NOT NULL DEFAULT 0,
    -- Empty until the object is whole.
    content_sha256 text NOT NULL DEFAULT '',
    content_type text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    expire_time timestamptz,
    PRIMARY KEY (storage, key)
);
CREATE INDEX media_objects_by_video ON media_objects (video_id);
CREATE INDEX media_objects_unsettled ON media_objects (storage, update_time) WHERE state <> 'KEPT';
CREATE INDEX media_objects_expiring ON media_objects (expire_time) WHERE expire_time IS NOT NULL;

-- Whoever deletes a video, however: its objects go after it.
CREATE FUNCTION doom_objects() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE media_objects SET state = 'DOOMED', update_time = clock_timestamp()
    WHERE video_id = OLD.id AND state <> 'DOOMED';
    RETURN NULL;
END $$;
CREATE TRIGGER doom_objects AFTER DELETE ON videos
FOR EACH ROW EXECUTE FUNCTION doom_objects();
