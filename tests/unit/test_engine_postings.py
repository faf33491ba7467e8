"""Postings elsewhere answer as those in a volume's own arrays do, element for element."""

import dataclasses

import numpy as np
import pytest
from tests.asking import SONGS, Kept, check_same_answers, make_volumes, questions

from soundhash_engine import extract, join
from soundhash_engine.index import Index
from soundhash_engine.layout import BUCKET_FRAME_BITS
from soundhash_engine.matcher import match
from soundhash_engine.postings import (
    LOCAL,
    RemotePostings,
    cold_rows,
    hot_limit,
)
from soundhash_engine.volume import Volume


@pytest.fixture(scope="module")
def volumes() -> tuple[Volume, ...]:
    return make_volumes()


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
