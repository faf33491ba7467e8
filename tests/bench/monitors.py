"""How many live sources one worker carries: processor, memory, and how soon what plays is told.

    python -m tests.bench.monitors [--set DIR] [--hours 2] [--counts 10 25 50] [--seconds 60]
        [--takeover] [--json]

Starts a database, a queue and one worker process, and stations on loopback in this process: MP3 of
128 kbit/s in real time, all different. They play minutes of recordings that are indexed and of
others in turn: of DIR/refs (see tests.eval), or made-up music. Counts the processor time of the
worker and of its decoders, which are processes of their own, for each monitor, and the time from a
recording's first sound on the air until its detection is stored (3 s of it have to be heard).
`--takeover`: kills the worker at the end, and measures when another one listens to all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psutil
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from soundhash_engine import decode_file, extract
from soundhash_server.embedded_postgres import Postgres
from soundhash_server.embedded_valkey import Valkey
from soundhash_server.model import MonitorState
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.migrate import migrate
from soundhash_server.store.pool import create_pool
from tests.air import Air, Station, serving_air
from tests.media import encode
from tests.monitoring import Watch
from tests.platforms import environment
from tests.records import add_video, new_video
from tests.songs import song

BYTES_PER_S = 16_000
BURST_BYTES = 65_536
PIECE_S = 20.0
PIECES = 48
READY_S = 180.0
SETTLE_S = 15.0

Pcm = NDArray[np.float32]


def recordings(folder: Path | None, hours: float) -> list[Pcm]:
    """About so many hours of recordings, mono 8 kHz."""
    if folder is None:
        return [song(300.0, seed) for seed in range(max(4, round(hours * 12)))]
    found: list[Pcm] = []
    for path in sorted((folder / "refs").iterdir()):
        found.append(np.concatenate(list(decode_file(path))))
        if sum(map(len, found)) > hours * 3600 * 8000:
            break
    return found


def programme(known: list[Pcm], unknown: list[Pcm]) -> bytes:
    """Minutes of known and unknown recordings in turn, as MP3."""
    pieces = []
    for number in range(PIECES):
        among = (known, unknown)[number % 2]
        recording = among[number // 2 % len(among)]
        length = round(PIECE_S * 8000)
        start = (number * 7919 * 80) % max(1, len(recording) - length)
        pieces.append(recording[start : start + length])
    return encode(np.concatenate(pieces), "mp3", rate_hz=44_100, channels=2, bit_rate=128_000)


class Worker:
    """A worker process and all below it."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        with log.open("ab") as out:
            command = [sys.executable, "-m", "soundhash_workers"]
            self.process = subprocess.Popen(command, env=env, stdout=out, stderr=out)

    def cpu_s(self) -> tuple[float, float]:
        """Processor time so far: of the worker, and of what it has started and still runs."""
        own = psutil.Process(self.process.pid)
        below = 0.0
        for child in own.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                below += sum(child.cpu_times()[:2])
        return sum(own.cpu_times()[:2]), below

    def memory_mb(self) -> tuple[float, float]:
        """The same of memory, what is shared counted in parts."""
        own = psutil.Process(self.process.pid)
        below = 0.0
        for child in own.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                below += child.memory_full_info().pss
        return own.memory_full_info().pss / 1e6, below / 1e6

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


