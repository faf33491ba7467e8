"""What a confidence means as the catalogue grows.

    python -m tests.eval.calibrate --set DIR [--hours 0 100 1000] [--limit N] [--processes 2]
                                   [--json FILE]

The set's recordings are indexed among as many hours of made-up ones
(``soundhash_server.bench.filler``: landmarks and descriptors like real music's) as are missing to
each number of ``--hours``; 0 means the set alone. Every clip is asked at every size. A made-up
recording as the answer is a false one.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from soundhash_engine import Fingerprint, Index, Volume
from soundhash_engine.score import PUBLISH_CONFIDENCE
from soundhash_engine.warm import warm
from soundhash_server.bench.filler import catalogue, prepare
from tests.eval.data import Repeats, fingerprints, read_queries
from tests.eval.figures import summarise
from tests.eval.run import Examiner, run

FIRST_MADE_UP = 1 << 32
NULL_SHARES = (0.5, 0.9, 0.95, 0.99, 1.0)
"""Of the clips that are not indexed: how high their best answers score. How these rise with the
catalogue is what `score.CATALOGUE_SLOPE` stands for."""
NO_ANSWER = -99.0
VOLUME_HOURS = 100.0
OFF = 0.05
"""A bin is off when its share of right answers lies further from what was said than this."""


def fill(real: Sequence[tuple[int, int, Fingerprint]], hours: float) -> list[Volume]:
    """Made-up recordings of so many hours, in volumes."""
    volumes: list[Volume] = []
    items: list[tuple[int, int, Fingerprint]] = []
    sources = prepare([made for _, _, made in real])
    held_s = 0.0
    for number, made in enumerate(catalogue(sources, hours) if hours > 0 else ()):
        items.append((FIRST_MADE_UP + number, 1, made))
        held_s += made.duration_s
        if held_s >= VOLUME_HOURS * 3600.0:
            volumes.append(Volume.build(items))
            items, held_s = [], 0.0
    return [*volumes, Volume.build(items)] if items else volumes


def measure(
    folder: Path, sizes: Sequence[float], limit: int | None, processes: int
) -> list[dict[str, Any]]:
    """The figures at every catalogue size, smallest first."""
    queries = read_queries(folder, limit)
    real, names = fingerprints(folder / "refs")
    own = Volume.build(real)
    rows = []
    for hours in sorted(sizes):
        index = Index()
        index.load([own, *fill(real, hours - own.hours)])
        examiner = Examiner(index, names, Repeats(folder / "refs"))
        outcomes = run(examiner, queries, processes)
        summary = summarise(outcomes, PUBLISH_CONFIDENCE)
        null = [
            o.score if o.track else NO_ANSWER
            for o in outcomes
            if not o.query.track and o.verdict != "shared"
        ]
        rows.append(
            {
                "hours": index.status().hours,
                "clips": summary["all"]["clips"],
                "unindexed": summary["unindexed"]["clips"],
                "recall_percent": summary["all"]["recall_percent"],
                "false": summary["unindexed"]["false"],
                "wrong": summary["all"]["wrong"],
                "published_recall_percent": summary["published"]["recall_percent"],
                "published_false": summary["published"]["false"],
                "recall_at_0.1_percent_false": summary["at_false_rate"]["0.001"]["recall_percent"],
                "latency_ms": summary["all"]["latency_ms"],
                "unindexed_latency_ms": summary["unindexed"]["latency_ms"],
                "reliability": summary["reliability"],
                "null_scores": {
                    f"{share:g}": float(np.quantile(null, share)) for share in NULL_SHARES
                },
            }
        )
    return rows


def off(bin_: dict[str, float]) -> bool:
    """More than five points away from what was said, beyond what chance explains."""
    said = bin_["confidence"]
    return abs(bin_["right"] - said) > OFF and not bin_["low"] <= said <= bin_["high"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True, dest="folder")
    parser.add_argument("--hours", type=float, nargs="*", default=[0.0, 100.0, 1000.0])
    parser.add_argument("--limit", type=int)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    warm()
    rows = measure(options.folder, options.hours, options.limit, options.processes)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))
    for row in rows:
        print(
            f"{row['hours']:.0f} h: recall {row['recall_percent']:.2f} % of {row['clips']}, "
            f"{row['wrong']} wrong, {row['false']} false of {row['unindexed']}; published "
            f"{row['published_recall_percent']:.2f} %, {row['published_false']} false"
        )
        quantiles = ", ".join(
            f"{100 * float(k):g} %: {v:.2f}" for k, v in row["null_scores"].items()
        )
        print(f"  best scores of unindexed clips: {quantiles}")
        for bin_ in row["reliability"]:
            print(
                f"  {bin_['answers']:6d} answers: said {100 * bin_['confidence']:5.1f} %, right "
                f"{100 * bin_['right']:5.1f} % ({100 * bin_['low']:.1f} … "
                f"{100 * bin_['high']:.1f}){'  OFF' if off(bin_) else ''}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
