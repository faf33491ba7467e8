-- Postings of the match index on a shard: a cache that every server can make again from its
-- volumes. A shard holds one range of hashes of every volume.
--
-- An operator may make `postings` beforehand as a distributed or partitioned table with the same
-- columns (docs/scaling.md).

-- migrate:up

-- A volume is there if its row is: it comes and goes in one transaction with its postings.
CREATE TABLE posting_volumes (
    number int GENERATED ALWAYS AS IDENTITY (MAXVALUE 67108863) PRIMARY KEY,
    -- Digest of what the volume holds, and which part of how many is here.
    key text NOT NULL UNIQUE,
    -- Postings of it on this shard.
    postings bigint NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL DEFAULT now(),
    -- When a server last said that it uses the volume.
    used_time timestamptz NOT NULL DEFAULT now()
);

-- Each row holds 32 neighbouring buckets of a volume.
CREATE TABLE IF NOT EXISTS postings (
    -- Number of the volume (26 bits), number of the row in the volume (22 bits).
    place bigint PRIMARY KEY,
    -- 129 big-endian 16-bit numbers: where the postings of each quarter of a bucket begin, and
    -- where the last ones end; then a check byte a posting, then a little-endian 32-bit word each.
    data bytea NOT NULL
) WITH (toast_tuple_target = 8160);

-- Rows are about 2 kB: they stay in the table, as they are.
ALTER TABLE postings ALTER COLUMN data SET STORAGE EXTERNAL;
