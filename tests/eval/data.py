"""An evaluation set on disk: references, negatives and queries with their truth."""

import csv
import dataclasses
import hashlib
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundhash_engine import Extractor, Fingerprint, decode_file, join
from soundhash_engine.index import Index
from soundhash_engine.spectrum import log_bands
from tests.eval.degrade import CONDITIONS

OFFSET_TOLERANCE_S = 0.5
MADE_UP = "(made up)"
"""Name of every recording that only fills a catalogue up."""
SAME_SOUND = 0.9
SHARED_SOUND = 0.7
"""Other mixes and versions of one piece come to this; of 1,500 pairs of unrelated places of games'
music the best came to 0.69, one in a hundred to 0.28."""


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """A clip and what is true of it.

    kind      music, speech or negative (not indexed)
    track     file name of the recording without its ending; empty for a negative
    offset_s  seconds of the recording at the clip's start
    speed     tempo factor
    pitch     frequency factor
    source    recording that the clip was cut from, indexed or not; empty if the set does not say
    source_offset_s  where in it
    """

    path: Path
    condition: str
    length_s: float
    kind: str
    track: str
    offset_s: float
    speed: float
    pitch: float = 1.0
    source: str = ""
    source_offset_s: float = 0.0

    @property
    def family(self) -> str:
        """Of the condition, for tables."""
        known = CONDITIONS.get(self.condition)
        return known.family if known else self.condition

    @property
    def prepared(self) -> bool:
        """Whether the engine was tuned on clips of this condition."""
        known = CONDITIONS.get(self.condition)
        return bool(known and known.prepared)


def _query(folder: Path, row: dict[str, str]) -> Query:
    known = CONDITIONS.get(row["condition"])
    return Query(
        path=folder / "queries" / row["file"],
        condition=row["condition"],
        length_s=float(row["length"]),
        kind=row["kind"],
        track=row["track"],
        offset_s=float(row["offset"] or 0.0),
        speed=float(row["speed"]),
        pitch=float(row.get("pitch") or (known.pitch if known else 1.0)),
        source=row.get("source") or row["track"],
        source_offset_s=float(row.get("source_offset") or row["offset"] or 0.0),
    )


def read_queries(folder: Path, limit: int | None = None) -> list[Query]:
    """The queries of a set; with ``limit`` about as many, evenly from every condition and length.

    Raises FileNotFoundError without ``queries.csv``.
    """
    with (folder / "queries.csv").open(newline="") as file:
        queries = [_query(folder, row) for row in csv.DictReader(file)]
    if limit is None or limit >= len(queries):
        return queries
    cells: dict[tuple[str, float, str], list[Query]] = defaultdict(list)
    for query in queries:
        cells[query.condition, query.length_s, query.kind].append(query)
    chosen: list[Query] = []
    for cell in cells.values():
        count = max(1, round(limit * len(cell) / len(queries)))
        chosen += [cell[i] for i in np.linspace(0, len(cell) - 1, count).astype(int)]
    return chosen


def digest(folder: Path) -> str:
    """What tells one set from another: twelve hex digits of the list of its clips."""
    return hashlib.sha256((folder / "queries.csv").read_bytes()).hexdigest()[:12]


def read_pcm(path: Path) -> NDArray[np.float32]:
    """A file as mono 8 kHz audio."""
    return np.concatenate([np.empty(0, np.float32), *decode_file(path)])


def fingerprint(path: Path) -> Fingerprint:
    """A file's fingerprint, decoded chunk by chunk."""
    extractor = Extractor()
    segments = [segment for chunk in decode_file(path) for segment in extractor.push(chunk)]
    return join([*segments, *extractor.finish()])


def fingerprints(
    folder: Path, least_s: float = 25.0
) -> tuple[list[tuple[int, int, Fingerprint]], dict[int, str]]:
    """Recordings of a folder that are long enough, as `Index.apply` takes them; names by id."""
    items = []
    names = {}
    for number, path in enumerate(sorted(folder.glob("*.wav"))):
        made = fingerprint(path)
        if made.duration_s >= least_s:
            items.append((number, 1, made))
            names[number] = path.stem
    return items, names


def index_folder(folder: Path, least_s: float = 25.0) -> tuple[Index, dict[int, str]]:
    """An index of all recordings of a folder that are long enough, and their names by id."""
    items, names = fingerprints(folder, least_s)
    index = Index()
    index.apply(items)
    index.seal()
    return index, names


TWINS = Path(__file__).with_name("twins.txt")


def read_twins(folder: Path) -> dict[str, set[str]]:
    """Each recording's other versions: of the list beside this module, and of a set's own."""
    twins: dict[str, set[str]] = defaultdict(set)
    for path in (TWINS, folder / TWINS.name):
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            if line and not line.startswith("#"):
                first, second = line.split()
                twins[first].add(second)
                twins[second].add(first)
    return twins


class Repeats:
    """Whether two places sound the same: loops and reused passages have no single right place.

    Measured on the recordings themselves, by nothing that the engine answers.
    """

    def __init__(self, folder: Path) -> None:
        """``folder``: the indexed recordings; those left out are in ``negatives`` beside it."""
        self._folders = (folder, folder.parent / "negatives")
        self.twins = read_twins(folder.parent)
        self._levels: dict[str, NDArray[np.float32]] = {}

    def _of(self, track: str) -> NDArray[np.float32] | None:
        levels = self._levels.get(track)
        if levels is None:
            paths = [folder / f"{track}.wav" for folder in self._folders]
            path = next((path for path in paths if path.exists()), None)
            if path is None:
                return None
            fine = log_bands(read_pcm(path)).astype(np.float32)
            levels = fine[:, :162].reshape(len(fine), 27, 6).mean(axis=2)
            # Only a few recordings at a time: a long one has tens of megabytes.
            if len(self._levels) >= 8:
                self._levels.pop(next(iter(self._levels)))
            self._levels[track] = levels
        return levels

    def same_sound(self, track: str, first_s: float, second_s: float, length_s: float) -> bool:
        """Whether a recording sounds the same at two offsets."""
        return self.alike(track, first_s, track, second_s, length_s)

    def alike(
        self,
        first: str,
        first_s: float,
        second: str,
        second_s: float,
        length_s: float,
        least: float = SAME_SOUND,
    ) -> bool:
        """Log levels of 27 bands correlate by ``least``, the offset off by up to 0.3 s."""
        left, right = self._of(first), self._of(second)
        if left is None or right is None:
            return False
        n = round(length_s * 62.5)
        at = round(first_s * 62.5)
        here = left[max(0, at) : at + n]
        here = here - here.mean(axis=0)
        best = -1.0
        for shift in range(-19, 20):
            there_at = round(second_s * 62.5) + shift
            there = right[max(0, there_at) : there_at + n]
            if there_at < 0 or at < 0 or there.shape != here.shape:
                continue
            there = there - there.mean(axis=0)
            norm = float(np.sqrt((here * here).sum() * (there * there).sum()))
            best = max(best, float((here * there).sum()) / max(norm, 1e-9))
        return best >= least
