"""What a catalogue of so many hours costs: to grow, to start, to keep in memory, to ask.

    python -m tests.bench.scale --set DIR --out DIR [--hours 8 100 1000] [--limit N] [--json FILE]
    python -m tests.bench.scale --set DIR --measure DIR [--limit N]

``--set``: an evaluation set (``tests.eval.build``); its recordings are indexed, and the music among
them is what made-up music is made of (``soundhash_server.bench.filler``: two recordings laid on one
another, reversed, stretched and transposed, with their descriptors). How like real music that is,
is printed first.

The index grows as a server's does: half an hour of audio at a time into the live tail, a volume
written and flushed at 4 h, volumes merged as they double; its speed counts all of that and leaves
out making the fingerprints. From ``--plain-above`` hours on, 20 h at a time are written and merged
once, to volumes of 2,500 h, which takes a third of the time and little more disk than the result
(10,000 h: 27 GB, and 7 GB while they are made). At each of ``--hours`` the volumes are
kept as ``--out``/<hours>, merged as a quiet server merges them, and measured by a process of its
own:

- start: from nothing in memory, and again, to a snapshot that can be asked;
- clips of the set, one at a time and all of them twice, the first pass with nothing in memory:
  latency, recall, false answers, postings read a clip. ``plain`` clips are clean or re-encoded ones
  of 10 s;
- memory after all of them: what the process has for itself, and the pages of the volumes that are
  in the system's memory, from none before; ``hot`` is what they are at the most, without the
  descriptors, which are read only where candidates are verified.
"""

import argparse
import ctypes
import dataclasses
import json
import mmap
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from soundhash_engine import Fingerprint, MatchOptions, Volume, match, postings
from soundhash_engine.errors import EngineError
from soundhash_engine.index import Index
from soundhash_engine.sealing import SEAL_RATIO, Merge
from soundhash_engine.warm import warm
from soundhash_server.bench.filler import likeness, make, prepare
from soundhash_server.services.index import QUIET_MERGE_HOURS, QUIET_RATIO
from soundhash_server.services.volume_files import VolumeFiles
from tests.eval.data import MADE_UP, Query, Repeats, fingerprint, read_pcm, read_queries
from tests.eval.run import judge

CATALOGUE = uuid.UUID(int=1)
APPLIED_HOURS = 0.5
SEALED_HOURS = 4.0
PLAIN_PIECE_HOURS = 20.0
PLAIN_VOLUME_HOURS = 2500.0
FIRST_MADE = 1_000_000
LEAST_S = 25.0
RE_ENCODED = {"clean", "mp3_32", "opus_24"}
PLAIN_S = 10.0


@dataclasses.dataclass(slots=True)
class Spent:
    """Seconds that growing took, on one thread, and what it wrote."""

    apply_s: float = 0.0
    seal_s: float = 0.0
    processor_s: float = 0.0
    hours: float = 0.0
    written_hours: float = 0.0

    @property
    def hours_a_minute(self) -> float:
        """Hours of audio a minute, all in all."""
        return 60.0 * self.hours / max(1e-9, self.apply_s + self.seal_s)


