"""How fast and how large the whole platform is: real processes, real recordings.

    python -m tests.bench.platform MEDIA... [--hours 10] [--clips 100] [--json]

Starts `soundhash up` on an empty data folder, ingests the recordings, fills up to `--hours` with
copies of them at other speeds and backwards (so that no two are the same; a set of a quarter of an
hour gives ten hours at most), and prints: ingest speed of the
recordings, latency of a clean 10 s clip by RPC, start to ready with the catalogue indexed, the
server's memory when idle, and how much it grows during the upload of a 2 h file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import soundhash
from soundhash_engine import SAMPLE_RATE_HZ, DecodeError, decode_file, probe
from tests.media import encode

MIB = 1 << 20
SHORTEST_S = 30.0
MEDIA_ENDINGS = frozenset({".ogg", ".mp3", ".wav", ".flac", ".opus", ".m4a", ".mp4", ".webm"})


@contextmanager
def platform(data_dir: Path) -> Iterator[tuple[str, float, psutil.Process]]:
    """Runs the platform: its address, seconds from start to ready, and the server's process."""
    environment = {**os.environ, "SOUNDHASH_DATA_DIR": str(data_dir), "SOUNDHASH_PORT": "0"}
    began = time.monotonic()
    up = subprocess.Popen(
        [sys.executable, "-m", "soundhash_server", "up"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert up.stdout is not None
        ready = re.search(r"ready on (\S+)", up.stdout.readline())
        if ready is None:
            raise SystemExit("the platform did not start; try `soundhash doctor`")
        took_s = time.monotonic() - began
        server = next(
            process
            for process in psutil.Process(up.pid).children(recursive=True)
            if "soundhash_server" in process.cmdline() and "serve" in process.cmdline()
        )
        yield ready.group(1), took_s, server
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)


def resampled(pcm: NDArray[np.float32], speed: float) -> NDArray[np.float32]:
    """The audio played `speed` times as fast, by linear interpolation."""
    at = np.arange(0, len(pcm) - 1, speed)
    return np.interp(at, np.arange(len(pcm)), pcm).astype(np.float32)


class Decoded:
    """The recordings' audio, decoded once: they are needed again and again."""

    def __init__(self, most_s: float = 4 * 3600.0) -> None:
        self._most_samples = round(most_s * SAMPLE_RATE_HZ)
        self._held: dict[Path, NDArray[np.float16]] = {}

    def __call__(self, path: Path) -> NDArray[np.float32]:
        held = self._held.get(path)
        if held is None:
            held = np.concatenate(list(decode_file(path))).astype(np.float16)
            if sum(part.size for part in self._held.values()) + held.size <= self._most_samples:
                self._held[path] = held
        return held.astype(np.float32)


def changes() -> Iterator[tuple[float, bool]]:
    """Speeds that tell copies apart, each forwards and backwards."""
    for backwards in (False, True):
        for step in range(1, 13):
            yield 1.0 + 0.031 * step, backwards
            yield 1.0 - 0.027 * step, backwards


def fill(media: list[Path], decoded: Decoded, hours: float, folder: Path) -> list[Path]:
    """Changed copies of the recordings as FLAC, `hours` of them together, or as many as there
    are changes."""
    files: list[Path] = []
    total_s = 0.0
    for number, (speed, backwards) in enumerate(changes()):
        for path in media:
            if total_s >= hours * 3600:
                return files
            pcm = resampled(decoded(path), speed)
            target = folder / f"{len(files)}_{number}.flac"
            target.write_bytes(encode(pcm[::-1].copy() if backwards else pcm, "flac"))
            total_s += len(pcm) / SAMPLE_RATE_HZ
            files.append(target)
    print(f"these recordings give {total_s / 3600:.1f} h of copies, no more", file=sys.stderr)
    return files


def clips(files: list[Path], decoded: Decoded, count: int) -> list[bytes]:
    """Clean 10 s clips with sound in them, encoded again."""
    chooser = random.Random(1)
    made: list[bytes] = []
    for _ in range(50 * count):
        if len(made) == count:
            break
        pcm = decoded(chooser.choice(files))
        if len(pcm) <= 10 * SAMPLE_RATE_HZ:
            continue
        start = chooser.randrange(len(pcm) - 10 * SAMPLE_RATE_HZ)
        clip = pcm[start : start + 10 * SAMPLE_RATE_HZ]
        if np.sqrt(np.mean(clip**2)) > 0.01:
            made.append(encode(clip, "mp3", rate_hz=44100, bit_rate=64_000))
    if not made:
        raise SystemExit("there is no sound in these recordings")
    return made


def say(text: str) -> None:
    """Tells how far it has come."""
    print(text, file=sys.stderr, flush=True)


def readable(path: Path) -> bool:
    """Whether the engine can decode it and clips can be cut; says so when it cannot decode."""
    try:
        return (probe(path).duration_s or 0.0) >= SHORTEST_S
    except DecodeError as error:
        print(f"left out: {path.name}: {error.message}", file=sys.stderr)
        return False


def ingest(client: soundhash.Client, files: list[Path]) -> float:
    """Uploads and indexes the files, four at a time; wall-clock seconds."""
    began = time.monotonic()

    def one(path: Path) -> None:
        job = client.wait_for_job(client.upload(path).id, timeout_s=3600)
        if job.failure is not None:
            print(f"left out: {path.name}: {job.failure.message}", file=sys.stderr)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, files))
    return time.monotonic() - began


