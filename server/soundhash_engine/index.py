"""The index in memory: sealed volumes, a live tail of small ones, and what is no longer valid.

Readers take a `Snapshot`, an immutable view that stays good however the index changes. Writers
build what is new beside it and swap; nobody waits for a search. The tail is pieces: each change
makes one, and equally large ones are merged, so a thousand small changes cost a thousand times one
change and a merge for each doubling.
"""

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.merging import newest
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.postings import LOCAL, Postings
from soundhash_engine.sealing import (
    SEAL_RATIO,
    Merge,
    State,
    add_piece,
    choose,
    hours,
    make_state,
    places,
    replace,
)
from soundhash_engine.types import Fingerprint
from soundhash_engine.volume import Volume, triple_params


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """An immutable view of the index: volumes and, for each, which of its recordings count.

    volumes   sealed ones in the order of their making, the tail last if there is one
    alive     bool, one array a volume, one element a recording
    hours     of audio that count
    postings  where the volumes' postings are asked for
    aside     so many volumes, the last ones, are searched beside the others: see `beside`
    hours_aside  of audio that count in those
    """

    volumes: tuple[Volume, ...]
    alive: tuple[NDArray[np.bool_], ...]
    hours: float
    postings: Postings = LOCAL
    aside: int = 0
    hours_aside: float = 0.0

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
        n = len(self.volumes) - self.aside
        return dataclasses.replace(
            rest,
            postings=self.postings,
            aside=self.aside,
            hours_aside=_hours(rest.volumes[n:], rest.alive[n:]),
        )

    def beside(self, other: "Snapshot") -> "Snapshot":
        """This view with another one, of other recordings, beside it.

        One search goes through both, and takes nothing from this one: places in either are
        counted and looked at by themselves, and the search goes on until what is found here
        convinces, whatever is found there.
        """
        if not other.volumes:
            return self
        return Snapshot(
            volumes=(*self.volumes, *other.volumes),
            alive=(*self.alive, *other.alive),
            hours=self.hours + other.hours,
            postings=self.postings,
            aside=self.aside + len(other.volumes),
            hours_aside=self.hours_aside + other.hours,
        )


def _hours(volumes: Sequence[Volume], alive: Sequence[NDArray[np.bool_]]) -> float:
    seconds = (
        float(volume.duration_s[mask].sum()) for volume, mask in zip(volumes, alive, strict=True)
    )
    return sum(seconds) / 3600.0


def _snapshot(volumes: tuple[Volume, ...], alive: tuple[NDArray[np.bool_], ...]) -> Snapshot:
    return Snapshot(volumes=volumes, alive=alive, hours=_hours(volumes, alive))


@dataclasses.dataclass(frozen=True, slots=True)
class IndexStatus:
    """Size of the index.

    recordings, hours   that count
    dead_recordings     still in a volume, no longer valid; gone after the next merge
    outdated_recordings in volumes whose triples were made with earlier search parameters
    volumes             sealed ones
    tail_recordings, tail_hours  not sealed yet
    triples, landmarks  postings and stored landmarks
    memory_bytes        of all arrays, memory-mapped ones included
    """

    recordings: int
    hours: float
    dead_recordings: int
    outdated_recordings: int
    volumes: int
    tail_recordings: int
    tail_hours: float
    triples: int
    landmarks: int
    memory_bytes: int