class Growing:
    """An index on disk that grows as a server's does."""

    def __init__(
        self, folder: Path, prints: Sequence[Fingerprint], music: Sequence[Fingerprint]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.index = Index()
        self.files = VolumeFiles(folder)
        self.index.load(self.files.open(CATALOGUE))
        self.spent = Spent()
        self._prints = prints
        self._sources = prepare(music)
        # A run that was broken off goes on.
        held = [int(v.recording_id[-1]) for v in self.index.volumes() if len(v.recording_id)]
        self._made = max(0, max(held, default=0) - FIRST_MADE + 1)
        self._aside: tuple[Volume, ...] = ()

    def grow(self, hours: float, plain_above: float) -> None:
        """Add recordings, the real ones first, until there are so many hours."""
        large = [v for v in self.index.volumes() if v.hours >= PLAIN_VOLUME_HOURS]
        self.index.drop(large)
        self._aside = tuple(large)
        for piece, plain in self._pieces(hours, plain_above):
            begun, busy = time.perf_counter(), time.process_time()
            self.index.apply(piece)
            self.spent.apply_s += time.perf_counter() - begun
            self.spent.processor_s += time.process_time() - busy
            self.spent.hours += sum(made.duration_s for _, _, made in piece) / 3600.0
            tail_hours = self.index.status().tail_hours
            if plain:
                self._seal(0.0)
                if self.index.status().hours >= PLAIN_VOLUME_HOURS:
                    self._set_aside()
            elif tail_hours >= SEALED_HOURS:
                self._seal(SEAL_RATIO)

    def settle(self) -> None:
        """Merge as a server does when nothing changes any more."""
        if self._aside:
            self._set_aside()
            self.index.load(self._aside)
            self._aside = ()
            return
        full = self.index.status().hours <= QUIET_MERGE_HOURS
        while self._seal(QUIET_RATIO, full=full) is not None:
            pass

    def _set_aside(self) -> None:
        """One volume of what has come since the last one."""
        self._seal(SEAL_RATIO, full=True)
        self._aside = (*self._aside, *self.index.volumes())
        self.index.load([])

    def _seal(self, ratio: float, *, full: bool = False) -> Volume | None:
        begun, busy = time.perf_counter(), time.process_time()

        def write(merge: Merge) -> Volume:
            return self.files.write(merge, CATALOGUE)

        sealed = self.index.seal(write, ratio=ratio, full=full)
        self.files.keep_only((*self._aside, *self.index.volumes()))
        self.spent.seal_s += time.perf_counter() - begun
        self.spent.processor_s += time.process_time() - busy
        if sealed is not None:
            self.spent.written_hours += sealed.hours
        return sealed

    def _pieces(
        self, hours: float, plain_above: float
    ) -> Iterator[tuple[list[tuple[int, int, Fingerprint]], bool]]:
        total = self.index.status().hours + sum(volume.hours for volume in self._aside)
        piece: list[tuple[int, int, Fingerprint]] = []
        if total == 0.0:
            piece = [(i, 1, made) for i, made in enumerate(self._prints)]
            total = sum(made.duration_s for made in self._prints) / 3600.0
            yield piece, False
        while total < hours:
            plain = total >= plain_above
            piece, seconds = [], 0.0
            while seconds < 3600.0 * (PLAIN_PIECE_HOURS if plain else APPLIED_HOURS):
                made = make(self._sources, self._made)
                piece.append((FIRST_MADE + self._made, 1, made))
                self._made += 1
                seconds += made.duration_s
            total += seconds / 3600.0
            yield piece, plain


def open_index(folder: Path) -> Index:
    """The index of volumes that this benchmark has kept in a folder."""
    files = VolumeFiles(folder)
    index = Index()
    index.load(files.open(CATALOGUE))
    files.close()
    return index


def references(folder: Path) -> list[Path]:
    """The recordings of a set, in the order of their ids."""
    return sorted((folder / "refs").glob("*.wav"))


def fingerprints(folder: Path) -> list[Fingerprint]:
    """Of all recordings that are long enough."""
    prints = [fingerprint(path) for path in references(folder)]
    return [made for made in prints if made.duration_s >= LEAST_S]


def resident_bytes(path: Path) -> int:
    """Bytes of a file that are in the system's memory."""
    size = path.stat().st_size
    if not size:
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        pages = -(-size // mmap.PAGESIZE)
        seen = np.zeros(pages, np.uint8)
        view = np.frombuffer(mapped, np.uint8)
        failed = libc.mincore(
            ctypes.c_void_p(view.ctypes.data),
            ctypes.c_size_t(size),
            seen.ctypes.data_as(ctypes.c_void_p),
        )
        del view
        if failed:
            raise OSError(ctypes.get_errno(), "mincore")
    return int((seen & 1).sum()) * mmap.PAGESIZE


def evict(folder: Path) -> None:
    """Take files out of the system's memory."""
    for path in folder.rglob("*.bin"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def private_bytes() -> int:
    """Memory that this process has for itself."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


class Reads:
    """Counts what the kernel of retrieval looks up and reads."""

    def __init__(self) -> None:
        self.probes = 0
        self.postings = 0
        self._vote = postings.vote

    def __call__(self, *arguments: Any) -> tuple[int, int, int]:
        found, probes, read = self._vote(*arguments)
        self.probes += int(probes)
        self.postings += int(read)
        return found, probes, read


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """One clip's answer."""

    query: Query
    verdict: str
    given: bool
    seconds: float
    probes: int
    postings: int


def ask(index: Index, folder: Path, queries: Sequence[Query]) -> list[Asked]:
    """Every clip once, one at a time."""
    names = dict(enumerate(path.stem for path in references(folder)))
    snapshot = index.snapshot()
    repeats = Repeats(folder / "refs")
    reads = Reads()
    postings.vote = reads
    asked = []
    for query in queries:
        pcm = read_pcm(query.path)
        probes, read = reads.probes, reads.postings
        begun = time.perf_counter()
        try:
            matches = match(snapshot, pcm, MatchOptions(top=1, min_confidence=0.0)).matches
        except EngineError:
            matches = ()
        seconds = time.perf_counter() - begun
        track, offset_s, given = "", 0.0, False
        if matches:
            best = matches[0]
            track = names.get(best.recording_id, MADE_UP)
            offset_s = best.video_start_s - best.speed * best.clip_start_s
            given = best.confidence >= MatchOptions().min_confidence
        verdict = judge(query, track, offset_s, repeats)
        asked.append(
            Asked(query, verdict, given, seconds, reads.probes - probes, reads.postings - read)
        )
    return asked


def spread_ms(asked: Sequence[Asked]) -> dict[str, float]:
    """Median and 95th percentile."""
    times = [1000.0 * one.seconds for one in asked] or [float("nan")]
    return {"median": float(np.median(times)), "p95": float(np.percentile(times, 95))}


def measure(volumes: Path, folder: Path, limit: int | None) -> dict[str, Any]:
    """Everything that one size costs to start and to ask."""
    warm()
    evict(volumes)
    begun = time.perf_counter()
    open_index(volumes)
    cold_s = time.perf_counter() - begun
    begun = time.perf_counter()
    index = open_index(volumes)
    start_s = time.perf_counter() - begun
    evict(volumes)
    queries = read_queries(folder, limit)
    first = ask(index, folder, queries)
    asked = ask(index, folder, queries)
    sizes = {
        name: sum(int(getattr(v, name).nbytes) for v in index.volumes())
        for name in ("bucket", "post", "check", "peaks", "block", "descriptor")
    }
    resident: dict[str, int] = {}
    for path in volumes.rglob("*.bin"):
        resident[path.stem] = resident.get(path.stem, 0) + resident_bytes(path)
    private = private_bytes()
    indexed = [one for one in asked if one.query.kind != "negative"]
    absent = [one for one in asked if one.query.kind == "negative"]
    right = [one for one in indexed if one.given and one.verdict in {"hit", "repeat", "twin"}]
    plain = [
        one
        for one in indexed
        if one.query.condition in RE_ENCODED and one.query.length_s == PLAIN_S
    ]
    status = index.status()
    triples = status.triples / status.hours
    return {
        "hours": status.hours,
        "volumes": status.volumes,
        "triples_an_hour": triples,
        "bytes_an_hour": {name: size / status.hours for name, size in sizes.items()},
        "disk_bytes": sum(sizes.values()),
        "start_s": {"cold": cold_s, "warm": start_s},
        "latency_ms": {
            "plain": spread_ms(plain),
            "all": spread_ms(indexed),
            "unindexed": spread_ms(absent),
            "first pass": spread_ms(first),
        },
        "a_clip": {
            kind: {
                "probes": float(np.mean([one.probes for one in part] or [0])),
                "postings": float(np.mean([one.postings for one in part] or [0])),
            }
            for kind, part in (("plain", plain), ("all", indexed), ("unindexed", absent))
        },
        "clips": len(indexed),
        "recall_percent": 100.0 * len(right) / max(1, len(indexed)),
        "wrong": sum(one.given and one.verdict == "wrong" for one in indexed),
        "unindexed_clips": len(absent),
        "false": sum(one.given and one.verdict == "false" for one in absent),
        "memory_bytes": {
            "private": private,
            "resident": sum(resident.values()),
            "by_array": resident,
            "needed": private + sum(resident.values()),
            "hot": sum(size for name, size in sizes.items() if name != "descriptor"),
        },
    }


def measured_apart(volumes: Path, folder: Path, limit: int | None) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.scale", "--set", str(folder)]
    command += ["--measure", str(volumes)]
    command += [] if limit is None else ["--limit", str(limit)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def keep(growing: Growing, out: Path) -> None:
    """The volumes as they are, under another name, without a copy."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(
        growing.folder, out, copy_function=os.link, ignore=shutil.ignore_patterns("*.lock")
    )


def show(row: dict[str, Any]) -> str:
    """One size in a few lines."""
    ms, memory, clip = row["latency_ms"], row["memory_bytes"], row["a_clip"]
    lines = [
        f"{row['hours']:,.0f} h in {row['volumes']} volumes, "
        f"{row['disk_bytes'] / 1e9:.2f} GB on disk: "
        + ", ".join(f"{k} {v / 1e3:.0f}" for k, v in row["bytes_an_hour"].items())
        + " kB an hour",
        f"  start {row['start_s']['cold']:.2f} s cold, {row['start_s']['warm']:.2f} s warm; "
        f"memory {memory['needed'] / 1e9:.2f} GB ({memory['private'] / 1e9:.2f} own, "
        f"{memory['resident'] / 1e9:.2f} of volumes; hot at most {memory['hot'] / 1e9:.2f})",
        "  ms a clip, median / p95: "
        + ", ".join(f"{k} {v['median']:.1f} / {v['p95']:.1f}" for k, v in ms.items()),
        "  probes and postings read: "
        + ", ".join(f"{k} {v['probes']:,.0f}, {v['postings']:,.0f}" for k, v in clip.items()),
        f"  recall {row['recall_percent']:.1f} % of {row['clips']} clips, {row['wrong']} wrong; "
        f"{row['false']} false of {row['unindexed_clips']}",
    ]
    if "growth" in row:
        growth = row["growth"]
        lines.append(
            f"  growing {growth['hours_a_minute']:,.0f} h a minute "
            f"(tail {growth['apply_s_an_hour'] * 1e3:.1f}, sealing and merging "
            f"{growth['seal_s_an_hour'] * 1e3:.1f} ms an hour, of it "
            f"{growth['processor_s_an_hour'] * 1e3:.1f} of the processor; each hour written "
            f"{growth['written']:.1f} times)"
        )
    return "\n".join(lines)


def growth_row(spent: Spent) -> dict[str, float]:
    """What growing has cost so far, an hour of audio."""
    return {
        "hours_a_minute": spent.hours_a_minute,
        "apply_s_an_hour": spent.apply_s / spent.hours,
        "seal_s_an_hour": spent.seal_s / spent.hours,
        "processor_s_an_hour": spent.processor_s / spent.hours,
        "written": spent.written_hours / spent.hours,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True, dest="folder")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--hours", type=float, nargs="*", default=[8.0, 100.0])
    parser.add_argument("--plain-above", type=float, default=1000.0)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--measure", type=Path)
    parser.add_argument("--no-measure", action="store_true", help="only make the volumes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options.measure, options.folder, options.limit)))
        return 0
    if options.out is None:
        parser.error("--out is needed")
    warm()
    prints = fingerprints(options.folder)
    sources = [
        made
        for made, path in zip(prints, references(options.folder), strict=True)
        if not path.stem.startswith("speech")
    ]
    growing = Growing(options.out / "growing", prints, sources)
    print("real ", likeness(sources[::2], sources[1::2]))
    made = [make(prepare(sources), seed) for seed in range(45)]
    print("made ", likeness(made, sources[1::2]), flush=True)
    report = []
    for hours in sorted(options.hours):
        growing.grow(hours, options.plain_above)
        spent = growth_row(growing.spent)
        growing.settle()
        kept = options.out / f"{hours:g}"
        keep(growing, kept)
        if options.no_measure:
            print(f"{growing.index.status()} {spent}", flush=True)
            continue
        row = measured_apart(kept, options.folder, options.limit)
        row["growth"] = spent
        report.append(row)
        print(show(row), flush=True)
    growing.files.close()
    shutil.rmtree(growing.folder)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
