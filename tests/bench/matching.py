"""How fast the engine matches, and how that grows with the catalogue.

    python -m tests.bench.matching MEDIA... [--hours 0 10 100] [--clips 60] [--stages] [--json]

MEDIA: files or folders of recordings. Every fifth is left out of the index; absent clips come from
those. For each number of ``--hours`` the catalogue is filled up with music made up of the indexed
recordings (`soundhash_server.bench.filler`); 0 means the recordings alone. Clips are 10 s, cut at
random and not degraded. Engine time: from PCM to the answer, one thread. Absent clips that are
answered come from recordings that share sound with indexed ones, or the answer is wrong.
``--stages`` adds what each stage of the search costs, and what it reads (`tests.bench.stages`).
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from soundhash_engine import SAMPLE_RATE_HZ, extract, join
from soundhash_engine.index import Index
from soundhash_engine.matcher import MatchOptions, match
from soundhash_engine.types import Pcm
from soundhash_engine.volume import Volume
from soundhash_engine.warm import warm
from soundhash_server.bench.filler import catalogue, prepare
from tests.bench.stages import Cost, cost, print_cost
from tests.eval.data import fingerprint, read_pcm

CLIP_S = 10.0
SUFFIXES = {".wav", ".ogg", ".mp3", ".flac", ".opus", ".m4a"}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One catalogue size."""

    hours: float
    build_s: float
    index_mb: float
    found: int
    clips: int
    median_ms: float
    p95_ms: float
    absent_median_ms: float
    absent_p95_ms: float
    absent_answered: int
    stages: dict[str, Cost] | None


def media(paths: Sequence[Path]) -> list[Path]:
    """All recordings in files and folders, in order."""
    found: list[Path] = []
    for path in paths:
        found += sorted(path.rglob("*")) if path.is_dir() else [path]
    return [p for p in found if p.suffix.lower() in SUFFIXES]


def timed(index: Index, clips: Sequence[tuple[int, Pcm]]) -> tuple[list[float], int, int]:
    """Milliseconds a clip, how many got the right answer and how many any."""
    snapshot = index.snapshot()
    spent, right, answered = [], 0, 0
    for recording, pcm in clips:
        begun = time.perf_counter()
        result = match(snapshot, pcm, MatchOptions(top=1))
        spent.append(1000.0 * (time.perf_counter() - begun))
        answered += bool(result.matches)
        right += any(m.recording_id == recording for m in result.matches)
    return spent, right, answered


def cut_clips(
    paths: Sequence[Path], count: int, random: np.random.Generator
) -> list[tuple[int, Pcm]]:
    """Clips that are not silent, each with the number of the recording that it comes from."""
    length = round(CLIP_S * SAMPLE_RATE_HZ)
    clips: list[tuple[int, Pcm]] = []
    for _ in range(10 * count):
        number = int(random.integers(len(paths)))
        pcm = read_pcm(paths[number])
        if pcm.size > length:
            start = int(random.integers(0, pcm.size - length))
            piece = pcm[start : start + length]
            if float(np.sqrt(np.mean(piece**2))) > 0.01:
                clips.append((number, piece))
        if len(clips) == count:
            break
    return clips


def measure(
    paths: Sequence[Path], hours: Sequence[float], n_clips: int, *, stages: bool
) -> list[Row]:
    """A row for every catalogue size."""
    held_out = paths[4::5]
    indexed = [path for path in paths if path not in held_out]
    prints = [fingerprint(path) for path in indexed]
    random = np.random.default_rng(1)
    clips = cut_clips(indexed, n_clips, random)
    absent = [(-1, pcm) for _, pcm in cut_clips(held_out, n_clips, random)]
    rows = []
    for target in hours:
        index = Index()
        items = [(i, 1, p) for i, p in enumerate(prints)]
        missing = target - sum(p.duration_s for p in prints) / 3600
        items += [
            (len(prints) + i, 1, p) for i, p in enumerate(catalogue(prepare(prints), missing))
        ]
        begun = time.perf_counter()
        volume = Volume.build(items)
        build_s = time.perf_counter() - begun
        del items
        index.load([volume])
        timed(index, clips[:2])
        spent, right, _ = timed(index, clips)
        wasted, _, answered = timed(index, absent)
        costs = None
        if stages:
            parts = {"indexed": clips, "not indexed": absent}
            costs = {
                name: cost(index.snapshot(), (pcm for _, pcm in part))
                for name, part in parts.items()
            }
        rows.append(
            Row(
                hours=volume.hours,
                build_s=build_s,
                index_mb=(volume.nbytes - volume.descriptor.nbytes) / 1e6,
                found=right,
                clips=len(clips),
                median_ms=float(np.median(spent)),
                p95_ms=float(np.percentile(spent, 95)),
                absent_median_ms=float(np.median(wasted)),
                absent_p95_ms=float(np.percentile(wasted, 95)),
                absent_answered=answered,
                stages=costs,
            )
        )
    return rows


def extraction_speed(path: Path) -> float:
    """Seconds of audio a second of one core, from PCM."""
    pcm = read_pcm(path)
    begun = time.perf_counter()
    join(extract(pcm))
    return pcm.size / SAMPLE_RATE_HZ / (time.perf_counter() - begun)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("media", type=Path, nargs="+")
    parser.add_argument("--hours", type=float, nargs="*", default=[0.0, 10.0])
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    warm()
    paths = media(options.media)
    rows = measure(paths, options.hours, options.clips, stages=options.stages)
    speed = extraction_speed(max(paths, key=lambda p: p.stat().st_size))
    if options.json:
        report: dict[str, Any] = {
            "rows": [dataclasses.asdict(row) for row in rows],
            "extraction_times_real_time": speed,
        }
        print(json.dumps(report, indent=2))
        return 0
    print(f"extraction from PCM: {speed:.0f} x real time")
    print(
        f"{'hours':>8}{'build s':>9}{'index MB':>10}{'found':>9}{'ms':>8}{'p95':>8}"
        f"{'absent ms':>11}{'p95':>8}{'answered':>10}"
    )
    for r in rows:
        print(
            f"{r.hours:8.1f}{r.build_s:9.1f}{r.index_mb:10.1f}{f'{r.found}/{r.clips}':>9}"
            f"{r.median_ms:8.1f}{r.p95_ms:8.1f}{r.absent_median_ms:11.1f}{r.absent_p95_ms:8.1f}"
            f"{r.absent_answered:10d}"
        )
        for name, made in (r.stages or {}).items():
            print_cost(name, made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
