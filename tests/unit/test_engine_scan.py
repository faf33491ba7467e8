"""Scanning finds a place without any key, changed or not, and in the frames asked for."""

import numpy as np
import pytest
from tests.songs import cut, song

from soundhash_engine import extract, join
from soundhash_engine.landmarks import query_features
from soundhash_engine.scan import scan, scan_volume
from soundhash_engine.volume import Volume


@pytest.fixture(scope="module")
def volume() -> Volume:
    return Volume.build([(seed, 1, join(extract(song(40.0, seed)))) for seed in (1, 2, 3)])


def expected(volume: Volume, row: int, start_s: float, n_frames: int, tempo: float) -> float:
    """Frame of the time line at which a clip's centre lies."""
    # A frame's middle is four frames after its first sample.
    in_song = start_s * 62.5 + tempo * (0.5 * (n_frames - 1) + 4) - 4
    return float(volume.base_frame[row]) + in_song


@pytest.mark.parametrize("length_s", [1.0, 3.0, 8.0])
def test_the_best_place_is_the_right_one(volume: Volume, length_s: float) -> None:
    marks = query_features(cut(song(40.0, 2), 21.0, length_s)).landmarks
    found = scan((volume,), marks, float(marks.n_frames - 1), most=20)
    assert found.position[0] == pytest.approx(
        expected(volume, 1, 21.0, marks.n_frames, 1.0), abs=1.5
    )
    assert (np.diff(found.votes) <= 0).all()
    assert len(found) <= 20


def test_a_changed_clip_is_found_under_its_change(volume: Volume) -> None:
    clip = song(5.0, 3, tempo=1.1, pitch=2 ** (4 / 36), start_s=9.0)
    marks = query_features(clip).landmarks
    found = scan_volume(volume, 0, marks, float(marks.n_frames - 1), most=5, pitch=4.0, tempo=1.1)
    assert found.position[0] == pytest.approx(
        expected(volume, 2, 9.0, marks.n_frames, 1.1), abs=2.5
    )
    assert (found.tempo == 1.1).all()


def test_only_the_frames_asked_for_are_read(volume: Volume) -> None:
    marks = query_features(cut(song(40.0, 1), 10.0, 4.0)).landmarks
    first = int(volume.base_frame[1])
    last = first + int(volume.n_frames[1])
    found = scan_volume(volume, 0, marks, float(marks.n_frames - 1), most=50, frames=(first, last))
    assert ((found.position >= first) & (found.position <= last + 2)).all()


def test_two_volumes_are_one_catalogue(volume: Volume) -> None:
    parts = tuple(Volume.build([(seed, 1, join(extract(song(40.0, seed))))]) for seed in (3, 2))
    marks = query_features(cut(song(40.0, 2), 21.0, 4.0)).landmarks
    found = scan(parts, marks, float(marks.n_frames - 1), most=20)
    assert found.volume[0] == 1
    assert found.votes[0] == scan((volume,), marks, float(marks.n_frames - 1), most=20).votes[0]
