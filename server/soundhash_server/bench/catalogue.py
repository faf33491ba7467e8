"""A throw-away index on disk that grows from size to size."""

import dataclasses
import itertools
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from soundhash_engine import Fingerprint, Index, Snapshot, Volume
from soundhash_engine.merging import merge, newest
from soundhash_server.bench.filler import make, prepare
from soundhash_server.store import volumes

PIECE_HOURS = 20.0
"""So much is indexed in memory at once; pieces are merged on disk."""
FIRST_ID = 1 << 40
"""Beyond every id that a database gives."""
DISK_BYTES_AN_HOUR = 3_000_000
"""About what an hour takes; while merging, twice that is needed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Growth:
    """What it took to grow the index.

    hours        of audio in it now
    added_hours  of them new
    index_s      seconds of one core to index, write and merge what is new
    index_bytes  of triples and landmarks: what searches read
    disk_bytes   of everything
    """

    hours: float
    added_hours: float
    index_s: float
    index_bytes: int
    disk_bytes: int

    @property
    def hours_a_minute(self) -> float:
        """Speed of one core."""
        return 60.0 * self.added_hours / max(self.index_s, 1e-9)


class Catalogue:
    """Recordings, numbered from FIRST_ID on, and as much made-up music as is asked for.

    ``base``: volumes that are searched too, and stay as they are.
    """

    def __init__(
        self, folder: Path, recordings: Sequence[Fingerprint], base: Sequence[Volume] = ()
    ) -> None:
        self._folder = folder
        self._recordings = recordings
        self._base = base
        self._sources = prepare(recordings)
        self._made = 0
        self._volumes: list[tuple[Path, Volume]] = []
        self._numbers = itertools.count()
        self._index = Index()

    @property
    def hours(self) -> float:
        """Hours of audio in the index."""
        volumes = [*self._base, *(volume for _, volume in self._volumes)]
        return sum(volume.hours for volume in volumes)

    def snapshot(self) -> Snapshot:
        """The index as it is."""
        return self._index.snapshot()

    def grow(self, hours: float, progress: Callable[[float], None] = lambda _: None) -> Growth:
        """Fill up to ``hours``, and merge to one volume; the recordings are always in.

        ``progress``: is told the hours so far. Raises OSError.
        """
        before = self.hours
        index_s = 0.0
        if not self._volumes:
            index_s += self._add(list(enumerate(self._recordings, FIRST_ID)))
        while self.hours < hours:
            piece: list[tuple[int, Fingerprint]] = []
            seconds = 0.0
            while seconds < 3600.0 * min(PIECE_HOURS, hours - self.hours):
                made = make(self._sources, self._made)
                piece.append((FIRST_ID + len(self._recordings) + self._made, made))
                self._made += 1
                seconds += made.duration_s
            index_s += self._add(piece)
            progress(self.hours)
        index_s += self._merge()
        held = [*self._base, *(volume for _, volume in self._volumes)]
        self._index.load(held)
        return Growth(
            hours=self.hours,
            added_hours=self.hours - before,
            index_s=index_s,
            index_bytes=sum(volume.nbytes - volume.descriptor.nbytes for volume in held),
            disk_bytes=sum(volume.nbytes for volume in held),
        )

    def _add(self, piece: Sequence[tuple[int, Fingerprint]]) -> float:
        begun = time.perf_counter()
        volume = Volume.build([(number, 1, made) for number, made in piece])
        path = self._folder / f"v{next(self._numbers)}"
        volumes.save(path, volume.meta(), volume.arrays())
        self._volumes.append((path, _open(path)))
        return time.perf_counter() - begun

    def _merge(self) -> float:
        if len(self._volumes) == 1:
            return 0.0
        begun = time.perf_counter()
        sources = [volume for _, volume in self._volumes]
        path = self._folder / f"v{next(self._numbers)}"
        with volumes.VolumeWriter(path) as writer:
            writer.finish(merge(sources, newest(sources), writer))
        for old, _ in self._volumes:
            shutil.rmtree(old)
        self._volumes = [(path, _open(path))]
        return time.perf_counter() - begun


def open_volumes(folder: Path) -> list[Volume]:
    """The index of a platform, as it lies on disk, to be read alone.

    What was deleted since its volumes were written is still in them, and what is not written yet
    is not there. Raises VolumeDamaged, EngineError.
    """
    return [_open(path) for path in sorted(folder.glob("v*"))]


def _open(path: Path) -> Volume:
    meta, arrays = volumes.open(path)
    return Volume.from_arrays(meta, arrays)
