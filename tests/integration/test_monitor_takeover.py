"""Monitors when things break: a worker is killed, the database goes away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from tests.air import Air, Station, serving_air
from tests.integration.working import worker_process, worker_settings, working
from tests.monitoring import BYTES_PER_S, SONG_S, Watch, broadcast, song

from soundhash_engine.index import Snapshot
from soundhash_engine.live import LiveEvent, LiveMatcher
from soundhash_server.model import MonitorState
from soundhash_server.settings import Settings
from soundhash_server.store.pool import Pool
from soundhash_workers.monitors import host as host_module
from soundhash_workers.monitors import session as session_module


@pytest.fixture
async def air() -> AsyncIterator[Air]:
    async with serving_air() as serving:
        yield serving


@pytest.fixture
def watch(pool: Pool) -> Watch:
    return Watch(pool)


@pytest.fixture
def settings(postgres_url: str, redis_url: str, data_dir: Path) -> Settings:
    return worker_settings(postgres_url, redis_url, data_dir, monitor_lease_s=1.5)


@pytest.fixture
async def gate(postgres_url: str) -> AsyncIterator[Gate]:
    async with Gate(postgres_url).open() as made:
        yield made


def on_the_air(pcm: NDArray[np.float32]) -> Station:
    """Goes on whether anybody listens or not; sends 16 s at once to whoever comes."""
    return Station(
        broadcast(pcm),
        bytes_per_s=BYTES_PER_S,
        burst_bytes=16 * BYTES_PER_S,
        on_air=True,
        then="again",
    )


async def test_another_worker_takes_over_from_one_that_was_killed(
    air: Air, watch: Watch, settings: Settings
) -> None:
    await watch.songs(1)
    station = air.station("/radio", on_the_air(song(1)))
    monitor_id = await watch.monitor(air.url("/radio"), min_duration_s=2.0)
    with worker_process(settings) as worker:
        (before,) = await watch.until_heard(monitor_id, lambda found: len(found) == 1, 60)
        children = psutil.Process(worker.pid).children(recursive=True)
        async with working(settings):
            # The other one is there and has nothing to do.
            await asyncio.sleep(0.5)
            worker.kill()
            await watch.until(monitor_id, lambda one: one.state is MonitorState.WAITING)
            await watch.until(monitor_id, lambda one: one.state is MonitorState.LISTENING)
            heard = await watch.until_heard(
                monitor_id, lambda found: found[0].covered_s > before.covered_s + 3
            )
    assert heard[0].id == before.id
    assert station.connections == 2
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


async def test_monitors_go_on_while_the_database_is_away(
    air: Air, watch: Watch, settings: Settings, gate: Gate
) -> None:
    await watch.songs(1, 2)
    station = air.station("/radio", on_the_air(song(1)))
    monitor_id = await watch.monitor(air.url("/radio"), min_duration_s=2.0)
    async with working(Settings.from_env(settings.as_env(), database_url=gate.url)):
        await watch.until_heard(monitor_id, lambda found: len(found) == 1)
        with gate.shut():
            # Longer than the lease.
            await asyncio.sleep(4.0)
        monitor = await watch.until(
            monitor_id, lambda one: one.stats.recognised_s > 0 and one.stats.heard_s > 20
        )
        (told,) = await watch.until_heard(monitor_id, lambda found: found[0].covered_s > 18)
    assert monitor.state is MonitorState.LISTENING
    assert told.coverage > 0.95
    # Nobody has ever hung up.
    assert (station.connections, monitor.stats.connections) == (1, 1)


async def test_what_was_heard_while_the_database_was_away_is_not_lost(
    air: Air, watch: Watch, settings: Settings, gate: Gate
) -> None:
    await watch.songs(1, 2)
    media = broadcast(song(1, 0, 20), song(2, 0, SONG_S))
    air.station(
        "/radio",
        Station(media, bytes_per_s=BYTES_PER_S, burst_bytes=18 * BYTES_PER_S, then="hang"),
    )
    monitor_id = await watch.monitor(air.url("/radio"), min_duration_s=2.0)
    async with working(Settings.from_env(settings.as_env(), database_url=gate.url)):
        await watch.until_heard(monitor_id, lambda found: found[:1] and found[0].covered_s > 10)
        with gate.shut():
            # The next song begins meanwhile; the catalogue's rows of it were never asked for.
            await asyncio.sleep(6.0)
        first, second = await watch.until_heard(monitor_id, lambda found: len(found) == 2)
    assert (first.title, second.title) == ("Song 1", "Song 2")
    assert second.video_start_s < 1.0
    gap_s = (second.start_time - first.end_time).total_seconds()
    assert abs(gap_s) < 2.5


class Gate:
    """The way to the database; while it is shut, nobody gets through or in."""

    def __init__(self, url: str) -> None:
        self._to = urlsplit(url)
        where = parse_qs(self._to.query)
        self._socket = f"{where['host'][0]}/.s.PGSQL.{where['port'][0]}"
        self._shut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""

    @contextlib.contextmanager
    def shut(self) -> Iterator[None]:
        """Nothing gets through until the end of the block."""
        self._shut = True
        for writer in self._writers:
            writer.transport.abort()
        yield
        self._shut = False

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Gate]:
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        name, _, _ = self._to.netloc.rpartition("@")
        self.url = self._to._replace(netloc=f"{name}@127.0.0.1:{port}", query="").geturl()
        async with server:
            yield self
            for writer in self._writers:
                writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._shut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_unix_connection(self._socket)
        self._writers |= {writer, back}
        try:
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        finally:
            self._writers -= {writer, back}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


async def test_a_worker_that_has_too_many_gives_some_back(
    air: Air, watch: Watch, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Searching takes a second for two of audio: with one thread two sources can be followed.
    step = LiveMatcher.step

    def slow(matcher: LiveMatcher, snapshot: Snapshot) -> list[LiveEvent]:
        time.sleep(0.25)
        return step(matcher, snapshot)

    monkeypatch.setattr(LiveMatcher, "step", slow)
    monkeypatch.setattr(session_module, "GOOD_S", 0.0)
    for name, value in (("LATE_S", 1.0), ("TOO_LATE_S", 2.0), ("_LONG_S", 2.0)):
        monkeypatch.setattr(host_module, name, value)
    stations = [air.station(f"/{n}", on_the_air(song(n))) for n in range(5)]
    ids = [await watch.monitor(air.url(f"/{n}")) for n in range(5)]
    async with working(Settings.from_env(settings.as_env(), cpu_threads=1)):
        for one in ids:
            await watch.until(one, lambda shown: shown.state is MonitorState.LISTENING)
        async with asyncio.timeout(30):
            while sum(one.listening for one in stations) > 2:
                await asyncio.sleep(0.05)
        # It does not take them again at once.
        await asyncio.sleep(1.0)
        states = [(await watch.get(one)).state for one in ids]
        assert states.count(MonitorState.WAITING) >= 3
        assert states.count(MonitorState.LISTENING) >= 1
