"""The form of postings in a table's rows: what is cut out of them is what was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tests.asking import SONGS, check_same_answers

from soundhash_engine import extract, join
from soundhash_engine.postings import Given, Missing, Wanted
from soundhash_engine.volume import Volume
from soundhash_server.store.posting_rows import (
    Pieces,
    Reply,
    _Rows,
    content_key,
    join_given,
    row_count,
    rows_of,
)

SHARDS = 3


@pytest.fixture(scope="module")
def volume() -> Volume:
    return Volume.build([(i, 1, join(extract(pcm))) for i, pcm in SONGS.items()])


class Tables:
    """The statement `LOOK_UP` in Python, over the very bytes that are stored."""

    def __init__(self, volume: Volume, shuffled: bool) -> None:
        self._volume = volume
        self._shuffled = shuffled
        self._rows = [dict(_Rows(volume, shard, SHARDS, 0)) for shard in range(SHARDS)]
        self.sent = 0

    def holds(self, volume: Volume) -> bool:
        return volume is self._volume

    def look_up(self, wanted: Sequence[Wanted]) -> tuple[list[Given], tuple[Missing, ...]]:
        (one,) = wanted
        pieces = Pieces.of(one)
        given = []
        for shard in range(SHARDS):
            mine = pieces.within(rows_of(one.volume, shard, SHARDS))
            given.append(self._reply(self._rows[shard], mine).given(mine, one))
        return [join_given(given)], ()

    def _reply(self, rows: dict[int, bytes], pieces: Pieces) -> Reply:
        order = np.arange(len(pieces))
        if self._shuffled:
            order = np.random.default_rng(len(pieces)).permutation(order)
        ordinals, starts, check, post = [], [], b"", b""
        for i in order.tolist():
            data = rows.get(int(pieces.row[i]))
            if data is None:
                continue
            inside = np.frombuffer(data[:258], ">u2")[pieces.first[i] : pieces.last[i] + 2]
            total = int(np.frombuffer(data[256:258], ">u2")[0])
            low, high = int(inside[0]), int(inside[-1])
            ordinals.append(i)
            starts.append(inside.astype(np.int64))
            check += data[258 + low : 258 + high]
            post += data[258 + total + 4 * low : 258 + total + 4 * high]
        self.sent += len(post)
        return Reply(
            np.array(ordinals, np.int64),
            np.concatenate([np.empty(0, np.int64), *starts]),
            np.frombuffer(check, np.uint8),
            np.frombuffer(post, "<u4"),
            loaded=True,
        )


@pytest.mark.parametrize("shuffled", [False, True])
def test_rows_give_what_the_volume_gives(volume: Volume, shuffled: bool) -> None:
    tables = Tables(volume, shuffled)
    assert check_same_answers((volume,), tables) > 20
    assert tables.sent > 0


def test_pieces_cover_what_is_wanted_and_little_more(volume: Volume) -> None:
    random = np.random.default_rng(5)
    most = len(volume.bucket) - 1 << 8
    for _ in range(200):
        edges = np.sort(random.choice(most, 2 * int(random.integers(1, 60)), replace=False))
        first, last = edges[::2].astype(np.int64), edges[1::2].astype(np.int64)
        wanted = Wanted(volume, first, last, np.empty(0, np.int64))
        pieces = Pieces.of(wanted)
        asked = {
            int(row) * 128 + quarter
            for row, a, b in zip(pieces.row, pieces.first, pieces.last, strict=True)
            for quarter in range(a, b + 1)
        }
        expected = {
            quarter
            for a, b in zip(first.tolist(), last.tolist(), strict=True)
            for quarter in range(a >> 6, (b >> 6) + 1)
        }
        assert asked == expected
        keys = list(zip(pieces.row.tolist(), pieces.first.tolist(), strict=True))
        assert keys == sorted(set(keys))


def test_every_row_has_one_shard(volume: Volume) -> None:
    for shards in (1, 2, 3, 5, 16):
        rows = [row for i in range(shards) for row in rows_of(volume, i, shards)]
        assert rows == list(range(row_count(volume)))


def test_a_key_tells_contents_apart(volume: Volume) -> None:
    same = Volume.from_arrays(volume.meta(), {k: v.copy() for k, v in volume.arrays().items()})
    assert content_key(same) == content_key(volume)
    prints = {i: join(extract(pcm)) for i, pcm in SONGS.items()}
    swapped = Volume.build([(1, 1, prints[2]), (2, 1, prints[1]), (3, 1, prints[3])])
    plain = Volume.build([(1, 1, prints[1]), (2, 1, prints[2]), (3, 1, prints[3])])
    assert len({content_key(v) for v in (volume, swapped, plain)}) == 3
