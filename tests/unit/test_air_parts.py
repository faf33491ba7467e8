"""What a monitor hears in parts: where they begin, what they hold, when they were on the air."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from tests.sounds import tune

from soundhash_engine import Extractor, extract
from soundhash_engine.types import Pcm
from soundhash_workers.monitors import air_parts
from soundhash_workers.monitors.air_parts import GROW_S, OVERLAP_S, PART_S, Grown, PartCutter

RATE_HZ = 8000
BEGUN = datetime(2026, 11, 21, 18, 0, tzinfo=UTC)
PIECE = 4000


def pieces(pcm: Pcm, size: int = PIECE) -> Iterator[tuple[int, Pcm]]:
    for at in range(0, pcm.size, size):
        yield at, pcm[at : at + size]


def push_all(
    cutter: PartCutter, pcm: Pcm, begun: datetime = BEGUN, late_s: float = 0
) -> list[Grown]:
    out = []
    for at, piece in pieces(pcm):
        out += cutter.push(piece, begun + timedelta(seconds=late_s + at / RATE_HZ))
    return out


def ended(grown: list[Grown]) -> list[Grown]:
    return [one for one in grown if one.content.duration_s == one.part.length_s and one.part.ended]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 60 s that overlap by 12 s and grow by 10 s."""
    monkeypatch.setattr(air_parts, "_PART_SAMPLES", 60 * RATE_HZ)
    monkeypatch.setattr(air_parts, "_STEP_SAMPLES", 48 * RATE_HZ)
    monkeypatch.setattr(air_parts, "_GROW_SAMPLES", 10 * RATE_HZ)
    monkeypatch.setattr(air_parts, "SETTLED_S", 15.0)


@pytest.mark.parametrize("size", [1000, 4000, 200_001])
def test_parts_overlap_and_are_whole_recordings(small: None, size: int) -> None:
    pcm = tune(130.0, 5)
    cutter = PartCutter()
    grown = []
    for at, piece in pieces(pcm, size):
        grown += cutter.push(piece, BEGUN + timedelta(seconds=at / RATE_HZ))
    grown += cutter.end()
    parts = list({one.part.id: one for one in grown}.values())
    assert [one.content.duration_s for one in parts] == [60.0, 60.0, 34.0]
    for number, one in enumerate(parts):
        start_s = 48 * number
        assert one.content.air_time == BEGUN + timedelta(seconds=start_s)
        own = pcm[start_s * RATE_HZ : (start_s + 60) * RATE_HZ]
        assert list(one.content.segments) == extract(own)


def test_a_part_grows_until_it_ends(small: None) -> None:
    pcm = tune(40.0, 6)
    cutter = PartCutter()
    grown = push_all(cutter, pcm)
    assert [one.content.duration_s for one in grown] == [10.0, 20.0, 30.0, 40.0]
    assert len({one.part.id for one in grown}) == 1
    for one in grown:
        length = round(one.content.duration_s * RATE_HZ)
        assert list(one.content.segments) == extract(pcm[:length])


def test_what_is_so_far_is_what_an_end_would_give() -> None:
    pcm = tune(100.0, 7)
    extractor = Extractor()
    whole = []
    for at, piece in pieces(pcm, 24_000):
        whole += extractor.push(piece)
        assert whole + extractor.so_far() == extract(pcm[: at + piece.size])
    assert whole + extractor.finish() == extract(pcm)
    with pytest.raises(ValueError):
        extractor.so_far()


def test_an_end_in_the_overlap_makes_no_part_of_what_the_last_one_has(small: None) -> None:
    pcm = tune(53.0, 8)
    cutter = PartCutter()
    push_all(cutter, pcm)
    (last,) = cutter.end()
    assert last.content.duration_s == 53.0
    assert cutter.end() == []


def test_a_break_begins_a_new_part_with_a_time_of_its_own(small: None) -> None:
    cutter = PartCutter()
    push_all(cutter, tune(20.0, 9))
    (first,) = cutter.end()
    later = BEGUN + timedelta(minutes=3)
    push_all(cutter, tune(20.0, 10), later)
    (second,) = cutter.end()
    assert (first.content.air_time, second.content.air_time) == (BEGUN, later)
    assert first.content.duration_s == second.content.duration_s == 20.0


def test_a_burst_tells_how_late_the_beginning_was(small: None) -> None:
    """A server sends what it has buffered at once: the first of it is the oldest."""
    cutter = PartCutter()
    pcm = tune(40.0, 11)
    for at, piece in pieces(pcm):
        # Twenty seconds arrive in the first moment, the rest as it plays.
        arrived_s = max(0.0, at / RATE_HZ - 20.0)
        grown = cutter.push(piece, BEGUN + timedelta(seconds=arrived_s))
    (whole,) = cutter.end()
    assert abs((whole.content.air_time - BEGUN).total_seconds() + 20.0) < 0.6
    assert grown[-1].content.air_time == whole.content.air_time


def test_audio_that_is_late_for_good_is_another_part(small: None) -> None:
    cutter = PartCutter()
    pcm = tune(50.0, 12)
    out = push_all(cutter, pcm[: 20 * RATE_HZ])
    out += push_all(cutter, pcm[20 * RATE_HZ :], BEGUN + timedelta(seconds=20), late_s=8.0)
    out += cutter.end()
    parts = list({one.part.id: one for one in out}.values())
    assert len(parts) == 2
    assert parts[0].content.air_time == BEGUN
    # Known once a growth of audio was late: ten seconds.
    begins_s = parts[0].content.duration_s
    assert begins_s in (30.0, 40.0)
    assert parts[1].content.air_time == BEGUN + timedelta(seconds=8.0 + begins_s)


def test_audio_that_comes_again_is_another_part(small: None) -> None:
    cutter = PartCutter()
    pcm = tune(40.0, 13)
    out = push_all(cutter, pcm[: 20 * RATE_HZ])
    # As after a connection that was made again, with ten seconds from its buffer.
    out += push_all(cutter, pcm[10 * RATE_HZ :], BEGUN + timedelta(seconds=10))
    out += cutter.end()
    parts = list({one.part.id: one for one in out}.values())
    assert [one.content.duration_s for one in parts] == [20.0, 30.0]
    assert parts[1].content.air_time == BEGUN + timedelta(seconds=10)


def test_silence_is_kept_as_such(small: None) -> None:
    cutter = PartCutter()
    push_all(cutter, np.zeros(30 * RATE_HZ, np.float32))
    (silent,) = cutter.end()
    assert sum(segment.landmark_count for segment in silent.content.segments) == 0


def test_real_sizes() -> None:
    assert (PART_S, OVERLAP_S) == (300.0, 12.0)
    assert GROW_S <= 60.0
