"""How fast audio becomes stored segments, on one core.

    python -m tests.bench.extraction FILES... [--seconds N] [--repeat N] [--json]

For every file: extraction from PCM in memory (levels, landmarks, descriptor, vector, MD5, blobs),
decoding alone, decoding and extraction together as ingest does it, and what is stored an hour.
Then a clip's features. All speeds are seconds of audio a second of processor time.
"""

import argparse
import functools
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from soundhash_engine.decode import decode_file
from soundhash_engine.landmarks import query_features
from soundhash_engine.params import SAMPLE_RATE_HZ
from soundhash_engine.stream import Extractor, extract
from soundhash_engine.types import Pcm, Segment
from soundhash_engine.warm import warm


def fastest_s(work: Callable[[], object], repeat: int) -> float:
    """The least processor time of several runs: other load on the machine only adds to it."""
    times = []
    for _ in range(repeat):
        started = time.thread_time()
        work()
        times.append(time.thread_time() - started)
    return min(times)


def limited(path: Path, seconds: float) -> Iterator[Pcm]:
    """Decode no more than the first `seconds`."""
    left = round(seconds * SAMPLE_RATE_HZ)
    for chunk in decode_file(path):
        yield chunk[:left]
        left -= chunk.size
        if left <= 0:
            return


def ingest(path: Path, seconds: float) -> list[Segment]:
    """Decode and extract as a worker does: chunk by chunk."""
    extractor = Extractor()
    pushed = (extractor.push(chunk) for chunk in limited(path, seconds))
    return [*itertools.chain.from_iterable(pushed), *extractor.finish()]


def measure(path: Path, seconds: float, repeat: int) -> dict[str, Any]:
    """All figures of one file."""
    pcm = np.concatenate(list(limited(path, seconds)))
    duration_s = pcm.size / SAMPLE_RATE_HZ
    segments = extract(pcm)
    hours = duration_s / 3600

    def decode() -> None:
        for _ in limited(path, seconds):
            pass

    row: dict[str, Any] = {
        "file": path.name,
        "duration_s": round(duration_s, 1),
        "extract_x": duration_s / fastest_s(lambda: extract(pcm), repeat),
        "decode_x": duration_s / fastest_s(decode, repeat),
        "decode_extract_x": duration_s / fastest_s(lambda: ingest(path, seconds), repeat),
        "landmarks_kb_h": sum(len(s.landmarks) for s in segments) / 1000 / hours,
        "descriptor_mb_h": sum(len(s.descriptor) for s in segments) / 1e6 / hours,
    }
    for clip_s in (3, 5, 10):
        clip = pcm[: clip_s * SAMPLE_RATE_HZ]
        features = functools.partial(query_features, clip)
        row[f"clip_{clip_s}s_ms"] = 1000 * fastest_s(features, 5 * repeat)
    return row


def _text(value: str | float) -> str:
    if isinstance(value, str):
        return value[:24]
    return f"{value:.0f}" if value > 100 else f"{value:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=600, help="of every file, at most")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    warm()
    rows = [measure(path, args.seconds, args.repeat) for path in args.files]
    total_s = sum(row["duration_s"] for row in rows)
    total = {"file": f"{len(rows)} files", "duration_s": round(total_s, 1)}
    for name in list(rows[0])[2:]:
        values = [row[name] for row in rows]
        if name.endswith("_x"):
            # Of all audio together, not the mean of the speeds.
            spent = sum(row["duration_s"] / row[name] for row in rows)
            total[name] = total_s / spent
        else:
            total[name] = float(np.median(values))
    if args.json:
        json.dump({"files": rows, "total": total}, sys.stdout, indent=2)
        print()
        return 0
    table = Table()
    for name in total:
        table.add_column(name.replace("_", " "), justify="left" if name == "file" else "right")
    for row in [*rows, total]:
        table.add_row(*(_text(value) for value in row.values()))
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
