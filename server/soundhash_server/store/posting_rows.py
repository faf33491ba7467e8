"""Postings of volumes as rows of a PostgreSQL table: their form, loading, dropping, look-up.

A shard holds a range of hashes of every volume. Its schema (`migrations/postings`) is its own, and
all of it is a cache: a volume's rows can be made again from the volume at any time. The volume's
row in `posting_volumes` is written in the same transaction as its postings, so that a volume is
there whole or not at all, whoever dies.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncpg
import numpy as np
from numpy.typing import NDArray

from soundhash_engine.layout import CHECK_BITS
from soundhash_engine.postings import Given, Wanted, cold_rows, hot_limit, join_ranges
from soundhash_engine.volume import VOLUME_FORMAT, Volume
from soundhash_server.store.migrate import migrations_dir
from soundhash_server.store.pool import Connection

ROW_BUCKETS_BITS = 5
"""2^5 buckets a row: 2 to 3 kB, of which a page of the table holds some, whole."""
_QUARTER_SHIFT = 6
"""A row says where each quarter of a bucket (by check byte) begins, so that little more is sent
than what is asked for."""
_ROW_SHIFT = ROW_BUCKETS_BITS + CHECK_BITS
_ROW_QUARTERS = 1 << (_ROW_SHIFT - _QUARTER_SHIFT)
_SLOT_BITS = 22
"""Of a row's number in its volume; what is above it in a row's place is the volume's number."""
_LOADED_ROWS = 256
"""Rows are made by so many at a time."""
_MOST_IN_ROW = 0xFFFF
_ROW_BUCKETS = 1 << ROW_BUCKETS_BITS

LOOK_UP = """
SELECT coalesce(string_agg(int4send(i), ''::bytea), ''),
       coalesce(string_agg(substr(data, at, size), ''::bytea), ''),
       coalesce(string_agg(substr(data, 259 + low, high - low), ''::bytea), ''),
       coalesce(string_agg(substr(data, 259 + total + 4 * low, 4 * (high - low)),
                           ''::bytea), ''),
       EXISTS (SELECT FROM posting_volumes WHERE number = $2)
FROM (
    SELECT i, data, at, size,
           get_byte(data, at - 1) * 256 + get_byte(data, at) AS low,
           get_byte(data, at + size - 3) * 256 + get_byte(data, at + size - 2) AS high,
           get_byte(data, 256) * 256 + get_byte(data, 257) AS total
    FROM (
        SELECT i::int AS i, data,
               1 + 2 * ((piece >> 7) & 127)::int AS at,
               4 + 2 * ((piece & 127) - ((piece >> 7) & 127))::int AS size
        FROM unnest($1::bigint[]) WITH ORDINALITY AS asked (piece, i)
        JOIN postings ON place = piece >> 14
        OFFSET 0
    ) AS rows
    OFFSET 0
) AS slices
"""
"""For pieces of rows (place << 14 | first quarter << 7 | last quarter): which of them there are; of
each where its quarters begin and end, its check bytes and its words; whether the volume is there at
all. The aggregates go through the same rows in the same order, whichever it is: to ask for one
would sort whole rows. OFFSET 0 keeps expressions from being worked out more than once."""


def postings_migrations() -> Path:
    """The shards' migrations, apart from the catalogue's."""
    return migrations_dir() / "postings"


def content_key(volume: Volume) -> str:
    """Digest of what decides a volume's postings: equal volumes of several servers are one.

    Reads which recordings there are, how their landmarks lie in time, and how the keys lie in the
    buckets: ids and revisions alone begin anew in every catalogue.
    """
    digest = hashlib.blake2b(digest_size=16)
    described = (VOLUME_FORMAT, volume.params_digest, volume.search, hot_limit(volume))
    digest.update(repr(described).encode())
    for array in (volume.recording_id, volume.revision, volume.bucket, volume.block):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def row_count(volume: Volume) -> int:
    """Rows of all shards together."""
    return 1 << max(0, volume.bits - ROW_BUCKETS_BITS)


