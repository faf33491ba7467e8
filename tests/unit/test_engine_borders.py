"""Segments are rows of a table and nothing more: no clip is worse off for lying over a border."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.songs import cut, noise, song

from soundhash_engine import PARAMS, CorruptFingerprint, extract, join
from soundhash_engine.index import Index, Snapshot
from soundhash_engine.matcher import Match, match

LENGTH_S = 200.0
SEED = 3
SONG = song(LENGTH_S, SEED)


def params(segment_s: int):
    return dataclasses.replace(PARAMS, segment_s=segment_s)


@pytest.fixture(scope="module", params=[90, 30, 600])
def snapshot(request: pytest.FixtureRequest) -> Snapshot:
    """Three songs in segments of this length, read with the parameters of today."""
    index = Index()
    index.apply(
        [
            (seed, 1, join(extract(song(LENGTH_S, seed), params(request.param))))
            for seed in (1, 2, SEED)
        ]
    )
    return index.snapshot()


def find(snapshot: Snapshot, start_s: float, length_s: float, level: float) -> Match:
    clip = cut(SONG, start_s, length_s)
    if level:
        clip = clip + noise(length_s, 7, level * float(np.sqrt(np.mean(clip**2))))
    (found,) = match(snapshot, clip).matches
    return found


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("length_s", [2.0, 5.0])
@pytest.mark.parametrize("border_s", [90.0, 180.0])
def test_clips_over_a_border_are_found(
    snapshot: Snapshot, border_s: float, length_s: float, level: float
) -> None:
    for part in (0.1, 0.5, 0.9):
        start_s = border_s - part * length_s
        found = find(snapshot, start_s, length_s, level)
        assert found.recording_id == SEED
        assert found.video_start_s - found.speed * found.clip_start_s == pytest.approx(
            start_s, abs=0.05
        )
        assert found.confidence > 0.9


def test_the_score_is_that_of_one_piece() -> None:
    """The same clip, over a border in one index and in the middle of a segment in the other."""

    def snapshot(segment_s: int) -> Snapshot:
        index = Index()
        index.apply([(SEED, 1, join(extract(SONG, params(segment_s))))])
        return index.snapshot()

    bordered, whole = snapshot(90), snapshot(600)
    for start_s in (87.5, 88.8, 177.0):
        clip = cut(SONG, start_s, 4.0) + noise(4.0, 9, 0.05)
        ours, theirs = match(bordered, clip).matches, match(whole, clip).matches
        assert ours == theirs
        assert len(ours) == 1


def test_segments_of_any_length_join_to_the_same_fingerprint() -> None:
    expected = join(extract(SONG, params(600)))
    for segment_s in (10, 45, 90):
        segments = extract(SONG, params(segment_s))
        assert len(segments) == -(-int(LENGTH_S) // segment_s)
        found = join(segments)
        assert (found.duration_s, found.n_frames) == (expected.duration_s, expected.n_frames)
        for name in ("time", "bin", "strength"):
            ours, theirs = getattr(found.landmarks, name), getattr(expected.landmarks, name)
            assert np.array_equal(ours, theirs), name
        assert np.array_equal(found.descriptor, expected.descriptor)


def test_segments_of_different_lengths_are_of_different_recordings() -> None:
    mixed = [extract(SONG, params(60))[0], *extract(SONG, params(30))[1:]]
    with pytest.raises(CorruptFingerprint):
        join(mixed)
