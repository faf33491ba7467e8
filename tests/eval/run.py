"""How well the engine finds: recall, false answers, offsets and latency on an evaluation set.

    python -m tests.eval.run --set DIR [--out answers.csv] [--limit N] [--json]
                             [--leave-one-out [--twins A=B ...]]

DIR holds refs/ (indexed), queries/ and queries.csv (file,condition,length,kind,track,offset,speed).
A hit is the right recording with the offset within 0.5 s, or at a place that sounds the same.
``--leave-one-out`` hides each clip's own recording, and its ``--twins``, other versions of it or
recordings made of the same samples: every answer is then a false one.
"""

import argparse
import csv
import dataclasses
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from soundhash_engine import EngineError
from soundhash_engine.index import Index
from soundhash_engine.matcher import Match, MatchOptions, match
from soundhash_engine.warm import warm
from tests.eval.data import (
    OFFSET_TOLERANCE_S,
    Query,
    Repeats,
    index_folder,
    read_pcm,
    read_queries,
    read_twins,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """One query's answer, judged.

    verdict: hit, repeat (a hit at an equal place), offset (right recording, wrong place), wrong
    (another recording), missed; false or silent for a clip that is not indexed
    """

    query: Query
    verdict: str
    track: str
    offset_s: float
    score: float
    speed: float
    seconds: float

    @property
    def found(self) -> bool:
        """Counts as found."""
        return self.verdict in {"hit", "repeat"}


def _start_of(answer: Match) -> float:
    """Where the clip's first sample lies in the recording."""
    return answer.video_start_s - answer.speed * answer.clip_start_s


def judge(query: Query, track: str, offset_s: float, repeats: Repeats) -> str:
    """The verdict on an answer; ``track`` is empty for no answer."""
    if query.kind == "negative":
        return "false" if track else "silent"
    if not track:
        return "missed"
    if track != query.track:
        return "wrong"
    if abs(offset_s - query.offset_s) <= OFFSET_TOLERANCE_S:
        return "hit"
    length_s = query.length_s * query.speed
    if repeats.same_sound(track, query.offset_s, offset_s, length_s):
        return "repeat"
    return "offset"


def run(
    index: Index,
    names: dict[int, str],
    queries: Sequence[Query],
    repeats: Repeats,
    *,
    hide: Mapping[str, Iterable[str]] | None = None,
) -> list[Outcome]:
    """Ask every query; ``hide``: recordings that are left out for the clips of one."""
    ids = {name: number for number, name in names.items()}
    everything = index.snapshot()
    outcomes = []
    for query in queries:
        pcm = read_pcm(query.path)
        snapshot = everything
        if hide is not None and query.track:
            snapshot = everything.without([ids[name] for name in hide[query.track]])
        begun = time.perf_counter()
        try:
            matches = match(snapshot, pcm, MatchOptions(top=1)).matches
        except EngineError:
            matches = ()
        seconds = time.perf_counter() - begun
        best = matches[0] if matches else None
        track = names[best.recording_id] if best else ""
        offset_s = _start_of(best) if best else 0.0
        outcomes.append(
            Outcome(
                query=query,
                verdict=judge(query, track, offset_s, repeats),
                track=track,
                offset_s=offset_s,
                score=best.score if best else float("nan"),
                speed=best.speed if best else float("nan"),
                seconds=seconds,
            )
        )
    return outcomes


def _share(outcomes: Sequence[Outcome]) -> float | None:
    """Percent found."""
    if not outcomes:
        return None
    return 100.0 * sum(o.found for o in outcomes) / len(outcomes)


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """All figures, as JSON."""
    positive = [o for o in outcomes if o.query.kind != "negative"]
    negative = [o for o in outcomes if o.query.kind == "negative"]
    lengths = sorted({o.query.length_s for o in outcomes})
    cells: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in positive:
        cells[outcome.query.condition].append(outcome)

    def row(part: Sequence[Outcome]) -> dict[str, Any]:
        errors = [abs(o.offset_s - o.query.offset_s) for o in part if o.verdict == "hit"]
        return {
            "clips": len(part),
            "recall_percent": _share(part),
            "by_length_percent": {
                f"{length:g}": _share([o for o in part if o.query.length_s == length])
                for length in lengths
            },
            "within_100_ms_percent": 100.0 * sum(e <= 0.1 for e in errors) / len(part)
            if part
            else None,
            "repeats": sum(o.verdict == "repeat" for o in part),
            "offset": sum(o.verdict == "offset" for o in part),
            "wrong": sum(o.verdict == "wrong" for o in part),
            "missed": sum(o.verdict == "missed" for o in part),
            "offset_error_ms": _spread([1000.0 * e for e in errors]),
            "speed_error_percent": _spread(
                [100.0 * abs(o.speed / o.query.speed - 1.0) for o in part if o.found]
            ),
            "latency_ms": _spread([1000.0 * o.seconds for o in part]),
        }

    return {
        "conditions": {condition: row(part) for condition, part in cells.items()},
        "all": row(positive),
        "music_percent": _share([o for o in positive if o.query.kind == "music"]),
        "speech_percent": _share([o for o in positive if o.query.kind == "speech"]),
        "unindexed": {
            "clips": len(negative),
            "false": sum(o.verdict == "false" for o in negative),
            "latency_ms": _spread([1000.0 * o.seconds for o in negative]),
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"median": float(np.median(values)), "p95": float(np.percentile(values, 95))}


def print_table(summary: dict[str, Any]) -> None:
    """The figures for people."""
    everything = summary["all"]
    lengths = list(everything["by_length_percent"])
    print(
        f"{'condition':<12}"
        + "".join(f"{length + ' s':>8}" for length in lengths)
        + f"{'all':>8}{'wrong':>7}{'offset':>8}{'≤0.1 s':>8}{'err ms':>8}{'p95':>6}"
        + f"{'ms':>7}{'p95':>7}"
    )
    for name, row in [*summary["conditions"].items(), ("ALL", everything)]:
        error = row["offset_error_ms"] or {"median": float("nan"), "p95": float("nan")}
        shares = [row["by_length_percent"][length] for length in lengths]
        print(
            f"{name:<12}"
            + "".join("       –" if s is None else f"{s:8.1f}" for s in shares)
            + f"{row['recall_percent']:8.1f}{row['wrong']:7d}{row['offset']:8d}"
            + f"{row['within_100_ms_percent']:8.1f}{error['median']:8.1f}{error['p95']:6.0f}"
            + f"{row['latency_ms']['median']:7.1f}{row['latency_ms']['p95']:7.1f}"
        )
    unindexed = summary["unindexed"]
    print(
        f"recall {everything['recall_percent']:.1f} % of {everything['clips']} clips "
        f"(repeats {everything['repeats']}, right recording at a wrong place "
        f"{everything['offset']}, wrong recording {everything['wrong']}), "
        f"false answers {unindexed['false']} of {unindexed['clips']}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True, dest="folder")
    parser.add_argument("--out", type=Path, help="answers: file,track,offset,score,seconds")
    parser.add_argument("--limit", type=int, help="about this many clips, of every condition")
    parser.add_argument("--leave-one-out", action="store_true")
    parser.add_argument("--twins", nargs="*", default=[])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    warm()
    queries = read_queries(options.folder, options.limit)
    begun = time.perf_counter()
    index, names = index_folder(options.folder / "refs")
    if not options.json:
        print(
            f"{index.status().hours:.2f} h indexed in {time.perf_counter() - begun:.1f} s",
            file=sys.stderr,
        )
    twins = read_twins(options.twins)
    hide = {name: {name} | twins[name] for name in names.values()}
    outcomes = run(
        index,
        names,
        queries,
        Repeats(options.folder / "refs"),
        hide=hide if options.leave_one_out else None,
    )
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "track", "offset", "score", "seconds"])
            for o in outcomes:
                offset = f"{o.offset_s:.3f}" if o.track else ""
                writer.writerow(
                    [o.query.path.name, o.track, offset, f"{o.score:.2f}", f"{o.seconds:.4f}"]
                )
    if options.leave_one_out:
        hidden = [o for o in outcomes if o.query.track]
        answered = [o for o in hidden if o.track]
        report = {
            "clips": len(hidden),
            "answered": len(answered),
            "percent": 100.0 * len(answered) / max(1, len(hidden)),
            "pairs": Counter(f"{o.query.track}={o.track}" for o in answered).most_common(),
        }
        print(
            json.dumps(report) if options.json else f"answers with the recording hidden: {report}"
        )
        return 0
    summary = summarise(outcomes)
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        print_table(summary)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
