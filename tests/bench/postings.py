"""Postings on PostgreSQL servers beside the same postings in the index's own arrays.

    python -m tests.bench.postings --set DIR [--volumes DIR ...] [--servers 3] [--limit N] [--json]

``--set``: an evaluation set (``tests.eval.build``); its recordings are indexed and its clips asked.
``--volumes``: further catalogues of the same recordings and more, as ``tests.bench.scale`` keeps
them. For each catalogue private servers are started on this machine, on unix sockets, and filled;
then every clip is asked here and there, one after the other, and the answers are compared. At last
one server is killed and the clips are asked once more. Everything shares this machine's cores:
compare the columns, and do not take them for what servers of their own would do.

``pieces``: rows of the tables that are asked for a clip; ``kB``: postings that come back.
"""

import argparse
import dataclasses
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import uvloop

from soundhash_engine import MatchOptions, match
from soundhash_engine.errors import EngineError
from soundhash_engine.index import Index, Snapshot
from soundhash_engine.matcher import MatchResult
from soundhash_engine.postings import Given, Missing, RemotePostings, Wanted
from soundhash_engine.volume import Volume
from soundhash_engine.warm import warm
from soundhash_server.embedded_postgres import Postgres
from soundhash_server.store.posting_rows import Pieces, content_key
from soundhash_server.store.postings import PostingShards
from tests.bench.scale import PLAIN_S, RE_ENCODED, fingerprints, open_index
from tests.eval.data import Query, read_pcm, read_queries

DEADLINE_S = 30.0
CONNECTIONS = 4
LOAD_TIMEOUT_S = 3600.0


class Counted:
    """A look-up that counts what goes out and what comes back."""

    def __init__(self, shards: PostingShards) -> None:
        self._shards = shards
        self.rounds = 0
        self.pieces = 0
        self.given_bytes = 0

    def holds(self, volume: Volume) -> bool:
        """As the shards say."""
        return self._shards.holds(volume)

    def look_up(self, wanted: Sequence[Wanted]) -> tuple[list[Given], tuple[Missing, ...]]:
        """As the shards answer."""
        self.rounds += 1
        self.pieces += sum(len(Pieces.of(one)) for one in wanted)
        given, missing = self._shards.look_up(wanted)
        self.given_bytes += sum(one.check.nbytes + one.post.nbytes for one in given)
        return given, missing


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """One clip, asked here and there."""

    query: Query
    local_s: float
    remote_s: float
    equal: bool
    rounds: int
    pieces: int
    given_bytes: int


@contextmanager
def servers(count: int, folder: Path) -> Iterator[list[Postgres]]:
    """Private servers, empty."""
    made = [Postgres(folder / f"server{i}", {"shared_buffers": "512MB"}) for i in range(count)]
    try:
        for server in made:
            server.start()
        yield made
    finally:
        for server in made:
            server.stop()


async def table_bytes(url: str) -> int:
    """Of a server's postings with their index."""
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT pg_total_relation_size('postings')"))
    finally:
        await connection.close()


def timed(snapshot: Snapshot, query: Query) -> tuple[float, MatchResult | None]:
    """Seconds of one clip, and its answer."""
    pcm = read_pcm(query.path)
    begun = time.perf_counter()
    try:
        result = match(snapshot, pcm, MatchOptions(top=5))
    except EngineError:
        result = None
    return time.perf_counter() - begun, result


def load(shards: PostingShards, volumes: Sequence[Volume]) -> float:
    """Store volumes on the shards; returns the seconds that it took."""
    while any(state.reason for state in shards.states()):
        time.sleep(0.01)
    begun = time.perf_counter()
    shards.keep([(content_key(volume), volume) for volume in volumes])
    while not all(shards.holds(volume) for volume in volumes):
        if time.perf_counter() - begun > LOAD_TIMEOUT_S:
            raise TimeoutError("the postings were not stored")
        time.sleep(0.01)
    return time.perf_counter() - begun


def ask(snapshot: Snapshot, shards: PostingShards, queries: Sequence[Query]) -> list[Asked]:
    """Every clip here and there; every other one the other way round."""
    asked = []
    for i, query in enumerate(queries):
        counted = Counted(shards)
        spread = dataclasses.replace(snapshot, postings=RemotePostings(counted))
        first, second = (snapshot, spread) if i % 2 else (spread, snapshot)
        one, other = timed(first, query), timed(second, query)
        (local_s, local), (remote_s, remote) = (one, other) if i % 2 else (other, one)
        equal = (local and local.matches) == (remote and remote.matches)
        asked.append(
            Asked(
                query,
                local_s,
                remote_s,
                equal,
                counted.rounds,
                counted.pieces,
                counted.given_bytes,
            )
        )
    return asked


