"""What `soundhash bench` reads, prints and writes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soundhash_server.bench.measure import Report
    from soundhash_server.settings import Settings

# The parser is made at every start of the server: what measures is loaded when it measures.


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `soundhash bench`."""
    parser.add_argument("media", nargs="*", type=Path, metavar="MEDIA")
    parser.add_argument("--hours", nargs="+", type=_positive, default=[8.0, 100.0], metavar="H")
    parser.add_argument("--catalogue", action="store_true")
    parser.add_argument("--clips", type=_count, default=40, metavar="N")
    parser.add_argument("--seconds", type=_clip_s, default=5.0, metavar="S")
    parser.add_argument("--recordings", type=_count, default=60, metavar="N")
    parser.add_argument("--callers", type=_count, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--plot", type=Path, default=Path("soundhash-bench.svg"), metavar="FILE")
    parser.add_argument("--json", action="store_true")


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value <= 100_000.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 100000")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 10_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 10000")
    return value


def _clip_s(text: str) -> float:
    value = float(text)
    if not 1.0 <= value <= 60.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 60")
    return value


def bench(options: argparse.Namespace, settings: Settings) -> int:
    """Measure, print the figures and write the picture; returns the exit status."""
    from soundhash_engine import EngineError  # noqa: PLC0415
    from soundhash_engine.warm import warm  # noqa: PLC0415
    from soundhash_server.bench import recordings  # noqa: PLC0415
    from soundhash_server.bench.catalogue import (  # noqa: PLC0415
        DISK_BYTES_AN_HOUR,
        open_volumes,
    )
    from soundhash_server.bench.chart import chart  # noqa: PLC0415
    from soundhash_server.bench.figures import table  # noqa: PLC0415
    from soundhash_server.bench.measure import measure  # noqa: PLC0415
    from soundhash_server.store.volumes import VolumeDamaged  # noqa: PLC0415

    needed_bytes = 2 * DISK_BYTES_AN_HOUR * max(options.hours)
    with tempfile.TemporaryDirectory(prefix="soundhash-bench-") as folder:
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < needed_bytes:
            return _fail(
                f"{max(options.hours):,.0f} h need {needed_bytes / 1e9:.1f} GB in {folder}, "
                f"{free_bytes / 1e9:.1f} GB are free; set TMPDIR, or choose fewer --hours"
            )
        try:
            base = open_volumes(settings.index_dir) if options.catalogue else []
            if options.catalogue and not base:
                return _fail(f"no index in {settings.index_dir}; choose another --data-dir")
            paths = recordings.find(options.media, options.recordings)
            if options.media and not paths:
                return _fail("no media there; without MEDIA made-up songs are used")
            busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
            if busy > 0.5 * (os.cpu_count() or 1):
                _tell(
                    f"this machine is busy (load {busy:.1f}): clips will seem slower than they are"
                )
            _tell(f"reading {len(paths)} recordings" if paths else "making songs")
            warm()
            material = recordings.read(paths, options.clips, options.seconds)
            report = measure(
                material,
                [0.0, *options.hours] if base else options.hours,
                options.callers,
                options.seconds,
                Path(folder),
                _tell,
                base,
            )
            options.plot.write_text(chart(report), encoding="utf-8")
        except (OSError, ValueError, EngineError, VolumeDamaged) as error:
            return _fail(str(error))
    text = json.dumps(to_json(report)) if options.json else table(report)
    sys.stdout.write(f"{text}\n")
    _tell(f"the picture is in {options.plot}")
    return 0


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _fail(text: str) -> int:
    sys.stderr.write(f"error: {text}\n")
    return 1


def to_json(report: Report) -> dict[str, Any]:
    """The figures as docs/cli.md describes them."""
    return {
        "machine": report.machine,
        "cores": report.cores,
        "recordings": report.recordings,
        "indexed_hours": round(report.indexed_hours, 3),
        "clip_s": report.clip_s,
        "decode_x": report.decode_x,
        "extract_x": report.extract_x,
        "ingest_x": report.ingest_x,
        "sizes": [
            {
                "hours": size.growth.hours,
                "index_bytes": size.growth.index_bytes,
                "disk_bytes": size.growth.disk_bytes,
                "indexed_hours_a_minute": size.growth.hours_a_minute,
                "latency": {kind: dataclasses.asdict(one) for kind, one in size.latency.items()},
                "recall": {name: dataclasses.asdict(one) for name, one in size.recall.items()},
                "unindexed": {"answered": size.answered, "clips": size.absent},
                "clips_a_second": {str(callers): rate for callers, rate in size.throughput.items()},
            }
            for size in report.sizes
        ],
    }
