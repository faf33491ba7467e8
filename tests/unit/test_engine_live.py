"""A stream gives the same answers however it is cut, in bounded state."""

import numpy as np
import pytest
from tests.songs import cut, noise, song

from soundhash_engine import extract, join
from soundhash_engine.index import Index, Snapshot
from soundhash_engine.live import Final, LiveEvent, LiveMatcher, Provisional


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    index = Index()
    index.apply([(seed, 1, join(extract(song(40.0, seed)))) for seed in (1, 2, 3)])
    return index.snapshot()


@pytest.fixture(scope="module")
def stream() -> np.ndarray:
    """6 s of noise, 14 s of song 1, 5 s of another, 12 s of song 3."""
    return np.concatenate(
        [
            noise(6.0, 1),
            cut(song(40.0, 1), 10.0, 14.0),
            cut(song(40.0, 77), 3.0, 5.0),
            cut(song(40.0, 3), 20.0, 12.0),
        ]
    )


def play(snapshot: Snapshot, pcm: np.ndarray, chunk: int) -> list[LiveEvent]:
    matcher = LiveMatcher()
    events: list[LiveEvent] = []
    for start in range(0, pcm.size, chunk):
        matcher.push(pcm[start : start + chunk])
        events += matcher.step(snapshot)
    assert matcher.duration_s == pytest.approx(pcm.size / 8000)
    return events + matcher.finish(snapshot)


def test_what_plays_is_told_while_it_plays_and_when_it_is_over(
    snapshot: Snapshot, stream: np.ndarray
) -> None:
    events = play(snapshot, stream, 4000)
    finals = [e.match for e in events if isinstance(e, Final)]
    assert [m.recording_id for m in finals] == [1, 3]
    for found, start_s, end_s, video_s in zip(
        finals, (6.0, 25.0), (20.0, 37.0), (10.0, 20.0), strict=True
    ):
        assert found.clip_start_s == pytest.approx(start_s, abs=0.8)
        assert found.clip_end_s == pytest.approx(end_s, abs=0.8)
        assert found.video_start_s - found.clip_start_s == pytest.approx(
            video_s - start_s, abs=0.05
        )
    first = next(i for i, e in enumerate(events) if isinstance(e, Provisional))
    assert events[first].match.recording_id == 1
    assert not isinstance(events[0], Final)


def test_an_answer_comes_within_three_seconds(snapshot: Snapshot) -> None:
    matcher = LiveMatcher()
    pcm = cut(song(40.0, 2), 15.0, 3.0)
    events: list[LiveEvent] = []
    for start in range(0, pcm.size, 800):
        matcher.push(pcm[start : start + 800])
        events += matcher.step(snapshot)
    told = [e for e in events if isinstance(e, Provisional)]
    assert {e.match.recording_id for e in told} == {2}
    assert all(0 < e.stability < 1 for e in told)
    assert [e.stability for e in told] == sorted(e.stability for e in told)


@pytest.mark.parametrize("chunk", [160, 3999, 17000, 1_000_000])
def test_chunks_do_not_matter(snapshot: Snapshot, stream: np.ndarray, chunk: int) -> None:
    assert play(snapshot, stream, chunk) == play(snapshot, stream, 4000)


def test_what_is_not_indexed_stays_unanswered(snapshot: Snapshot) -> None:
    assert play(snapshot, song(20.0, 88), 4000) == []
    assert play(snapshot, np.zeros(80_000, np.float32), 4000) == []


def test_less_than_a_second_says_nothing(snapshot: Snapshot) -> None:
    matcher = LiveMatcher()
    matcher.push(cut(song(40.0, 1), 5.0, 0.9))
    assert matcher.step(snapshot) == []
    assert matcher.finish(snapshot) == []
