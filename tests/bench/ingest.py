"""How fast sources become searchable: a loopback HTTP source, a real platform, where the time goes.

    python -m tests.bench.ingest [MEDIA...] [--items 60] [--minutes 4] [--down MBIT] [--json]

Starts `soundhash up` on an empty data folder (server, worker, embedded database and queue), submits
`--items` URLs of a web server on loopback, and waits until all are indexed. The items are the
recordings of MEDIA as they are, or made-up music of `--minutes` each as MP3 at 128 kbit/s, of which
seven pieces come again under other tags; one more goes before them and is not counted. `--down`
bounds each download, in Mbit/s, as a distant source would. Prints items a minute, hours of audio an
hour, and, from the jobs' own times and the worker's log, what a job spent its time on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import soundhash
from tests.bench.platform import MEDIA_ENDINGS, platform, readable, resampled
from tests.media import encode
from tests.songs import SAMPLE_RATE_HZ, song

PIECES = 7
STEPS = {
    "queue": "in line for a worker",
    "answer": "waiting for the source, or for a free download",
    "fetch": "fetching",
    "decoder": "in line for a decoder",
    "fingerprint": "decoding and fingerprinting",
    "keep": "keeping",
    "store": "storing",
    "other": "all else",
}


def made_up(count: int, minutes: float, folder: Path) -> None:
    """Writes MP3 files of which no two have the same bytes."""
    pieces = []
    for seed in range(min(count, PIECES)):
        pcm = song(60.0, seed)
        speeds = [0.8 + 0.05 * turn for turn in range(int(minutes * 1.5) + 1)]
        pcm = np.concatenate([resampled(pcm, speed) for speed in speeds])
        pcm = pcm[: round(minutes * 60 * SAMPLE_RATE_HZ)]
        pieces.append(encode(pcm, "mp3", rate_hz=44_100, channels=2, bit_rate=128_000))
    for number in range(count):
        path = folder / f"{number:04d}.mp3"
        path.write_bytes(tag(f"item {number}") + pieces[number % len(pieces)])


def tag(text: str) -> bytes:
    """An ID3v2.3 tag with a title of less than a hundred characters."""
    body = b"TIT2" + (len(text) + 1).to_bytes(4, "big") + b"\0\0\0" + text.encode("ascii")
    return b"ID3\x03\0\0" + len(body).to_bytes(4, "big") + body


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def measure(items: list[Path], down_mbit: float, data_dir: Path) -> dict[str, float]:
    """Indexes the items; figures by name, seconds by step under "step ..."."""
    handler = partial(_Quiet, directory=str(items[0].parent))
    source = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=source.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{source.server_address[1]}"
    settings = {
        "ALLOW_PRIVATE_URLS": "1",
        "LOG_FORMAT": "json",
        # One source, and nobody to spare.
        "MAX_HOST_JOBS": "64",
        "MAX_DOWNLOADS": "64",
        "DOWNLOAD_BYTES_PER_S": str(round(down_mbit * 125_000)),
    }
    os.environ |= {f"SOUNDHASH_{name}": value for name, value in settings.items()}
    with platform(data_dir) as (address, _, _), soundhash.Client(address) as client:
        # The worker may still be starting.
        first = client.wait_for_job(client.submit_url(f"{base}/{items[0].name}").id, timeout_s=600)
        audio_s = client.stats().audio_duration_s
        began = time.monotonic()
        jobs = [client.submit_url(f"{base}/{path.name}") for path in items[1:]]
        done = [client.wait_for_job(job.id, timeout_s=3600) for job in jobs]
        wall_s = time.monotonic() - began
        audio_s = client.stats().audio_duration_s - audio_s
    source.shutdown()
    for job in done:
        if job.failure is not None:
            print(f"failed: {job.source}: {job.failure.message}", file=sys.stderr)
    good = [job for job in done if job.state is soundhash.JobState.SUCCEEDED]
    figures = {
        "items": float(len(good)),
        "audio (h)": audio_s / 3600,
        "wall clock (s)": wall_s,
        "items a minute": 60 * len(good) / wall_s,
        "hours of audio an hour": audio_s / wall_s,
    }
    steps: dict[str, list[float]] = {name: [] for name in STEPS}
    for job in good:
        assert job.create_time is not None and job.start_time is not None
        steps["queue"].append((job.start_time - job.create_time).total_seconds())
    for line in (data_dir / "log/worker.log").read_text().splitlines():
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("event") != "job ended" or entry["job_id"] == first.id:
            continue
        left_s = entry["elapsed_s"]
        for name in STEPS:
            if name not in ("queue", "other"):
                took_s = entry.get(f"{name}_s", 0.0)
                steps[name].append(took_s)
                left_s -= took_s
        steps["other"].append(left_s)
    for name, took in steps.items():
        if any(took):
            figures[f"step {name}, mean (s)"] = statistics.mean(took)
            figures[f"step {name}, all (s)"] = sum(took)
    return figures


def show(figures: dict[str, float]) -> None:
    console = Console()
    table = Table("what", "measured")
    for name, value in figures.items():
        if not name.startswith("step "):
            table.add_row(name, f"{value:,.1f}")
    console.print(table)
    worked = sum(
        value
        for name, value in figures.items()
        if name.endswith("all (s)") and not name.startswith("step queue")
    )
    table = Table("where a job's time goes", "mean (s)", "of its work (%)")
    for step, text in STEPS.items():
        if f"step {step}, all (s)" in figures:
            share = 100 * figures[f"step {step}, all (s)"] / worked
            mean = figures[f"step {step}, mean (s)"]
            table.add_row(text, f"{mean:.2f}", "" if step == "queue" else f"{share:.0f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("media", nargs="*", type=Path, help="recordings or folders of them")
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=4.0, help="of made-up music")
    parser.add_argument("--down", type=float, default=0.0, metavar="MBIT", help="of each download")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    media = [
        path
        for given in arguments.media
        for path in (sorted(given.rglob("*")) if given.is_dir() else [given])
        if path.suffix.lower() in MEDIA_ENDINGS and readable(path)
    ]
    if arguments.media and not media:
        parser.error("no recordings there")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "items").mkdir()
        print("making the items", file=sys.stderr, flush=True)
        if media:
            for number, path in enumerate(media[: arguments.items + 1]):
                shutil.copyfile(path, folder / "items" / f"{number:04d}{path.suffix}")
        else:
            made_up(arguments.items + 1, arguments.minutes, folder / "items")
        print("indexing them", file=sys.stderr, flush=True)
        items = sorted((folder / "items").iterdir())
        figures = measure(items, arguments.down, folder / "data")
    if arguments.json:
        print(json.dumps(figures))
    else:
        show(figures)


if __name__ == "__main__":
    main()
