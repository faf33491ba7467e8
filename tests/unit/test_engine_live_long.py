"""Long streams: bounded state, one match for one passage, a player whose clock is off."""

import pickle

import numpy as np
import pytest
from tests.songs import cut, noise, song

from soundhash_engine import extract, join
from soundhash_engine.index import Index, Snapshot
from soundhash_engine.live import Final, LiveMatcher
from soundhash_engine.matcher import Match
from soundhash_engine.types import Pcm

SONG_S = 130.0


@pytest.fixture(scope="module")
def long_song() -> Pcm:
    return song(SONG_S, 5)


@pytest.fixture(scope="module")
def snapshot(long_song: Pcm) -> Snapshot:
    index = Index()
    index.apply([(5, 1, join(extract(long_song))), (6, 1, join(extract(song(40.0, 6))))])
    return index.snapshot()


def finals(snapshot: Snapshot, pcm: Pcm, **options: float) -> list[Match]:
    matcher = LiveMatcher(**options)
    matcher.push(pcm)
    events = [*matcher.step(snapshot), *matcher.finish(snapshot)]
    assert matcher.settled_s == pytest.approx(pcm.size / 8000)
    return [event.match for event in events if isinstance(event, Final)]


def slower(pcm: Pcm, by: float) -> Pcm:
    at = np.arange(0, pcm.size - 1, 1.0 - by)
    return np.interp(at, np.arange(pcm.size), pcm).astype(np.float32)


def test_a_player_whose_clock_is_off_is_followed_as_one_match(
    snapshot: Snapshot, long_song: Pcm
) -> None:
    stream = np.concatenate([noise(5.0, 1), slower(long_song, 0.001), noise(20.0, 2)])
    (found,) = finals(snapshot, stream)
    assert found.recording_id == 5
    assert found.clip_start_s == pytest.approx(5.0, abs=0.3)
    assert found.clip_end_s == pytest.approx(5.0 + 1.001 * SONG_S, abs=0.3)
    assert found.video_start_s == pytest.approx(0.0, abs=0.3)
    # At its own speed it would be off by 0.2 s here.
    lag_s = found.video_end_s - 0.999 * (found.clip_end_s - 5.0)
    assert lag_s == pytest.approx(0.0, abs=0.06)
    assert found.speed == pytest.approx(0.999, abs=0.0003)


def test_a_rest_and_noise_do_not_end_a_match(snapshot: Snapshot, long_song: Pcm) -> None:
    stream = long_song[: 60 * 8000].copy()
    stream[20 * 8000 : 26 * 8000] = 0.0
    stream[40 * 8000 : 48 * 8000] = noise(8.0, 3)
    (found,) = finals(snapshot, stream)
    assert (found.clip_start_s, found.clip_end_s) == pytest.approx((0.0, 60.0), abs=0.6)


def test_a_passage_played_twice_is_two_matches(snapshot: Snapshot, long_song: Pcm) -> None:
    passage = long_song[50 * 8000 : 70 * 8000]
    first, second = finals(snapshot, np.concatenate([passage, noise(4.0, 1), passage]))
    assert (first.clip_end_s, second.clip_start_s) == pytest.approx((20.0, 24.0), abs=0.8)
    assert first.video_start_s == pytest.approx(50.0, abs=0.1)
    assert second.video_start_s == pytest.approx(50.0, abs=0.8)


def test_two_that_play_at_once_are_both_told(snapshot: Snapshot, long_song: Pcm) -> None:
    """The second begins while the first still plays, and goes on."""
    stream = np.concatenate([long_song[: 30 * 8000], np.zeros(20 * 8000, np.float32)])
    stream[20 * 8000 :] += cut(song(40.0, 6), 5.0, 30.0)
    first, second = finals(snapshot, stream)
    assert (first.recording_id, second.recording_id) == (5, 6)
    assert second.clip_start_s < first.clip_end_s
    assert second.clip_end_s == pytest.approx(50.0, abs=0.6)


@pytest.mark.parametrize("window_s", [3.0, 5.0, 12.0])
def test_other_windows(snapshot: Snapshot, long_song: Pcm, window_s: float) -> None:
    stream = np.concatenate([noise(6.0, 1), cut(long_song, 100.0, 15.0), noise(8.0, 2)])
    (found,) = finals(snapshot, stream, window_s=window_s)
    assert (found.clip_start_s, found.clip_end_s) == pytest.approx((6.0, 21.0), abs=0.8)


@pytest.mark.parametrize("window_s", [2.9, 12.1, float("nan")])
def test_windows_that_cannot_be(window_s: float) -> None:
    with pytest.raises(ValueError, match="window_s"):
        LiveMatcher(window_s=window_s)


def test_state_does_not_grow_in_hours(snapshot: Snapshot, long_song: Pcm) -> None:
    """Three hours, most of them digital silence, which costs next to nothing."""
    silence = np.zeros(1760 * 8000, np.float32)
    matcher = LiveMatcher()
    sizes: list[int] = []
    told = 0
    for turn in range(6):
        music = cut(long_song if turn % 2 else song(40.0, 6), 2.0 * turn, 10.0)
        for piece in (music, cut(song(40.0, 50 + turn), 0.0, 8.0), silence):
            matcher.push(piece)
            told += sum(isinstance(event, Final) for event in matcher.step(snapshot))
        sizes.append(len(pickle.dumps(matcher)))
        assert matcher.settled_s > matcher.duration_s - 60.0
    assert matcher.duration_s > 2.9 * 3600
    assert told >= 5
    assert max(sizes) < 1.1 * sizes[0] < 1_200_000
