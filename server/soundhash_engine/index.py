"""The index in memory: sealed volumes, a small live tail, and what is no longer valid.

Readers take a `Snapshot`, an immutable view that stays good however the index changes. Writers
build what is new beside it and swap; nobody waits for a search.
"""

import dataclasses
import threading
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.params import PARAMS, Params
from soundhash_engine.postings import LOCAL, Postings
from soundhash_engine.types import Fingerprint
from soundhash_engine.volume import Volume

SEAL_RATIO = 2.0
"""Sealing also merges every volume that is smaller than this times what is being sealed."""
DEAD_SHARE = 0.25
"""... and every volume of which more than this share is no longer valid."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """An immutable view of the index: volumes and, for each, which of its recordings count.

    volumes   sealed ones in the order of their making, the tail last if there is one
    alive     bool, one array a volume, one element a recording
    hours     of audio that count
    postings  where the volumes' postings are asked for
    """

    volumes: tuple[Volume, ...]
    alive: tuple[NDArray[np.bool_], ...]
    hours: float
    postings: Postings = LOCAL

    @property
    def recordings(self) -> int:
        """Number of recordings that count."""
        return sum(int(np.count_nonzero(alive)) for alive in self.alive)

    def find(self, recording_id: int) -> tuple[Volume, int] | None:
        """The volume and the row of a recording, or None."""
        for volume, alive in zip(self.volumes, self.alive, strict=True):
            row = volume.row_of(recording_id)
            if row is not None and alive[row]:
                return volume, row
        return None

    def without(self, recording_ids: Iterable[int]) -> "Snapshot":
        """The same view with some recordings left out."""
        ids = np.array(sorted(recording_ids), np.int64)
        rest = _snapshot(
            self.volumes,
            tuple(
                alive & ~np.isin(volume.recording_id, ids)
                for volume, alive in zip(self.volumes, self.alive, strict=True)
            ),
        )
        return dataclasses.replace(rest, postings=self.postings)


def _snapshot(volumes: tuple[Volume, ...], alive: tuple[NDArray[np.bool_], ...]) -> Snapshot:
    seconds = sum(
        float(volume.duration_s[mask].sum()) for volume, mask in zip(volumes, alive, strict=True)
    )
    return Snapshot(volumes=volumes, alive=alive, hours=seconds / 3600.0)


@dataclasses.dataclass(frozen=True, slots=True)
class IndexStatus:
    """Size of the index.

    recordings, hours   that count
    dead_recordings     still in a volume, no longer valid; gone after the next merge
    volumes             sealed ones
    tail_recordings, tail_hours  not sealed yet
    triples, landmarks  postings and stored landmarks
    memory_bytes        of all arrays, memory-mapped ones included
    """

    recordings: int
    hours: float
    dead_recordings: int
    volumes: int
    tail_recordings: int
    tail_hours: float
    triples: int
    landmarks: int
    memory_bytes: int


class Index:
    """Thread-safe collection of volumes with a live tail.

    A recording is known by its id. Adding an id again replaces the old one everywhere, unless
    the new revision is lower than the one that is there (a late message changes nothing).
    """

    def __init__(self, params: Params = PARAMS) -> None:
        self._params = params
        self._write = threading.Lock()
        self._sealing = threading.Lock()
        self._volumes: tuple[Volume, ...] = ()
        self._alive: tuple[NDArray[np.bool_], ...] = ()
        self._tail: Volume | None = None
        self._snapshot = _snapshot((), ())

    def load(self, volumes: Sequence[Volume]) -> None:
        """Replace everything by sealed volumes.

        Of an id in several of them the highest revision counts, of equal ones the last volume's.
        """
        best: dict[int, tuple[int, int]] = {}
        for at, volume in enumerate(volumes):
            for recording_id, revision in zip(
                volume.recording_id.tolist(), volume.revision.tolist(), strict=True
            ):
                best[recording_id] = max(best.get(recording_id, (revision, at)), (revision, at))
        alive = tuple(
            np.array([best[i][1] == at for i in volume.recording_id.tolist()], np.bool_)
            for at, volume in enumerate(volumes)
        )
        with self._write:
            self._install(tuple(volumes), alive, None)

    def apply(
        self,
        added: Sequence[tuple[int, int, Fingerprint]] = (),
        removed: Iterable[int] = (),
    ) -> None:
        """Remove recordings, then add others given as (id, revision, fingerprint), at once.

        Only the tail is built again.
        """
        with self._write:
            gone = set(removed)
            known = self._revisions() if added else {}
            new = [
                item for item in added if item[0] in gone or item[1] >= known.get(item[0], item[1])
            ]
            replaced = gone | {item[0] for item in new}
            if not replaced:
                return
            tail = Volume.build(new, self._params)
            if self._tail is not None:
                own = tail.row_of
                tail = Volume.merge(
                    [self._tail, tail],
                    lambda i, _: i not in replaced or own(i) is not None,
                    self._params,
                )
            self._install(self._volumes, self._without(replaced), tail)

    def remove(self, recording_ids: Iterable[int]) -> None:
        """Hide recordings at once."""
        self.apply((), recording_ids)

    def snapshot(self) -> Snapshot:
        """The index as it is now."""
        return self._snapshot

    def seal(self, *, full: bool = False) -> Volume | None:
        """Merge the tail, and volumes that are small or mostly dead, into one sealed volume.

        ``full``: merge everything. Returns the new volume, which is already installed (persist it,
        then drop what is no longer in ``snapshot().volumes``), or None if there was nothing to do.
        Searches and changes go on meanwhile.
        """
        with self._sealing:
            with self._write:
                tail, volumes, alive = self._tail, self._volumes, self._alive
            chosen = _choose(tail, volumes, alive, full)
            if tail is None and not any(chosen):
                return None
            sources = [v for v, merge in zip(volumes, chosen, strict=True) if merge]
            valid = {
                pair
                for v, mask, merge in zip(volumes, alive, chosen, strict=True)
                if merge
                for pair in _pairs(v, mask)
            }
            if tail is not None:
                sources.append(tail)
                valid.update(_pairs(tail))
            merged = Volume.merge(sources, lambda i, r: (i, r) in valid, self._params)
            with self._write:
                # What was changed while the merge ran counts where it is now, not in the result.
                now = self._revisions()
                mask = np.array([now.get(i) == r for i, r in _pairs(merged)], np.bool_)
                if self._tail is not None:
                    moved = set(merged.recording_id[mask].tolist())
                    tail = Volume.merge([self._tail], lambda i, _: i not in moved, self._params)
                kept = [
                    (v, a)
                    for v, a in zip(self._volumes, self._alive, strict=True)
                    if not any(v is source for source in sources)
                ]
                kept.append((merged, mask))
                self._install(tuple(v for v, _ in kept), tuple(a for _, a in kept), tail)
            return merged

    def exchange(self, old: Volume, new: Volume) -> bool:
        """Put an equal volume in the place of a sealed one, its memory-mapped copy for example.

        Returns whether ``old`` was there.
        """
        with self._write:
            if not any(v is old for v in self._volumes):
                return False
            volumes = tuple(new if v is old else v for v in self._volumes)
            self._install(volumes, self._alive, self._tail)
            return True

    def status(self) -> IndexStatus:
        """Counts and sizes."""
        with self._write:
            tail, volumes, snapshot = self._tail, self._volumes, self._snapshot
        return IndexStatus(
            recordings=snapshot.recordings,
            hours=snapshot.hours,
            dead_recordings=sum(int(np.count_nonzero(~alive)) for alive in snapshot.alive),
            volumes=len(volumes),
            tail_recordings=0 if tail is None else len(tail.recording_id),
            tail_hours=0.0 if tail is None else tail.hours,
            triples=sum(v.triples for v in snapshot.volumes),
            landmarks=sum(len(v.peaks) for v in snapshot.volumes),
            memory_bytes=sum(v.nbytes for v in snapshot.volumes),
        )

    def _install(
        self,
        volumes: tuple[Volume, ...],
        alive: tuple[NDArray[np.bool_], ...],
        tail: Volume | None,
    ) -> None:
        """Swap in a new state; the caller holds the write lock."""
        if tail is not None and not len(tail.recording_id):
            tail = None
        self._volumes, self._alive, self._tail = volumes, alive, tail
        if tail is not None:
            volumes = (*volumes, tail)
            alive = (*alive, np.ones(len(tail.recording_id), np.bool_))
        self._snapshot = _snapshot(volumes, alive)

    def _revisions(self) -> dict[int, int]:
        """Revision of every recording that counts."""
        return {
            recording_id: revision
            for volume, alive in zip(self._snapshot.volumes, self._snapshot.alive, strict=True)
            for recording_id, revision in _pairs(volume, alive)
        }

    def _without(self, ids: Iterable[int]) -> tuple[NDArray[np.bool_], ...]:
        gone = np.array(sorted(ids), np.int64)
        return tuple(
            alive & ~np.isin(volume.recording_id, gone)
            for volume, alive in zip(self._volumes, self._alive, strict=True)
        )


def _pairs(volume: Volume, mask: NDArray[np.bool_] | None = None) -> list[tuple[int, int]]:
    """(id, revision) of a volume's recordings."""
    ids, revisions = volume.recording_id, volume.revision
    if mask is not None:
        ids, revisions = ids[mask], revisions[mask]
    return list(zip(ids.tolist(), revisions.tolist(), strict=True))


def _choose(
    tail: Volume | None,
    volumes: Sequence[Volume],
    alive: Sequence[NDArray[np.bool_]],
    full: bool,
) -> list[bool]:
    """Which volumes to merge: each volume costs every search its probes, so few may be small."""
    if full:
        return [tail is not None or len(volumes) > 1 or not mask.all() for mask in alive]
    chosen = [bool(np.count_nonzero(~mask) > DEAD_SHARE * mask.size) for mask in alive]
    hours = 0.0 if tail is None else tail.hours
    hours += sum(v.hours for v, merge in zip(volumes, chosen, strict=True) if merge)
    # From the smallest on, so that what is merged already counts for the next.
    for at in sorted(range(len(volumes)), key=lambda i: volumes[i].hours):
        if not chosen[at] and hours > 0.0 and volumes[at].hours < SEAL_RATIO * hours:
            chosen[at] = True
            hours += volumes[at].hours
    return chosen