def rows_of(volume: Volume, shard: int, shards: int) -> range:
    """Which rows are a shard's: each has one range of all hashes."""
    rows = row_count(volume)
    return range(-(-shard * rows // shards), -(-(shard + 1) * rows // shards))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Neighbouring quarters of buckets within a row each, in rising order.

    row          int64, of the volume
    first, last  int64, quarters of the row
    """

    row: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @classmethod
    def of(cls, wanted: Wanted) -> Pieces:
        """What covers the ranges that are wanted."""
        first, last = join_ranges(wanted.first >> _QUARTER_SHIFT, wanted.last >> _QUARTER_SHIFT)
        low, high = first // _ROW_QUARTERS, last // _ROW_QUARTERS
        # A range that reaches over several rows has a piece of each.
        times = high - low + 1
        row = np.repeat(high + 1 - np.cumsum(times), times) + np.arange(int(times.sum()))
        begin = row * _ROW_QUARTERS
        return cls(
            row,
            np.maximum(np.repeat(first, times) - begin, 0),
            np.minimum(np.repeat(last, times) - begin, _ROW_QUARTERS - 1),
        )

    def __len__(self) -> int:
        return len(self.row)

    def within(self, rows: range) -> Pieces:
        """Those of some rows."""
        return self.slice(*np.searchsorted(self.row, (rows.start, rows.stop)).tolist())

    def slice(self, begin: int, end: int) -> Pieces:
        """Those from ``begin`` to before ``end``."""
        return Pieces(self.row[begin:end], self.first[begin:end], self.last[begin:end])

    def take(self, which: NDArray[np.int64]) -> Pieces:
        """Some of them."""
        return Pieces(self.row[which], self.first[which], self.last[which])

    def words(self, number: int) -> NDArray[np.int64]:
        """What `LOOK_UP` is asked of the volume with this number."""
        return (((number << _SLOT_BITS) | self.row) << 14) | (self.first << 7) | self.last


def join_given(parts: Sequence[Given]) -> Given:
    """The buckets of several answers, in rising order, as one."""
    which = np.concatenate([np.empty(0, np.int64), *(part.which for part in parts)])
    count = np.concatenate([np.empty(0, np.int64), *(part.count for part in parts)])
    new = np.flatnonzero(np.append(True, which[1:] != which[:-1])[: len(which)])
    return Given(
        which[new],
        np.add.reduceat(count, new) if len(new) else count,
        np.concatenate([np.empty(0, np.uint8), *(part.check for part in parts)]),
        np.concatenate([np.empty(0, np.uint32), *(part.post for part in parts)]),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """A volume on a shard."""

    number: int
    postings: int


async def held(connection: Connection) -> dict[str, Held]:
    """The volumes that are there, by key."""
    rows = await connection.fetch("SELECT key, number, postings FROM posting_volumes")
    return {row["key"]: Held(row["number"], row["postings"]) for row in rows}


async def touch(connection: Connection, numbers: Sequence[int]) -> None:
    """Says that these volumes are in use."""
    await connection.execute(
        "UPDATE posting_volumes SET used_time = now() WHERE number = ANY ($1::int[])", numbers
    )


async def drop_unused(connection: Connection, lease_s: float) -> int:
    """Drops the volumes that no server has used for this long; returns how many."""
    unused = await connection.fetch(
        "SELECT number FROM posting_volumes WHERE used_time < now() - make_interval(secs => $1)",
        lease_s,
    )
    for row in unused:
        async with connection.transaction():
            gone = await connection.fetchval(
                "DELETE FROM posting_volumes"
                " WHERE number = $1 AND used_time < now() - make_interval(secs => $2)"
                " RETURNING number",
                row["number"],
                lease_s,
            )
            if gone is not None:
                await connection.execute(
                    "DELETE FROM postings WHERE place >= $1 AND place < $2",
                    gone << _SLOT_BITS,
                    (gone + 1) << _SLOT_BITS,
                )
    return len(unused)


async def load(connection: Connection, key: str, volume: Volume, shard: int, shards: int) -> bool:
    """Stores one shard's part of a volume; returns whether it was not there yet.

    Streams; waits for another server that is storing the same. Raises OverflowError for a volume
    whose keys are so uneven that a row's form cannot hold them.
    """
    async with connection.transaction():
        number = await connection.fetchval(
            "INSERT INTO posting_volumes (key) VALUES ($1) ON CONFLICT (key) DO NOTHING"
            " RETURNING number",
            key,
        )
        if number is None:
            return False
        rows = _Rows(volume, shard, shards, number << _SLOT_BITS)
        await connection.copy_records_to_table(
            "postings", records=iter(rows), columns=("place", "data")
        )
        await connection.execute(
            "UPDATE posting_volumes SET postings = $2 WHERE number = $1", number, rows.postings
        )
    return True


class _Rows:
    """The rows of one shard's part of a volume; counts the postings in them."""

    def __init__(self, volume: Volume, shard: int, shards: int, first_place: int) -> None:
        self._volume = volume
        self._rows = rows_of(volume, shard, shards)
        self._first_place = first_place
        self.postings = 0

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        for begin in range(self._rows.start, self._rows.stop, _LOADED_ROWS):
            end = min(begin + _LOADED_ROWS, self._rows.stop)
            starts, checks, posts = cold_rows(
                self._volume, begin * _ROW_BUCKETS, end * _ROW_BUCKETS
            )
            bucket = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
            quarter = ((bucket << CHECK_BITS) | checks) >> _QUARTER_SHIFT
            quarters = np.searchsorted(quarter, np.arange((end - begin) * _ROW_QUARTERS + 1))
            words = posts.astype("<u4", copy=False)
            self.postings += len(posts)
            for i in range(end - begin):
                inside = quarters[i * _ROW_QUARTERS : (i + 1) * _ROW_QUARTERS + 1]
                first, last = int(inside[0]), int(inside[-1])
                if last - first > _MOST_IN_ROW:
                    raise OverflowError(f"{last - first} postings do not fit one row")
                if last > first:
                    data = (
                        (inside - first).astype(">u2").tobytes()
                        + checks[first:last].tobytes()
                        + words[first:last].tobytes()
                    )
                    yield self._first_place + begin + i, data


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What `LOOK_UP` gave.

    ordinal  int64: which of the asked pieces there are, from 0
    starts   int64, where each quarter of these begins, and where each piece's last one ends
    check    uint8, check bytes of all pieces
    post     uint32, their words
    loaded   whether the volume is there at all
    """

    ordinal: NDArray[np.int64]
    starts: NDArray[np.int64]
    check: NDArray[np.uint8]
    post: NDArray[np.uint32]
    loaded: bool

    @classmethod
    def of(cls, row: asyncpg.Record) -> Reply:
        """From the row as the database gave it."""
        ordinal, starts, check, post, loaded = row
        return cls(
            np.frombuffer(ordinal, ">i4").astype(np.int64) - 1,
            np.frombuffer(starts, ">u2").astype(np.int64),
            np.frombuffer(check, np.uint8),
            np.frombuffer(post, "<u4"),
            loaded,
        )

    def given(self, asked: Pieces, wanted: Wanted) -> Given:
        """The reply's postings as buckets; ``asked``: all pieces that it is the reply to."""
        there = asked.take(self.ordinal)
        quarters = there.last - there.first + 1
        # Between the last start of a piece and the first of the next there is no quarter.
        inside = np.ones(max(0, len(self.starts) - 1), np.bool_)
        inside[np.cumsum(quarters + 1)[:-1] - 1] = False
        count = np.diff(self.starts)[inside]
        base = there.row * _ROW_QUARTERS + there.first
        quarter = np.repeat(base - np.cumsum(quarters) + quarters, quarters) + np.arange(len(count))
        check, post = self.check, self.post
        if (quarter[1:] < quarter[:-1]).any():
            # A single server goes through the pieces as they were asked; several together may not.
            order = np.argsort(quarter)
            begin = (np.cumsum(count) - count)[order]
            quarter, count = quarter[order], count[order]
            index = np.repeat(begin - np.cumsum(count) + count, count) + np.arange(len(post))
            check, post = check[index], post[index]
        which = np.searchsorted(wanted.bucket, quarter >> (CHECK_BITS - _QUARTER_SHIFT))
        return join_given([Given(which, count, check, post)])
