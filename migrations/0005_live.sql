-- migrate:up

-- A live source that workers listen to.
CREATE TABLE monitors (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- As it was given, passwords included: never shown.
    url text NOT NULL,
    -- SHA-256 of the URL's normal form: the same source is monitored once.
    source_key text NOT NULL UNIQUE,
    request_id text UNIQUE CHECK (request_id <> ''),
    name text NOT NULL,
    min_confidence double precision NOT NULL DEFAULT 0,
    min_duration_s double precision NOT NULL,
    silence_after_s double precision NOT NULL,
    loss_after_s double precision NOT NULL,
    -- 0: what it hears is not indexed.
    keep_air_s double precision NOT NULL DEFAULT 0,
    fetch_options jsonb NOT NULL DEFAULT '{}',
    paused boolean NOT NULL DEFAULT false,
    -- Its worker is to connect again at once.
    retry_now boolean NOT NULL DEFAULT false,
    -- What its worker says; a monitor without a live lease is WAITING, whatever stands here.
    state text NOT NULL DEFAULT 'CONNECTING' CHECK (
        state IN ('CONNECTING', 'LISTENING', 'RETRYING')
    ),
    state_time timestamptz NOT NULL DEFAULT now(),
    failure jsonb,
    retry_time timestamptz,
    failed_attempts integer NOT NULL DEFAULT 0,
    heard_s double precision NOT NULL DEFAULT 0,
    silent_s double precision NOT NULL DEFAULT 0,
    recognised_s double precision NOT NULL DEFAULT 0,
    detections bigint NOT NULL DEFAULT 0,
    connections bigint NOT NULL DEFAULT 0,
    level_db double precision NOT NULL DEFAULT -120,
    source_title text NOT NULL DEFAULT '',
    audio_time timestamptz,
    -- The token of the worker that listens; every write of the worker compares it.
    lease_token uuid,
    lease_expires timestamptz,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    CHECK ((lease_token IS NULL) = (lease_expires IS NULL))
);
CREATE INDEX monitors_by_time ON monitors (create_time DESC, id DESC);
CREATE INDEX monitors_by_lease ON monitors (lease_expires) WHERE NOT paused;

-- Episodes: a video on the air. They keep what was said, also after the video is gone.
CREATE TABLE monitor_detections (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    monitor_id uuid NOT NULL REFERENCES monitors (id) ON DELETE CASCADE,
    video_id uuid NOT NULL,
    title text NOT NULL,
    source_url text NOT NULL,
    external_id text NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    ongoing boolean NOT NULL,
    video_start_s double precision NOT NULL,
    video_end_s double precision NOT NULL,
    -- Seconds of the episode in which the video was heard.
    covered_s double precision NOT NULL,
    confidence double precision NOT NULL,
    speed double precision NOT NULL,
    pitch double precision NOT NULL,
    update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (end_time >= start_time)
);
CREATE INDEX monitor_detections_by_time ON monitor_detections (start_time DESC, id DESC);
CREATE INDEX monitor_detections_by_monitor
ON monitor_detections (monitor_id, start_time DESC, id DESC);
CREATE INDEX monitor_detections_by_video ON monitor_detections (video_id, start_time DESC, id DESC);
CREATE INDEX monitor_detections_ongoing ON monitor_detections (monitor_id) WHERE ongoing;
CREATE INDEX monitor_detections_by_change ON monitor_detections (update_time);

CREATE TABLE monitor_alerts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    monitor_id uuid NOT NULL REFERENCES monitors (id) ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('SILENCE', 'LOSS')),
    start_time timestamptz NOT NULL,
    end_time timestamptz,
    message text NOT NULL DEFAULT '',
    update_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX monitor_alerts_by_time ON monitor_alerts (start_time DESC, id DESC);
CREATE INDEX monitor_alerts_by_monitor ON monitor_alerts (monitor_id, start_time DESC, id DESC);
CREATE UNIQUE INDEX monitor_alerts_ongoing ON monitor_alerts (monitor_id, kind)
WHERE end_time IS NULL;
CREATE INDEX monitor_alerts_by_change ON monitor_alerts (update_time);

CREATE FUNCTION announce_monitor() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('soundhash_monitors', NEW.monitor_id::text);
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER INSERT OR UPDATE ON monitor_detections
FOR EACH ROW EXECUTE FUNCTION announce_monitor();
CREATE TRIGGER announce AFTER INSERT OR UPDATE ON monitor_alerts
FOR EACH ROW EXECUTE FUNCTION announce_monitor();

-- What a monitor has heard is a video, too: a few minutes of its source, deleted after its window.
ALTER TABLE videos
ADD COLUMN monitor_id uuid REFERENCES monitors (id),
ADD COLUMN air_time timestamptz,
ADD CONSTRAINT videos_on_air CHECK ((monitor_id IS NULL) = (air_time IS NULL));
CREATE INDEX videos_by_air_time ON videos (monitor_id, air_time) WHERE monitor_id IS NOT NULL;
-- Far more of it may come and go than there are videos: lists of these do not pass by it.
DROP INDEX videos_by_time;
CREATE INDEX videos_by_time ON videos (create_time DESC, id DESC) WHERE monitor_id IS NULL;
CREATE INDEX videos_heard_by_time ON videos (monitor_id, create_time DESC, id DESC)
WHERE monitor_id IS NOT NULL;

-- The air rolls on for ever, so its deletions are forgotten after a while. An index that has
-- not followed since the revision `air_forgotten` compares everything instead.
ALTER TABLE video_deletions ADD COLUMN on_air boolean NOT NULL DEFAULT false;
CREATE INDEX video_deletions_on_air ON video_deletions (delete_time) WHERE on_air;
ALTER TABLE catalogue ADD COLUMN air_forgotten bigint NOT NULL DEFAULT 0;

-- Answers keep when it was on the air.
ALTER TABLE match_results
ADD COLUMN monitor_id uuid,
ADD COLUMN monitor_name text NOT NULL DEFAULT '',
ADD COLUMN air_time timestamptz;
