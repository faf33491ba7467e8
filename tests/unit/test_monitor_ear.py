"""One connection to a source: order, bursts, errors; and when the next one is made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from soundhash_engine.types import Pcm
from soundhash_server.fetching.failures import REASONS, JobError
from soundhash_server.fetching.live import Audio, LiveEvent, Title
from soundhash_server.model import Failure
from soundhash_workers.monitors import ear as ear_module
from soundhash_workers.monitors.ear import Ear, Heard
from soundhash_workers.monitors.waiting import OFFLINE_S, PASSING_S, next_attempt_s

HALF_S = 4000


def piece(number: int) -> Audio:
    return Audio(np.full(HALF_S, number / 100, np.float32))


class Listener:
    """An ear, and what came through it."""

    def __init__(self, events: AsyncIterator[LiveEvent]) -> None:
        self.heard: list[Heard] = []
        self.titles: list[str] = []
        self.ear = Ear(events, on_audio=self._heard, on_title=self.titles.append)

    async def _heard(self, heard: Heard) -> None:
        self.heard.append(heard)

    async def listen(self) -> Pcm:
        async with aclosing(self.ear.pcm()) as pcm:
            data = b"".join([part async for part in pcm])
        return np.frombuffer(data, np.float32)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ear_module, "SETTLE_S", 0.05)


async def test_a_burst_and_what_follows(soon: None) -> None:
    async def events() -> AsyncIterator[LiveEvent]:
        yield Title("first")
        for number in range(10):
            yield piece(number)
        await asyncio.sleep(0.1)
        for number in range(10, 12):
            yield piece(number)
        yield Title("last")

    listener = Listener(events())
    pcm = await listener.listen()
    assert np.array_equal(pcm, np.concatenate([piece(number).pcm for number in range(12)]))
    assert listener.titles == ["first", "last"]
    assert listener.ear.error is None
    assert listener.ear.given_s == 6.0
    # The burst was on the air before the connection was made, and all of it touches.
    starts = [one.start for one in listener.heard]
    assert (datetime.now(UTC) - starts[0]).total_seconds() > 5.0
    assert [one.end for one in listener.heard[:9]] == starts[1:10]
    assert starts == sorted(starts)
    assert listener.heard[5].level_db == pytest.approx(20 * np.log10(0.05), abs=0.01)


async def test_a_burst_and_then_nothing_is_not_held_back(soon: None) -> None:
    cut = asyncio.Event()

    async def events() -> AsyncIterator[LiveEvent]:
        yield piece(1)
        await cut.wait()
        yield piece(2)

    listener = Listener(events())
    listening = asyncio.create_task(listener.listen())
    async with asyncio.timeout(5):
        while not listener.heard:
            await asyncio.sleep(0.01)
    cut.set()
    assert (await listening).size == 2 * HALF_S


@pytest.mark.parametrize("settled", [True, False])
async def test_an_error_comes_after_all_audio(
    settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ear_module, "SETTLE_S", 0.0 if settled else 60.0)
    error = JobError("SOURCE_STALLED", "It hangs.")

    async def events() -> AsyncIterator[LiveEvent]:
        yield piece(1)
        yield piece(2)
        raise error

    listener = Listener(events())
    assert (await listener.listen()).size == 2 * HALF_S
    assert listener.ear.error is error


async def test_a_source_that_gives_nothing(soon: None) -> None:
    async def events() -> AsyncIterator[LiveEvent]:
        return
        yield

    listener = Listener(events())
    assert (await listener.listen()).size == 0
    assert listener.ear.error is None


async def test_more_than_real_time_is_not_read(soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ear_module, "BURST_S", 2.0)
    given = 0

    async def events() -> AsyncIterator[LiveEvent]:
        nonlocal given
        while True:
            given += 1
            yield piece(1)

    listener = Listener(events())
    begun_s = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.6):
            await listener.listen()
    assert 2.0 <= listener.ear.given_s <= 3.0 + time.monotonic() - begun_s
    assert given <= 2 * listener.ear.given_s + 2


async def test_leaving_lets_the_source_go(soon: None) -> None:
    gone = asyncio.Event()

    async def events() -> AsyncIterator[LiveEvent]:
        try:
            yield piece(1)
            await asyncio.Event().wait()
        finally:
            gone.set()

    listener = Listener(events())
    listening = asyncio.create_task(listener.listen())
    while not listener.heard:
        await asyncio.sleep(0.01)
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    await asyncio.wait_for(gone.wait(), 5)


def failure(reason: str) -> Failure:
    return Failure(reason, "", "", REASONS[reason].transient)


def longest(reason: str, attempt: int = 60, **more: float | None) -> float:
    values: Any = {"base_s": 2.0, "cap_s": 600.0, "retry_after_s": None, **more}
    return max(next_attempt_s(failure(reason), attempt, **values) for _ in range(400))


def test_how_long_is_waited() -> None:
    assert PASSING_S * 0.9 < longest("NETWORK_ERROR") <= PASSING_S
    assert OFFLINE_S * 0.9 < longest("SOURCE_OFFLINE") <= OFFLINE_S
    for reason in ("HTTP_NOT_FOUND", "HTTP_TOO_MANY_REQUESTS", "BOT_CHECK", "MEDIA_PRIVATE"):
        assert 500 < longest(reason) <= 600
    assert longest("NETWORK_ERROR", attempt=1) <= 2.0
    assert longest("NETWORK_ERROR", attempt=100_000) <= PASSING_S
    # Never all at once, and not before the source wants it.
    waits = {
        next_attempt_s(failure("NETWORK_ERROR"), 5, base_s=2.0, cap_s=600.0, retry_after_s=100.0)
        for _ in range(50)
    }
    assert len(waits) > 40
    assert 100 <= min(waits) <= max(waits) <= 132
