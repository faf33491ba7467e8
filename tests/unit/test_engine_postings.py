"""Postings elsewhere answer as those in a volume's own arrays do, element for element."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from tests.asking import SONGS, check_same_answers, make_volumes, questions

from soundhash_engine import extract, join
from soundhash_engine.index import Index
from soundhash_engine.layout import BUCKET_FRAME_BITS, CHECK_BITS
from soundhash_engine.matcher import match
from soundhash_engine.postings import (
    LOCAL,
    Given,
    Missing,
    RemotePostings,
    Wanted,
    cold_rows,
    hot_limit,
)
from soundhash_engine.volume import Volume


@pytest.fixture(scope="module")
def volumes() -> tuple[Volume, ...]:
    return make_volumes()


class Kept:
    """A look-up in plain dictionaries: the rule of `Given` in its simplest form."""

    def __init__(self, volumes: Sequence[Volume], lost: frozenset[int] = frozenset()) -> None:
        self.volumes = volumes
        self.lost = lost
        """Of the buckets, modulo three, these do not answer."""
        self.asked = 0
        self.buckets = {
            id(volume): cold_rows(volume, 0, len(volume.bucket) - 1) for volume in volumes
        }

    def holds(self, volume: Volume) -> bool:
        return any(one is volume for one in self.volumes)

    def look_up(self, wanted: Sequence[Wanted]) -> tuple[list[Given], tuple[Missing, ...]]:
        self.asked += 1
        given = []
        for one in wanted:
            starts, checks, posts = self.buckets[id(one.volume)]
            which, count, check, post = [], [], [], []
            for i, bucket in enumerate(one.bucket.tolist()):
                if bucket % 3 in self.lost:
                    continue
                here = slice(starts[bucket], starts[bucket + 1])
                keys = (bucket << CHECK_BITS) | checks[here].astype(np.int64)
                at = np.searchsorted(one.first, keys, side="right") - 1
                wanted_here = (at >= 0) & (keys <= one.last[at])
                if wanted_here.any():
                    which.append(i)
                    count.append(int(wanted_here.sum()))
                    check.append(checks[here][wanted_here])
                    post.append(posts[here][wanted_here])
            given.append(
                Given(
                    np.array(which, np.int64),
                    np.array(count, np.int64),
                    np.concatenate([np.empty(0, np.uint8), *check]),
                    np.concatenate([np.empty(0, np.uint32), *post]),
                )
            )
        missing = tuple(Missing(f"third {k}", 1 / 3, "UNREACHABLE") for k in sorted(self.lost))
        return given, missing


def test_answers_are_the_same_element_for_element(volumes: tuple[Volume, ...]) -> None:
    kept = Kept(volumes)
    assert check_same_answers(volumes, kept) > 200
    assert kept.asked == len(questions())


def test_hot_keys_are_not_kept(volumes: tuple[Volume, ...]) -> None:
    volume = volumes[1]
    starts, checks, posts = cold_rows(volume, 0, len(volume.bucket) - 1)
    assert 0 < len(posts) < len(volume.post)
    for bucket in np.flatnonzero(np.diff(starts))[:2000].tolist():
        here = slice(starts[bucket], starts[bucket + 1])
        words = posts[here] >> (volume.bits + BUCKET_FRAME_BITS)
        keys = checks[here].astype(np.int64) << 32 | words
        assert np.unique(keys, return_counts=True)[1].max() <= hot_limit(volume)


def test_volumes_here_and_there_answer_in_their_order(volumes: tuple[Volume, ...]) -> None:
    question = questions()[0]
    expected = LOCAL.ask(volumes, question)
    for away in ((volumes[0],), (volumes[1],), ()):
        given = RemotePostings(Kept(away)).ask(volumes, question)
        for a, b in zip(expected.found, given.found, strict=True):
            np.testing.assert_array_equal(a.bin, b.bin)
            np.testing.assert_array_equal(a.votes, b.votes)


def test_a_lost_part_is_named_and_what_is_left_still_votes(volumes: tuple[Volume, ...]) -> None:
    question = questions()[0]
    whole = LOCAL.ask(volumes, question)
    given = RemotePostings(Kept(volumes, frozenset({1}))).ask(volumes, question)
    assert [part.part for part in given.missing] == ["third 1"]
    votes = [sum(int(f.votes.sum()) for f in answer.found) for answer in (whole, given)]
    assert 0.3 * votes[0] < votes[1] < 0.9 * votes[0]


def test_match_says_what_did_not_answer() -> None:
    index = Index()
    index.apply([(i, 1, join(extract(pcm))) for i, pcm in SONGS.items()])
    index.seal()
    snapshot = index.snapshot()
    clip = SONGS[2][80_000:120_000]
    for lost, parts in ((frozenset[int](), []), (frozenset({0, 2}), ["third 0", "third 2"])):
        there = RemotePostings(Kept(snapshot.volumes, lost))
        result = match(dataclasses.replace(snapshot, postings=there), clip)
        assert [m.recording_id for m in result.matches] == [2]
        assert [part.part for part in result.missing] == parts
    assert match(snapshot, clip).missing == ()
    assert match(snapshot.without([1]), clip).matches[0].recording_id == 2
