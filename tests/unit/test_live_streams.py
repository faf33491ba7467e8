"""Gaps, warnings, turns and the measured load of streams."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sounds import tune

from soundhash_server.errors import PlatformError
from soundhash_server.services.cpu import CpuPool
from soundhash_server.services.live import StreamWarning
from soundhash_server.services.live.gaps import LEAST_S, PART_S, Gaps
from soundhash_server.services.live.load import LEAST_STEPS, Load
from soundhash_server.services.live.turns import SPACING_S, Pace, Turns
from soundhash_server.services.live.warnings import Warnings


def test_gaps_lie_between_what_is_covered() -> None:
    gaps = Gaps()
    gaps.cover(5.0, 20.0)
    gaps.cover(15.0, 30.0)
    assert gaps.settle(12.0) == [(0.0, 5.0)]
    gaps.cover(30.5, 40.0)
    assert gaps.settle(45.0) == []
    gaps.cover(50.0, 60.0)
    assert gaps.settle(55.0) == [(40.0, 50.0)]
    assert gaps.settle(70.0, end=True) == [(60.0, 70.0)]


def test_a_long_gap_comes_in_parts() -> None:
    gaps = Gaps()
    told = [gap for at in range(100) for gap in gaps.settle(float(at))]
    told += gaps.settle(100.0, end=True)
    assert told == [(0.0, PART_S), (PART_S, 2 * PART_S), (2 * PART_S, 3 * PART_S), (90.0, 100.0)]


@given(
    st.lists(st.tuples(st.floats(0, 200), st.floats(0, 60)), max_size=12),
    st.lists(st.floats(0, 300), max_size=40),
)
def test_gaps_are_the_same_whenever_they_are_asked_for(
    matches: list[tuple[float, float]], times: list[float]
) -> None:
    covered = [(start, start + length) for start, length in matches]
    gaps = Gaps()
    told: list[tuple[float, float]] = []
    left = sorted(covered)
    for at in sorted(times):
        # A match is told before what it covers is settled.
        while left and left[0][0] <= at:
            gaps.cover(*left.pop(0))
        told += gaps.settle(at)
    for one in left:
        gaps.cover(*one)
    told += gaps.settle(300.0, end=True)
    assert told == sorted(told)
    for start, end in told:
        assert end - start >= LEAST_S
        assert not any(a < end and b > start for a, b in covered)
    named = sum(end - start for start, end in told)
    free = np.ones(30_001, bool)
    for start, end in covered:
        free[round(start * 100) : round(end * 100)] = False
    assert named == pytest.approx(free.sum() / 100, abs=LEAST_S * (len(covered) + 1) + 0.1)


def half_seconds(pcm: np.ndarray) -> list[np.ndarray]:
    return [pcm[at : at + 4000].astype(np.float32) for at in range(0, len(pcm), 4000)]


def test_warnings() -> None:
    music = tune(10.0, 1)
    music *= 0.99 / np.abs(music).max()
    for audio, expected in (
        (music, set()),
        (np.clip(6.0 * music, -1, 1), {StreamWarning.CLIPPING}),
        (np.zeros(80_000), {StreamWarning.SILENCE}),
        (1e-4 * music, {StreamWarning.SILENCE}),
    ):
        warnings = Warnings()
        told = [warnings.of(piece, 0.0) for piece in half_seconds(audio)]
        assert set(told[-1]) == expected
        assert StreamWarning.SILENCE not in told[4]
    assert warnings.of(music[:4000], 0.0) == ()
    assert warnings.of(music[:4000], 1.5) == (StreamWarning.LATE,)


def test_load_refuses_what_would_be_late() -> None:
    load = Load(threads=2)
    for _ in range(LEAST_STEPS - 1):
        load.ran(0.001, 1.0)
    load.admit(3)
    load.ran(0.001, 1.0)
    assert load.late_share == 1.0
    with pytest.raises(PlatformError) as caught:
        load.admit(3)
    assert (caught.value.reason, caught.value.retry_after_s) == ("SERVER_BUSY", 5.0)
    # The first stream of a server is always taken.
    load.admit(0)


def test_load_counts_what_a_stream_costs() -> None:
    load = Load(threads=2)
    for _ in range(100):
        load.ran(0.02, 0.01)
        # What begins costs less and says nothing.
        load.ran(0.001, 0.01, young=True)
    # 40 ms of 2 s of processor time a second.
    assert load.stream_share == pytest.approx(0.02)
    load.admit(31)
    with pytest.raises(PlatformError, match="32 streams"):
        load.admit(32)


def test_many_streams_that_begin_at_once_are_counted_for_what_they_will_cost() -> None:
    load = Load(threads=2)
    load.admit(40)
    with pytest.raises(PlatformError):
        load.admit(50)


def test_who_sends_faster_than_real_time_is_due_later() -> None:
    pace = Pace()
    for _ in range(10):
        pace.arrived()
    due = [pace.next() for _ in range(10)]
    assert np.diff(due) == pytest.approx(np.full(9, SPACING_S))


async def test_who_is_due_first_goes_first() -> None:
    cpu = CpuPool(1, 1)
    turns = Turns(cpu)
    done: list[float] = []
    released = asyncio.Event()
    loop = asyncio.get_running_loop()

    def blocks(_: object) -> None:
        asyncio.run_coroutine_threadsafe(released.wait(), loop).result()

    async def step(due: float) -> None:
        await turns.run(due, lambda _: done.append(due))

    try:
        tasks = [asyncio.create_task(turns.run(0.0, blocks))]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(step(due)) for due in (5.0, 1.0, 4.0, 2.0)]
        await asyncio.sleep(0)
        # Who leaves while it waits takes nobody's turn.
        tasks.pop(2).cancel()
        released.set()
        await asyncio.gather(*tasks)
        assert done == [2.0, 4.0, 5.0]
        await step(3.0)
        assert done[-1] == 3.0
    finally:
        cpu.close()