class PeakMemory:
    """Samples a process's resident memory while it is entered."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process
        self.before_bytes = process.memory_info().rss
        self.peak_bytes = self.before_bytes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, self.process.memory_info().rss)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def measure(media: list[Path], hours: float, clip_count: int, folder: Path) -> dict[str, float]:
    (folder / "media").mkdir()
    decoded = Decoded()
    say(f"cutting {clip_count} clips from {len(media)} recordings")
    questions = clips(media, decoded, clip_count)
    long_file = folder / "two_hours.wav"
    noise = np.random.default_rng(1).integers(-9000, 9000, 44100 * 60, dtype=np.int16)
    with long_file.open("wb") as out:  # 2 h of 16-bit stereo: 1.27 GB
        size = 2 * 60 * noise.nbytes * 2
        out.write(b"RIFF" + (36 + size).to_bytes(4, "little") + b"WAVEfmt ")
        out.write(bytes.fromhex("1000000001000200") + (44100).to_bytes(4, "little"))
        out.write((44100 * 4).to_bytes(4, "little") + bytes.fromhex("04001000"))
        out.write(b"data" + size.to_bytes(4, "little"))
        for minute in range(120):
            out.write(np.repeat(np.roll(noise, minute * 7919), 2).tobytes())
    figures: dict[str, float] = {}
    data_dir = folder / "data"
    with platform(data_dir) as (address, took_s, _), soundhash.Client(address) as client:
        figures["start to ready, empty (s)"] = took_s
        say("ingesting the recordings")
        wall_s = ingest(client, media)
        audio_s = client.stats().audio_duration_s
        figures["ingest of the recordings (× real time)"] = audio_s / wall_s
        say(f"{audio_s / 3600:.2f} h in {wall_s:.1f} s; filling up to {hours:g} h")
        ingest(client, fill(media, decoded, hours - audio_s / 3600, folder / "media"))
        figures["indexed (h)"] = client.stats().audio_duration_s / 3600
    with platform(data_dir) as (address, took_s, server), soundhash.Client(address) as client:
        figures["start to ready, indexed (s)"] = took_s
        say("matching")
        time.sleep(3)
        figures["server memory, idle (MiB)"] = server.memory_info().rss / MIB
        client.match(questions[0])
        took = []
        found = 0
        for clip in questions:
            began = time.perf_counter()
            answer = client.match(clip)
            took.append((time.perf_counter() - began) * 1000)
            found += bool(answer.matches)
        figures["clean 10 s clips answered (%)"] = 100 * found / len(questions)
        figures["clean 10 s clip by RPC, median (ms)"] = statistics.median(took)
        figures["clean 10 s clip by RPC, p95 (ms)"] = sorted(took)[int(0.95 * len(took))]
        say("uploading 2 h")
        with PeakMemory(server) as memory:
            began = time.monotonic()
            job = client.upload(long_file)
            figures["upload of 2 h, 1.27 GB (s)"] = time.monotonic() - began
        figures["memory growth during it (MiB)"] = (memory.peak_bytes - memory.before_bytes) / MIB
        client.cancel_job(job.id)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("media", nargs="+", type=Path, help="recordings or folders of them")
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    media = [
        path
        for given in arguments.media
        for path in (sorted(given.rglob("*")) if given.is_dir() else [given])
        if path.suffix.lower() in MEDIA_ENDINGS and readable(path)
    ]
    if not media:
        parser.error("no recordings there")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        figures = measure(media, arguments.hours, arguments.clips, Path(folder))
    if arguments.json:
        print(json.dumps(figures))
        return
    table = Table("what", "measured")
    for name, value in figures.items():
        table.add_row(name, f"{value:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
