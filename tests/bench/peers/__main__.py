"""Other programs and ours on the same clips in the same run, at equal rates of false answers.

    python -m tests.bench.peers --set DIR [--limit 600] [--only NAME...] [--json FILE]

Every program indexes the set's recordings and answers the same clips, one after the other, with its
best answer and a score of its own. Its threshold is then the lowest at which no more than a given
share of the clips of unindexed recordings is answered. Times include reading the clip.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.peers.audfprint import Audfprint
from tests.bench.peers.audiolocate import Audiolocate
from tests.bench.peers.base import Answer, Peer, UnavailableError
from tests.bench.peers.chromaprint import Chromaprint
from tests.bench.peers.ours import SoundHash
from tests.eval.data import Query, Repeats, digest, read_queries
from tests.eval.figures import FOUND, Outcome, at_false_rate, sweep
from tests.eval.run import judge

PEERS: dict[str, Callable[[], Peer]] = {
    "SoundHash": SoundHash,
    "audiolocate": Audiolocate,
    "audfprint": Audfprint,
    "Chromaprint": Chromaprint,
}
ABSENT = {
    "dejavu": "PyDejavu 0.1.3, the only release on PyPI, is Python 2 code over MySQLdb: "
    "it installs and cannot be imported",
    "Panako, Olaf": "neither in Debian nor on PyPI",
}
"""Programs that are known and cannot run here, with what stands in the way."""
GROUPS = {
    "clean, codecs": {"clean", "codec", "filter", "level", "phone"},
    "voice, noise, music on top": {"voice-over", "noise", "noise, other", "music on top"},
    "rooms, filmed": {"room", "hall with crowd", "filmed"},
    "speed, tempo, pitch": {
        *("speed", "speed, wide", "tempo", "tempo, wide", "pitch", "pitch, wide"),
        *("tempo × pitch", "sped up, slowed"),
    },
}
FALSE_RATE = 0.005
"""Of the table by group: one in two hundred, as few as some hundreds of clips can show."""


def outcome(query: Query, answer: Answer | None, repeats: Repeats, seconds: float) -> Outcome:
    """A program's answer, judged as ours are."""
    if answer is None:
        answer = Answer("", 0.0, float("nan"))
    verdict = judge(query, answer.track, answer.offset_s, repeats)
    return Outcome(
        query=query,
        verdict=verdict,
        track=answer.track,
        offset_s=answer.offset_s,
        score=answer.score,
        confidence=0.0,
        speed=answer.speed,
        pitch=1.0,
        given=bool(answer.track),
        seconds=seconds,
    )


def measure(peer: Peer, folder: Path, queries: Sequence[Query]) -> dict[str, Any]:
    """Figures of one program."""
    repeats = Repeats(folder / "refs")
    begun = time.perf_counter()
    for path in sorted((folder / "refs").glob("*.wav")):
        peer.index(path.stem, path)
    indexing_s = time.perf_counter() - begun
    peer.ask(queries[0].path)
    outcomes = []
    for query in queries:
        begun = time.perf_counter()
        answer = peer.ask(query.path)
        outcomes.append(outcome(query, answer, repeats, time.perf_counter() - begun))
    absent = [o for o in outcomes if not o.indexed]
    indexed = [o for o in outcomes if o.indexed]

    def recall(part: Sequence[Outcome], rate: float) -> float | None:
        if not part:
            return None
        threshold = at_false_rate(sweep(outcomes), rate)["score"]
        found = sum(o.verdict in FOUND and o.score >= threshold for o in part)
        return 100.0 * found / len(part)

    return {
        "name": peer.name,
        "version": peer.version,
        "note": peer.note,
        "clips": len(indexed),
        "unindexed": len(absent),
        "recall_percent": {f"{rate:g}": recall(indexed, rate) for rate in (0.0, FALSE_RATE, 0.02)},
        "by_group_percent": {
            name: recall([o for o in indexed if o.query.family in families], FALSE_RATE)
            for name, families in GROUPS.items()
        },
        "median_ms": 1000.0 * float(np.median([o.seconds for o in outcomes])),
        "p95_ms": 1000.0 * float(np.percentile([o.seconds for o in outcomes], 95)),
        "indexing_s": indexing_s,
    }


def markdown(rows: Sequence[dict[str, Any]], absent: dict[str, str], about: str) -> str:
    """The table for people."""

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.1f}"

    header = ["", "no false answer", *(f"≤ {r:g} % false" for r in (100 * FALSE_RATE, 2))]
    header += [*GROUPS, "ms a clip, median / p95"]
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    for row in rows:
        cells = [f"{row['name']} {row['version']}"]
        cells += [number(value) for value in row["recall_percent"].values()]
        cells += [number(value) for value in row["by_group_percent"].values()]
        cells.append(f"{row['median_ms']:.0f} / {row['p95_ms']:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"{about} Groups at ≤ {100 * FALSE_RATE:g} % false."]
    notes += [f"{row['name']}: {row['note']}." for row in rows]
    notes += [f"Not run: {name} ({why})." for name, why in absent.items()]
    return "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True, dest="folder")
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--only", nargs="*", default=[], help="names of programs, in lower case")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    queries = read_queries(options.folder, options.limit)
    rows: list[dict[str, Any]] = []
    absent = dict(ABSENT)
    for name, make in PEERS.items():
        if options.only and name.lower() not in options.only:
            continue
        try:
            peer = make()
        except UnavailableError as error:
            absent[name] = str(error)
            continue
        rows.append(measure(peer, options.folder, queries))
        print(f"{name}: {rows[-1]['recall_percent']}", file=sys.stderr)
    about = (
        f"Recall, %, on {rows[0]['clips']} clips and {rows[0]['unindexed']} of recordings that are "
        f"not indexed (set {options.folder.name}, {digest(options.folder)})."
    )
    rows.sort(key=lambda row: -row["recall_percent"]["0"])
    table = markdown(rows, absent, about)
    if options.json:
        report = {"rows": rows, "absent": absent, "markdown": table}
        options.json.write_text(json.dumps(report, indent=2))
    print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