def with_one_dead(
    snapshot: Snapshot, shards: PostingShards, dead: Postgres, queries: Sequence[Query]
) -> dict[str, float]:
    """Kills a server; which of the clips that were answered still are, and how fast."""
    spread = dataclasses.replace(snapshot, postings=RemotePostings(shards))
    before = [bool(result and result.matches) for _, result in (timed(spread, q) for q in queries)]
    if dead.pid is not None:
        os.kill(dead.pid, signal.SIGKILL)
    results = [timed(spread, query) for query in queries]
    named = [bool(result is None or result.missing) for _, result in results]
    still = [
        bool(result and result.matches)
        for (_, result), answered in zip(results, before, strict=True)
        if answered
    ]
    return {
        "clips": len(queries),
        "named_percent": 100.0 * sum(named) / max(1, len(named)),
        "still_answered_percent": 100.0 * sum(still) / max(1, len(still)),
        "slowest_s": max(seconds for seconds, _ in results),
    }


def measure(
    index: Index, queries: Sequence[Query], count: int, folder: Path, dead_clips: int
) -> dict[str, Any]:
    """Everything about one catalogue."""
    snapshot = index.snapshot()
    hours = sum(volume.hours for volume in snapshot.volumes)
    with servers(count, folder) as made:
        shards = PostingShards(
            [server.url for server in made], deadline_s=DEADLINE_S, connections=CONNECTIONS
        )
        try:
            load_s = load(shards, snapshot.volumes)
            there = sum(uvloop.run(table_bytes(server.url)) for server in made)
            ask(snapshot, shards, queries[:3])
            asked = ask(snapshot, shards, queries)
            lost = with_one_dead(snapshot, shards, made[-1], queries[:dead_clips])
        finally:
            shards.close()
    here = sum(v.bucket.nbytes + v.post.nbytes + v.check.nbytes for v in snapshot.volumes)
    classes = {
        "plain": [
            a
            for a in asked
            if a.query.condition in RE_ENCODED
            and a.query.length_s == PLAIN_S
            and a.query.kind != "negative"
        ],
        "all": [a for a in asked if a.query.kind != "negative"],
        "unindexed": [a for a in asked if a.query.kind == "negative"],
    }
    return {
        "hours": hours,
        "volumes": len(snapshot.volumes),
        "local_bytes_an_hour": here / hours,
        "remote_bytes_an_hour": there / hours,
        "load_hours_a_minute": 60.0 * hours / load_s,
        "answers_equal": sum(a.equal for a in asked),
        "answers": len(asked),
        "classes": {name: summary(part) for name, part in classes.items()},
        "one_server_dead": lost,
    }


def summary(asked: Sequence[Asked]) -> dict[str, float]:
    """Latency here and there, and what a clip asks and gets."""
    if not asked:
        return {"clips": 0}
    local = np.array([a.local_s for a in asked]) * 1000.0
    remote = np.array([a.remote_s for a in asked]) * 1000.0
    return {
        "clips": len(asked),
        "local_median_ms": float(np.median(local)),
        "local_p95_ms": float(np.percentile(local, 95)),
        "remote_median_ms": float(np.median(remote)),
        "remote_p95_ms": float(np.percentile(remote, 95)),
        "median_ratio": float(np.median(remote / local)),
        "rounds": float(np.mean([a.rounds for a in asked])),
        "pieces": float(np.mean([a.pieces for a in asked])),
        "kb": float(np.mean([a.given_bytes for a in asked])) / 1000.0,
    }


def show(row: dict[str, Any]) -> str:
    """A catalogue's figures as text."""
    lost = row["one_server_dead"]
    lines = [
        f"{row['hours']:.1f} h in {row['volumes']} volumes: "
        f"{row['local_bytes_an_hour'] / 1e6:.2f} MB/h here, "
        f"{row['remote_bytes_an_hour'] / 1e6:.2f} MB/h there, "
        f"stored at {row['load_hours_a_minute']:,.0f} h/min; "
        f"{row['answers_equal']} of {row['answers']} answers equal",
        f"{'':>10}{'clips':>7}{'here ms':>9}{'p95':>8}{'there ms':>10}{'p95':>8}{'times':>7}"
        f"{'rounds':>8}{'pieces':>9}{'kB':>8}",
    ]
    lines += [
        f"{name:>10}{c['clips']:>7}{c['local_median_ms']:>9.1f}{c['local_p95_ms']:>8.1f}"
        f"{c['remote_median_ms']:>10.1f}{c['remote_p95_ms']:>8.1f}{c['median_ratio']:>7.1f}"
        f"{c['rounds']:>8.1f}{c['pieces']:>9.0f}{c['kb']:>8.0f}"
        for name, c in row["classes"].items()
        if c["clips"]
    ]
    lines.append(
        f"one server killed: {lost['named_percent']:.0f} % of {lost['clips']} answers say so, "
        f"{lost['still_answered_percent']:.0f} % of the found clips are still found, "
        f"the slowest took {lost['slowest_s']:.2f} s"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--volumes", type=Path, nargs="*", default=[])
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--dead-clips", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    warm()
    queries = read_queries(options.set, options.limit)

    def catalogues() -> Iterator[Index]:
        index = Index()
        index.load([Volume.build((i, 1, f) for i, f in enumerate(fingerprints(options.set)))])
        yield index
        yield from map(open_index, options.volumes)

    rows = []
    for index in catalogues():
        with tempfile.TemporaryDirectory(prefix="soundhash-postings-") as folder:
            rows.append(measure(index, queries, options.servers, Path(folder), options.dead_clips))
        if not options.json:
            print(show(rows[-1]), flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