class Index:
    """Thread-safe collection of volumes with a live tail.

    A recording is known by its id. Adding an id again replaces the old one everywhere, unless
    the new revision is lower than the one that is there (a late message changes nothing). An id
    and a revision always mean the same content.
    """

    def __init__(self, params: Params = PARAMS) -> None:
        self._params = params
        self._write = threading.Lock()
        self._sealing = threading.Lock()
        self._state = State((), (), ())
        self._snapshot = _snapshot((), ())
        self._held: tuple[Volume, ...] = ()

    def load(self, volumes: Sequence[Volume]) -> None:
        """Replace everything by sealed volumes.

        Of an id in several of them the highest revision counts, of equal ones the last volume's.
        """
        with self._write:
            self._install(State(tuple(volumes), (), newest(volumes)))

    def adopt(self, volumes: Sequence[Volume]) -> dict[int, int]:
        """Replace the sealed volumes and leave what the index holds as it is.

        Rows that are valid count, in a sealed volume rather than in the tail; others are hidden
        until `revive` wants them. Returns id and revision of what is in none of the volumes and
        not in the tail: it is gone and must be applied again.
        """
        with self._write:
            state = self._state
            truth = np.concatenate(
                [np.empty((0, 2), np.int64), *(_pairs(v)[mask] for v, mask in state.rows())]
            )
            truth = truth[np.argsort(truth[:, 0])]
            # The last of equal rows counts: a sealed one.
            parts = (*state.pieces, *volumes)
            holder = np.full(len(truth), -1)
            holder_row = np.zeros(len(truth), np.int64)
            for at, volume in enumerate(parts):
                place, found = places(truth[:, 0], volume.recording_id)
                found[found] = truth[place[found], 1] == volume.revision[found]
                holder[place[found]] = at
                holder_row[place[found]] = np.flatnonzero(found)
            masks = []
            for at, volume in enumerate(parts):
                mask = np.zeros(len(volume.recording_id), np.bool_)
                mask[holder_row[holder == at]] = True
                masks.append(mask)
            n = len(state.pieces)
            self._install(State(tuple(volumes), state.pieces, (*masks[n:], *masks[:n])))
            lost = truth[holder < 0]
        return dict(zip(lost[:, 0].tolist(), lost[:, 1].tolist(), strict=True))

    def drop(self, volumes: Sequence[Volume]) -> dict[int, int]:
        """Do without some sealed volumes; id and revision of what counted in them and is gone."""
        with self._write:
            lost: dict[int, int] = {}
            kept = []
            n = len(self._state.volumes)
            rows = list(self._state.rows())
            for volume, mask in rows[:n]:
                if any(volume is one for one in volumes):
                    ids, revisions = volume.recording_id[mask], volume.revision[mask]
                    lost |= zip(ids.tolist(), revisions.tolist(), strict=True)
                else:
                    kept.append((volume, mask))
            self._install(make_state(kept, rows[n:]))
        return lost

    def revive(self, wanted: Mapping[int, int]) -> set[int]:
        """Let recordings count again that lie hidden in a sealed volume.

        ``wanted``: revision by id. Returns the ids that count now in this revision; the others
        have to be applied.
        """
        with self._write:
            state = self._state
            there: set[int] = set()
            for recording_id, revision in wanted.items():
                for at, volume in enumerate(state.volumes):
                    row = volume.row_of(recording_id)
                    if row is None or volume.revision[row] != revision:
                        continue
                    if not state.alive[at][row]:
                        state = state.without([recording_id])
                        mask = state.alive[at].copy()
                        mask[row] = True
                        alive = (*state.alive[:at], mask, *state.alive[at + 1 :])
                        state = dataclasses.replace(state, alive=alive)
                    there.add(recording_id)
                    break
            self._install(state)
        return there

    def apply(
        self,
        added: Sequence[tuple[int, int, Fingerprint]] = (),
        removed: Iterable[int] = (),
    ) -> None:
        """Remove recordings, then add others given as (id, revision, fingerprint), at once."""
        with self._write:
            self._apply(added, removed)

    def remove(self, recording_ids: Iterable[int]) -> None:
        """Hide recordings at once."""
        self.apply((), recording_ids)

    def renew(self, hours: float) -> int:
        """Make about so many hours of what is outdated anew, as part of the tail.

        For volumes whose triples were made with other search parameters: they answer meanwhile,
        and vanish when nothing in them counts any more. Returns the number of recordings.
        """
        keys = triple_params(self._params.search)
        items: list[tuple[int, int, Fingerprint]] = []
        with self._write:
            for volume, alive in self._state.rows():
                if triple_params(volume.search) == keys:
                    continue
                for row in np.flatnonzero(alive).tolist():
                    if hours <= 0.0:
                        break
                    made = volume.fingerprint(row)
                    hours -= made.duration_s / 3600.0
                    items.append((int(volume.recording_id[row]), int(volume.revision[row]), made))
            self._apply(items, ())
        return len(items)

    def snapshot(self) -> Snapshot:
        """The index as it is now."""
        return self._snapshot

    def volumes(self) -> tuple[Volume, ...]:
        """The sealed volumes."""
        return self._state.volumes

    def seal(
        self,
        write: Callable[[Merge], Volume] = Merge.in_memory,
        *,
        ratio: float = SEAL_RATIO,
        full: bool = False,
    ) -> Volume | None:
        """Merge the tail, and volumes that are small or mostly dead, into one sealed volume.

        ``write``: makes the volume, in a file for example, and returns it. ``ratio``: every volume
        smaller than this times what is merged already is merged too. ``full``: everything that
        fits one volume. Returns the new volume, already in its place, or None if there was nothing
        to do or nothing is left. Searches and changes go on meanwhile.
        """
        with self._sealing:
            with self._write:
                chosen = choose(self._state, self._params, ratio=ratio, full=full)
                if not chosen:
                    return None
                # Changes leave these pieces where they are.
                self._held = tuple(volume for volume, _ in chosen)
            try:
                sources = [(volume, mask) for volume, mask in chosen if mask.any()]
                merged = None
                if sources:
                    merged = write(
                        Merge(
                            tuple(volume for volume, _ in sources),
                            tuple(mask for _, mask in sources),
                            self._params,
                        )
                    )
                with self._write:
                    self._install(replace(self._state, chosen, merged))
            finally:
                self._held = ()
            return merged

    def status(self) -> IndexStatus:
        """Counts and sizes."""
        state, snapshot = self._state, self._snapshot
        keys = triple_params(self._params.search)
        tail = list(state.rows())[len(state.volumes) :]
        return IndexStatus(
            recordings=snapshot.recordings,
            hours=snapshot.hours,
            dead_recordings=sum(int(np.count_nonzero(~mask)) for mask in state.alive),
            outdated_recordings=sum(
                int(np.count_nonzero(mask))
                for volume, mask in state.rows()
                if triple_params(volume.search) != keys
            ),
            volumes=len(state.volumes),
            tail_recordings=sum(int(np.count_nonzero(mask)) for _, mask in tail),
            tail_hours=sum(hours(*one) for one in tail),
            triples=sum(v.triples for v in state.parts),
            landmarks=sum(len(v.peaks) for v in state.parts),
            memory_bytes=sum(v.nbytes for v in state.parts),
        )

    def _apply(self, added: Sequence[tuple[int, int, Fingerprint]], removed: Iterable[int]) -> None:
        gone = set(removed)
        new = [item for item in added if item[0] in gone or not self._has_newer(*item[:2])]
        replaced = gone | {item[0] for item in new}
        if not replaced:
            return
        state = self._state.without(replaced)
        if new:
            piece = Volume.build(new, self._params)
            state = add_piece(state, piece, self._params, self._held)
        self._install(state)

    def _install(self, state: State) -> None:
        """Swap in a new state; the caller holds the write lock."""
        # A piece with nothing left is dropped at once; a volume when something is merged.
        n = len(state.volumes)
        rows = list(state.rows())
        self._state = make_state(rows[:n], [one for one in rows[n:] if one[1].any()])
        self._snapshot = _snapshot(self._state.parts, self._state.alive)

    def _has_newer(self, recording_id: int, revision: int) -> bool:
        """Whether a higher revision of a recording counts."""
        place = self._snapshot.find(recording_id)
        return place is not None and int(place[0].revision[place[1]]) > revision


def _pairs(volume: Volume) -> NDArray[np.int64]:
    """(id, revision) of a volume's recordings."""
    return np.stack([volume.recording_id, volume.revision], axis=1)
