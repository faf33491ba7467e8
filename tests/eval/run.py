"""How well the engine finds: recall, false answers, errors and latency on an evaluation set.

    python -m tests.eval.run --set DIR [--limit N] [--by families|conditions] [--json FILE]
                             [--out answers.csv] [--processes 2] [--history FILE]
                             [--leave-one-out] [--clips-of DIR]

DIR is what ``tests.eval.build`` makes: refs/ (indexed), queries/ and queries.csv. A hit is the
right recording with the offset within 0.5 s, or at a place that sounds the same. Each clip's best
answer is kept even below the threshold, so that one run shows recall at every false rate. An answer
with another version of the piece (``twins.txt``) is counted apart from false ones.
``--leave-one-out`` hides each clip's own recording and its twins: every answer is then a false one.
``--clips-of`` asks the clips of another set, made of other recordings: none of them is indexed.
Latencies of two processes at once are not for quoting. ``--history`` appends the key figures to a
file, a line a run.
"""

import argparse
import csv
import dataclasses
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from soundhash_engine import EngineError, Match, MatchOptions, match
from soundhash_engine.index import Index
from soundhash_engine.score import PUBLISH_CONFIDENCE
from soundhash_engine.warm import warm
from tests.eval.data import (
    MADE_UP,
    OFFSET_TOLERANCE_S,
    SAME_SOUND,
    SHARED_SOUND,
    Query,
    Repeats,
    index_folder,
    read_pcm,
    read_queries,
)
from tests.eval.figures import Outcome, print_table, summarise
from tests.eval.history import append


def _start_of(answer: Match) -> float:
    """Where the clip's first sample lies in the recording."""
    return answer.video_start_s - answer.speed * answer.clip_start_s


def judge(query: Query, track: str, offset_s: float, repeats: Repeats) -> str:
    """The verdict on an answer (see `Outcome`); ``track`` is empty for none."""
    if not track:
        return "silent" if query.kind == "negative" else "missed"
    if track == query.track and abs(offset_s - query.offset_s) <= OFFSET_TOLERANCE_S:
        return "hit"
    if query.kind == "negative" and track in repeats.twins[query.source]:
        return "shared"
    least = SHARED_SOUND if query.kind == "negative" else SAME_SOUND
    same = bool(query.source) and repeats.alike(
        query.source, query.source_offset_s, track, offset_s, query.length_s * query.speed, least
    )
    if query.kind == "negative":
        return "shared" if same else "false"
    if track == query.track:
        return "repeat" if same else "offset"
    return "twin" if same else "wrong"


@dataclasses.dataclass(frozen=True, slots=True)
class Examiner:
    """Asks queries of one index.

    hide  recordings that are left out for the clips of one
    """

    index: Index
    names: dict[int, str]
    repeats: Repeats
    hide: Mapping[str, Iterable[str]] | None = None

    def ask(self, query: Query) -> Outcome:
        """The best answer to one query."""
        pcm = read_pcm(query.path)
        snapshot = self.index.snapshot()
        if self.hide is not None and query.track:
            ids = {name: number for number, name in self.names.items()}
            known = ids.keys() & set(self.hide[query.track])
            snapshot = snapshot.without([ids[name] for name in known])
        begun = time.perf_counter()
        try:
            matches = match(snapshot, pcm, MatchOptions(top=1, min_confidence=0.0)).matches
        except EngineError:
            matches = ()
        seconds = time.perf_counter() - begun
        if not matches:
            verdict = judge(query, "", 0.0, self.repeats)
            nan = float("nan")
            return Outcome(query, verdict, "", 0.0, nan, 0.0, nan, nan, False, seconds)
        best = matches[0]
        track, offset_s = self.names.get(best.recording_id, MADE_UP), _start_of(best)
        return Outcome(
            query=query,
            verdict=judge(query, track, offset_s, self.repeats),
            track=track,
            offset_s=offset_s,
            score=best.score,
            confidence=best.confidence,
            speed=best.speed,
            pitch=best.pitch,
            given=best.confidence >= MatchOptions().min_confidence,
            seconds=seconds,
        )


ANSWER = ("confidence", "given", "verdict", "speed", "pitch")

_examiner: list[Examiner] = []
"""What forked processes share: one copy of the index."""


def _ask(query: Query) -> Outcome:
    return _examiner[0].ask(query)