class Bench:
    """Monitors, and what becomes of them."""

    def __init__(self, watch: Watch, air: Air, media: bytes) -> None:
        self._watch = watch
        self._air = air
        self._media = media
        self._told: dict[UUID, float] = {}
        self.ids: list[UUID] = []

    async def grow(self, count: int) -> None:
        """So many monitors in all, that all listen."""
        for number in range(len(self.ids), count):
            station = Station(
                self._media,
                bytes_per_s=BYTES_PER_S,
                burst_bytes=BURST_BYTES,
                on_air=True,
                then="again",
            )
            # Everybody is somewhere else in the programme.
            station._since_s -= number * 37.0
            self._air.station(f"/{number}", station)
            self.ids.append(await self._watch.monitor(self._air.url(f"/{number}"), str(number)))
        await self.listening()

    async def listening(self, *, but_for: Collection[UUID] = ()) -> None:
        """Waits until all listen, for other leases than these."""
        async with asyncio.timeout(READY_S):
            while True:
                states = await self.states()
                listening = [one for one in states.values() if one is MonitorState.LISTENING]
                if len(listening) == len(self.ids) and not states.keys() & set(but_for):
                    break
                await asyncio.sleep(0.1)

    async def heard_s(self) -> float:
        return sum([(await self._watch.get(one)).stats.heard_s for one in self.ids])

    async def look(self, seconds: float) -> list[float]:
        """Watches for so long; how long after its first sound each new detection was there."""
        delays = []
        until_s = time.monotonic() + seconds
        began = datetime.now(UTC)
        while time.monotonic() < until_s:
            rows = await self._watch.pool.fetch(
                "SELECT id, extract(epoch FROM clock_timestamp() - start_time)::float8 AS age,"
                " start_time FROM monitor_detections WHERE start_time > $1",
                began,
            )
            for row in rows:
                if row["id"] not in self._told:
                    self._told[row["id"]] = row["age"]
                    delays.append(row["age"])
            await asyncio.sleep(0.1)
        return delays

    async def states(self) -> dict[UUID, MonitorState]:
        """How each stands that has a worker, by its lease."""
        rows = await self._watch.pool.fetch(
            "SELECT lease_token, state FROM monitors WHERE lease_expires > clock_timestamp()"
        )
        return {row["lease_token"]: MonitorState(row["state"]) for row in rows}


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures."""
    tracks = recordings(options.set, options.hours)
    known, unknown = tracks[::2], tracks[1::2]
    media = programme(known, unknown)
    postgres, valkey = Postgres(folder / "postgres", {"fsync": "off"}), Valkey(folder / "valkey")
    postgres.start()
    valkey.start()
    try:
        await migrate(postgres.url)
        pool = await create_pool(postgres.url, 4)
        for number, pcm in enumerate(known):
            segments = await asyncio.to_thread(extract, pcm)
            await add_video(Jobs(pool), new_video(title=f"Recording {number}"), segments)
        env = environment(
            folder / "data",
            {
                "DATABASE_URL": postgres.url,
                "REDIS_URL": valkey.url,
                "ALLOW_PRIVATE_URLS": "1",
                "MAX_MONITORS": str(max(options.counts)),
                "LOG_FORMAT": "json",
            },
        )
        log = folder / "worker.log"
        worker = Worker(env, log)
        figures: dict[str, Any] = {"hours": sum(map(len, known)) / 8000 / 3600, "rows": []}
        try:
            async with serving_air() as air:
                bench = Bench(Watch(pool), air, media)
                for count in options.counts:
                    await bench.grow(count)
                    await asyncio.sleep(SETTLE_S)
                    figures["rows"].append(await _row(bench, worker, count, options.seconds))
                    print(json.dumps(figures["rows"][-1]), file=sys.stderr, flush=True)
                if options.takeover:
                    figures["takeover_s"] = await _takeover(bench, worker, env, log)
        finally:
            worker.stop()
        figures["late"] = log.read_text().count("monitors are late")
        await pool.close()
        return figures
    finally:
        valkey.stop()
        postgres.stop()


async def _row(bench: Bench, worker: Worker, count: int, seconds: float) -> dict[str, float]:
    heard, begun_s = await bench.heard_s(), time.monotonic()
    before = worker.cpu_s()
    delays = await bench.look(seconds)
    after, lasted_s = worker.cpu_s(), time.monotonic() - begun_s
    own, below = worker.memory_mb()
    delays.sort()
    return {
        "monitors": count,
        "worker_cores": (after[0] - before[0]) / lasted_s,
        "decoder_cores": (after[1] - before[1]) / lasted_s,
        "cpu_ms_a_second": 1000
        * sum(a - b for a, b in zip(after, before, strict=True))
        / lasted_s
        / count,
        "heard_share": (await bench.heard_s() - heard) / lasted_s / count,
        "detections": len(delays),
        "told_after_s": statistics.median(delays) if delays else float("nan"),
        "told_after_p95_s": delays[int(0.95 * len(delays))] if delays else float("nan"),
        "worker_mb": own,
        "decoders_mb": below,
    }


async def _takeover(bench: Bench, worker: Worker, env: dict[str, str], log: Path) -> float:
    other = Worker(env, log)
    try:
        await asyncio.sleep(SETTLE_S)
        old = await bench.states()
        worker.process.kill()
        begun_s = time.monotonic()
        await bench.listening(but_for=old)
        return time.monotonic() - begun_s
    finally:
        other.stop()


def show(figures: dict[str, Any]) -> None:
    """A table for people."""
    table = Table(title=f"monitors of one worker, {figures['hours']:.1f} h indexed")
    names = list(figures["rows"][0])
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for row in figures["rows"]:
        table.add_row(*(f"{row[name]:.3g}" for name in names))
    console = Console(width=160)
    console.print(table)
    if "takeover_s" in figures:
        console.print(f"all taken over {figures['takeover_s']:.1f} s after kill -9")
    if figures["late"]:
        console.print("the worker was late: more than it can carry")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.monitors", description=__doc__)
    parser.add_argument("--set", type=Path)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 25, 50])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--takeover", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    # Stations whose listeners leave.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        figures = asyncio.run(measure(options, Path(name)))
    if options.json:
        print(json.dumps(figures))
    else:
        show(figures)


if __name__ == "__main__":
    main()
