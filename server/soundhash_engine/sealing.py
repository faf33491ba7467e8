"""What the index is made of, and which of it is merged when."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.merging import Collected, Sink, merge
from soundhash_engine.params import Params
from soundhash_engine.volume import Volume, triple_params

SEAL_RATIO = 1.5
"""Sealing also merges every volume that is smaller than this times what is merged already: volumes
double, so an hour of audio is written about log2(catalogue / tail) times."""
PIECE_RATIO = 2.0
"""The same for the pieces of the live tail."""
DEAD_SHARE = 0.25
"""Sealing also merges every volume of which more than this share is no longer valid."""
MOST_HOURS = 12_000.0
"""No merge makes a volume longer than this: a time line has room for 19,000 h."""


Rows = tuple[Volume, NDArray[np.bool_]]
"""A volume and which of its recordings count."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Merge:
    """What is to become one sealed volume: rows of several that are alive."""

    volumes: tuple[Volume, ...]
    alive: tuple[NDArray[np.bool_], ...]
    params: Params

    def into(self, sink: Sink) -> dict[str, Any]:
        """Write the volume's arrays; returns its meta."""
        return merge(self.volumes, self.alive, sink, self.params)

    def in_memory(self) -> Volume:
        """The volume, held in memory."""
        collected = Collected()
        meta = self.into(collected)
        return Volume.from_arrays(meta, collected.arrays(), self.params)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class State:
    """Sealed volumes and the tail's pieces, each with its rows that count."""

    volumes: tuple[Volume, ...]
    pieces: tuple[Volume, ...]
    alive: tuple[NDArray[np.bool_], ...]

    @property
    def parts(self) -> tuple[Volume, ...]:
        return (*self.volumes, *self.pieces)

    def rows(self) -> Iterator[tuple[Volume, NDArray[np.bool_]]]:
        return zip(self.parts, self.alive, strict=True)

    def mask(self, volume: Volume) -> NDArray[np.bool_]:
        """Rows of a volume that count; none when it is no longer here."""
        for part, alive in self.rows():
            if part is volume:
                return alive
        return np.zeros(len(volume.recording_id), np.bool_)

    def without(self, ids: Iterable[int]) -> "State":
        """The same with recordings hidden. Only what holds one of them is copied."""
        gone = np.array(sorted(ids), np.int64)
        if not len(gone):
            return self
        alive = []
        for volume, mask in self.rows():
            place, found = places(volume.recording_id, gone)
            hit = place[found]
            if mask[hit].any():
                mask = mask.copy()  # noqa: PLW2901 - the old one stays good in snapshots
                mask[hit] = False
            alive.append(mask)
        return dataclasses.replace(self, alive=tuple(alive))


def choose(state: State, params: Params, *, ratio: float, full: bool) -> list[Rows]:
    """What to merge into one volume: each costs every search its probes, so few may be small.

    All of the tail; volumes that are mostly dead; volumes smaller than ``ratio`` times what is
    merged already (without a tail: than the smallest), or, if ``full``, all. Volumes of other
    search parameters cannot be merged: they are chosen when nothing in them counts any more.
    Nothing if that would change nothing.
    """
    n = len(state.volumes)
    rows = list(state.rows())
    chosen, rest = rows[n:], []
    keys = triple_params(params.search)
    for volume, mask in rows[:n]:
        dead = int(np.count_nonzero(~mask))
        if triple_params(volume.search) != keys:
            if dead == mask.size:
                chosen.append((volume, mask))
        elif full or dead > DEAD_SHARE * mask.size or not mask.size:
            chosen.append((volume, mask))
        else:
            rest.append((volume, mask))
    rest.sort(key=lambda one: one[0].hours)
    seeded = not chosen and len(rest) > 1
    if seeded:
        # Nothing has to be merged: what is smallest begins.
        chosen.append(rest.pop(0))
    total = sum(hours(*one) for one in chosen)
    # From the smallest on, so that what is merged already counts for the next.
    for volume, mask in rest:
        if 0.0 < volume.hours < ratio * total and total + volume.hours <= MOST_HOURS:
            chosen.append((volume, mask))
            total += hours(volume, mask)
    while len(chosen) > 1 and total > MOST_HOURS:
        largest = max(chosen, key=lambda one: one[0].hours)
        chosen = [one for one in chosen if one is not largest]
        total -= hours(*largest)
    whole = n == len(rows) and bool(chosen) and chosen[0][1].size and chosen[0][1].all()
    return [] if len(chosen) == 1 and (seeded or whole) else chosen


def replace(state: State, chosen: Sequence[Rows], merged: Volume | None) -> State:
    """The state with a merged volume in the place of what it was made of."""
    kept = [
        (volume, alive)
        for volume, alive in state.rows()
        if not any(volume is source for source, _ in chosen)
    ]
    n = sum(any(volume is own for own in state.volumes) for volume, _ in kept)
    volumes, pieces = kept[:n], kept[n:]
    if merged is not None:
        mask = np.zeros(len(merged.recording_id), np.bool_)
        for volume, before in chosen:
            # What was changed while the merge ran counts where it is now, not in the result.
            rows = np.flatnonzero(before)
            place = np.searchsorted(merged.recording_id, volume.recording_id[rows])
            mask[place] = state.mask(volume)[rows]
        volumes.append((merged, mask))
    return make_state(volumes, pieces)


def make_state(volumes: Sequence[Rows], pieces: Sequence[Rows]) -> State:
    """A state of sealed volumes and pieces of the tail."""
    return State(
        tuple(volume for volume, _ in volumes),
        tuple(piece for piece, _ in pieces),
        tuple(mask for _, mask in (*volumes, *pieces)),
    )


def add_piece(state: State, piece: Volume, params: Params, held: Sequence[Volume]) -> State:
    """A piece of the tail more, merged with those that are not much larger, but for ``held``."""
    n = len(state.volumes)
    rows = list(state.rows())
    pieces = rows[n:]
    joined: list[Rows] = [(piece, np.ones(len(piece.recording_id), np.bool_))]
    total = piece.hours
    for old in sorted(pieces, key=lambda one: one[0].hours):
        free = not any(old[0] is volume for volume in held)
        if free and old[0].hours < PIECE_RATIO * total:
            joined.append(old)
            total += old[0].hours
    if len(joined) > 1:
        merged = Merge(
            tuple(volume for volume, _ in joined), tuple(mask for _, mask in joined), params
        ).in_memory()
        pieces = [old for old in pieces if not any(old[0] is volume for volume, _ in joined)]
        joined = [(merged, np.ones(len(merged.recording_id), np.bool_))]
    return make_state(rows[:n], [*pieces, *joined])


def hours(volume: Volume, mask: NDArray[np.bool_]) -> float:
    """Hours of a volume's rows."""
    return float(volume.duration_s[mask].sum()) / 3600.0


def places(
    among: NDArray[np.int64], ids: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Where each of some ids is among rising ones, and whether it is there."""
    place = np.searchsorted(among, ids)
    found = np.zeros(len(ids), np.bool_)
    inside = place < len(among)
    found[inside] = among[place[inside]] == ids[inside]
    return place, found