def run(examiner: Examiner, queries: Sequence[Query], processes: int = 1) -> list[Outcome]:
    """Ask every query."""
    if processes == 1:
        return [examiner.ask(query) for query in queries]
    _examiner[:] = [examiner]
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return pool.map(_ask, queries, chunksize=16)


def write_answers(path: Path, outcomes: Sequence[Outcome]) -> None:
    """One row a query: what was answered and what it is worth."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "track", "offset", "score", "seconds", *ANSWER])
        for o in outcomes:
            offset = f"{o.offset_s:.3f}" if o.track else ""
            figures = [getattr(o, name) for name in ANSWER]
            writer.writerow(
                [o.query.path.name, o.track, offset, f"{o.score:.3f}", f"{o.seconds:.4f}", *figures]
            )


def hidden_report(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What was answered with each clip's own recording hidden."""
    hidden = [o for o in outcomes if o.query.track]
    answered = [o for o in hidden if o.given]
    public = [o for o in hidden if o.confidence >= PUBLISH_CONFIDENCE]
    return {
        "clips": len(hidden),
        "answered": len(answered),
        "percent": 100.0 * len(answered) / max(1, len(hidden)),
        "same_sound": sum(o.right for o in answered),
        "published": len(public),
        "published_same_sound": sum(o.right for o in public),
        "pairs": Counter(f"{o.query.track}={o.track}" for o in answered).most_common(),
    }


def foreign(folder: Path, limit: int | None, names: Iterable[str]) -> list[Query]:
    """The clips of a set that hold none of the recordings ``names``, not on top either."""
    known = set(names)
    on_top = {path.stem.removeprefix("music_") for path in (folder / "on_top").glob("music_*")}
    return [
        dataclasses.replace(query, kind="negative", track="")
        for query in read_queries(folder, limit)
        if query.source not in known
        and not (on_top & known and "music" in query.condition.split("_"))
    ]


def foreign_report(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What was answered to clips that are not indexed."""
    given = [o for o in outcomes if o.given]
    false = [o for o in given if o.verdict == "false"]
    public = [o for o in false if o.confidence >= PUBLISH_CONFIDENCE]
    return {
        "clips": len(outcomes),
        "recordings": len({o.query.source for o in outcomes}),
        "false": len(false),
        "published_false": len(public),
        "versions": len(given) - len(false),
        "best_score": max((o.score for o in outcomes if o.verdict == "false"), default=0.0),
        "pairs": Counter(f"{o.query.source}={o.track}" for o in given).most_common(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True, dest="folder")
    parser.add_argument("--limit", type=int, help="about this many clips, of every condition")
    parser.add_argument("--by", choices=("families", "conditions"), default="conditions")
    parser.add_argument("--out", type=Path, help="where to write each query's answer (CSV)")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--history", type=Path, help="where to append the key figures")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--leave-one-out", action="store_true")
    parser.add_argument("--clips-of", type=Path, metavar="DIR", help="another set: unindexed clips")
    options = parser.parse_args(arguments)
    warm()
    queries = read_queries(options.folder, options.limit)
    if options.leave_one_out:
        queries = [query for query in queries if query.track]
    begun = time.perf_counter()
    index, names = index_folder(options.folder / "refs")
    hours = index.status().hours
    print(f"{hours:.2f} h indexed in {time.perf_counter() - begun:.1f} s", file=sys.stderr)
    repeats = Repeats(options.folder / "refs")
    if options.clips_of:
        queries = foreign(options.clips_of, options.limit, names.values())
    hide = {name: {name} | repeats.twins[name] for name in names.values()}
    examiner = Examiner(
        index,
        names,
        repeats,
        hide if options.leave_one_out else None,
    )
    outcomes = run(examiner, queries, options.processes)
    if options.out:
        write_answers(options.out, outcomes)
    if options.leave_one_out or options.clips_of:
        report = hidden_report(outcomes) if options.leave_one_out else foreign_report(outcomes)
        if options.json:
            options.json.write_text(json.dumps(report, indent=2))
        print(f"answers to clips that are not indexed: {report}")
        return 0
    summary = summarise(outcomes, PUBLISH_CONFIDENCE)
    summary["hours"] = hours
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2))
    if options.history:
        append(options.history, options.folder, summary)
    print_table(summary, options.by)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
