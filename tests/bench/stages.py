"""What each stage of a search costs, and which stage finds the right place.

    python -m tests.bench.stages --set DIR [--volumes DIR] [--limit N] [--json]

``--set``: an evaluation set; ``--volumes``: a catalogue that ``tests.bench.scale`` has kept, made
from the same set (without it the set's own recordings are the catalogue).

Two tables. The first: CPU milliseconds a clip of each stage, for clips that are indexed and for
clips that are not, as the search runs for a user, with the probes and the postings that it reads.
The second: with all stages run to the end, at how many of the indexed clips a stage is the first to
verify the right place (0.5 s, loops not forgiven), and at how many it is the only one; and the
share of clips whose right place is verified at all. That share is what retrieval can reach,
whatever the score makes of it.
"""

import argparse
import dataclasses
import json
import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from soundhash_engine import EngineError, MatchOptions, match, matcher, postings, search, window
from soundhash_engine.index import Index, Snapshot
from soundhash_engine.landmarks import query_features
from soundhash_engine.params import PARAMS
from soundhash_engine.types import Pcm
from soundhash_engine.warm import warm
from tests.bench.scale import Reads, open_index, references
from tests.eval.data import OFFSET_TOLERANCE_S, Query, index_folder, read_pcm, read_queries

TIMED = (
    (matcher, "query_features"),
    (search, "query_triples"),
    (search, "probe"),
    (postings, "vote"),
    (window, "align"),
    (window, "glance"),
    (window, "refine"),
    (window, "prepare"),
    (window, "verify"),
    (window, "scan"),
    (window, "scan_volume"),
)
STEPS = ("_scan", "_try_all_changes", "_try_other_places")
ALL_STAGES = (*(step.name for step in window.ROUNDS), *STEPS)


class Clock:
    """CPU time of each stage, without what it calls of other stages."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.step = ""
        self._inner: list[float] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted under ``name`` and, for votes, the round."""

        def run(*arguments: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            begun = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                spent = time.thread_time() - begun
                own = spent - self._inner.pop()
                self.spent[f"{name} {self.step}" if name == "vote" else name] += own
                if self._inner:
                    self._inner[-1] += spent

        return run


@contextmanager
def followed(clock: Clock, verified: list[tuple[str, window.Hit]]) -> Iterator[Reads]:
    """Counts time, reads and verified places by stage while it is open."""
    kept = [(module, name, getattr(module, name)) for module, name in TIMED]
    methods = {name: getattr(window.WindowSearch, name) for name in ("_round", "_judge", *STEPS)}
    reads = Reads()
    postings.vote = reads
    for module, name, function in kept:
        wrapped = reads if name == "vote" else function
        setattr(module, name, clock.timed(name, wrapped))

    def during(name: str) -> Callable[..., Any]:
        def run(self: window.WindowSearch, *arguments: Any) -> Any:
            outer, clock.step = clock.step, arguments[0].name if arguments else name
            try:
                return methods[name](self, *arguments)
            finally:
                clock.step = outer

        return run

    def judge(self: window.WindowSearch, *arguments: Any) -> None:
        known = len(self._hits)
        methods["_judge"](self, *arguments)
        verified.extend((clock.step, hit) for hit in self._hits[known:])

    watched = {name: during(name) for name in ("_round", *STEPS)} | {"_judge": judge}
    for name, method in watched.items():
        setattr(window.WindowSearch, name, method)
    try:
        yield reads
    finally:
        for module, name, function in kept:
            setattr(module, name, function)
        for name, method in methods.items():
            setattr(window.WindowSearch, name, method)


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """Of the clips of one kind: CPU milliseconds a stage, probes and postings read, a clip."""

    clips: int
    median_ms: float
    p95_ms: float
    probes: float
    postings: float
    stages_ms: dict[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Finds:
    """Of the indexed clips: which stage verifies the right place first, and which alone."""

    clips: int
    verified_percent: float
    first: dict[str, int]
    only: dict[str, int]


def cost(snapshot: Snapshot, clips: Iterable[Pcm]) -> Cost:
    """What the clips cost, searched as for a user."""
    clock = Clock()
    spent = []
    with followed(clock, []) as reads:
        for pcm in clips:
            begun = time.thread_time()
            try:
                match(snapshot, pcm, MatchOptions(top=1))
            except EngineError:
                continue
            spent.append(1000.0 * (time.thread_time() - begun))
    n = max(1, len(spent))
    stages = {name: 1000.0 * seconds / n for name, seconds in clock.spent.items()}
    return Cost(
        clips=len(spent),
        median_ms=float(np.median(spent)) if spent else math.nan,
        p95_ms=float(np.percentile(spent, 95)) if spent else math.nan,
        probes=reads.probes / n,
        postings=reads.postings / n,
        stages_ms=dict(sorted(stages.items(), key=lambda item: -item[1])),
    )


def finds(snapshot: Snapshot, queries: Sequence[Query], ids: dict[str, int]) -> Finds:
    """Which stages verify the right place when all of them run."""
    first: Counter[str] = Counter()
    only: Counter[str] = Counter()
    found = clips = 0
    for query in queries:
        features = query_features(read_pcm(query.path))
        if query.track not in ids or not len(features.landmarks):
            continue
        clips += 1
        verified: list[tuple[str, window.Hit]] = []
        with followed(Clock(), verified):
            window.WindowSearch(snapshot, features).run(math.inf)
        # Half a frame's FFT lies before its middle on both sides.
        lead = 0.5 * PARAMS.n_fft_samples / PARAMS.hop_samples
        middle = 0.5 * (features.landmarks.n_frames - 1) + lead
        place = query.offset_s * PARAMS.frames_per_s + query.speed * middle - lead
        stages = {
            stage
            for stage, hit in verified
            if hit.recording_id == ids[query.track]
            and abs(hit.position - place) <= OFFSET_TOLERANCE_S * PARAMS.frames_per_s
        }
        found += bool(stages)
        if stages:
            first[min(stages, key=ALL_STAGES.index)] += 1
        if len(stages) == 1:
            only[next(iter(stages))] += 1
    return Finds(clips, 100.0 * found / max(1, clips), dict(first), dict(only))


def print_cost(name: str, made: Cost) -> None:
    """A table for people."""
    print(
        f"{name}: {made.clips} clips, {made.median_ms:.1f} ms median, {made.p95_ms:.1f} p95, "
        f"{made.probes:,.0f} probes and {made.postings:,.0f} postings a clip"
    )
    for stage, ms in made.stages_ms.items():
        if ms >= 0.05:
            print(f"  {stage:<22}{ms:8.2f} ms")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True, dest="folder")
    parser.add_argument("--volumes", type=Path)
    parser.add_argument("--limit", type=int, help="about this many clips, of every condition")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    warm()
    index: Index
    if options.volumes is None:
        index, names = index_folder(options.folder / "refs")
        ids = {name: number for number, name in names.items()}
    else:
        index = open_index(options.volumes)
        ids = {path.stem: i for i, path in enumerate(references(options.folder))}
    snapshot = index.snapshot()
    queries = read_queries(options.folder, options.limit)
    indexed = [q for q in queries if q.track in ids]
    absent = [q for q in queries if not q.track]
    print(f"{snapshot.hours:.1f} h in {len(snapshot.volumes)} volumes", file=sys.stderr)

    def clips(part: Sequence[Query]) -> Iterator[Pcm]:
        return (read_pcm(query.path) for query in part)

    cost(snapshot, clips((indexed + absent)[:: max(1, len(queries) // 20)]))
    costs = {
        "indexed": cost(snapshot, clips(indexed)),
        "not indexed": cost(snapshot, clips(absent)),
    }
    found = finds(snapshot, indexed, ids)
    if options.json:
        report = {"hours": snapshot.hours, "finds": dataclasses.asdict(found)}
        report |= {name: dataclasses.asdict(made) for name, made in costs.items()}
        print(json.dumps(report, indent=2))
        return 0
    for name, made in costs.items():
        print_cost(name, made)
    print(f"right place verified: {found.verified_percent:.1f} % of {found.clips} clips")
    for stage in ALL_STAGES:
        counts = found.first.get(stage, 0), found.only.get(stage, 0)
        print(f"  {stage:<22}first {counts[0]:5d}   only {counts[1]:5d}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
