"""Which places of a catalogue share keys: sorted keys, joined with themselves.

Recordings lie on one time line in the order of their ids. Keys go to files by their upper bits
(as many files as keep one in memory at a time); each is sorted, and the places of a key that
belong to different recordings are paired. What keeps the work in proportion to the catalogue:

- a place is paired with places of the next `MOST_PARTNERS` recordings that have its key, however
  many there are (a jingle in all of them), so every pair of up to that many is seen;
- with `MOST_EACH` places of each of these, and of a recording that repeats a key (a loop, a steady
  tone) at most `MOST_REPEATS` places take part;
- pairs that are alone are dropped before they are kept: a table of small counters knows how many
  fall into the same minute of both recordings.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.duplicate_keys import (
    FEW_TARGETS,
    MANY_TARGETS,
    MANY_TARGETS_HOURS,
    Change,
    change_keys,
)
from soundhash_engine.index import Snapshot
from soundhash_engine.jit import kernel
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.volume import Volume

MOST_PARTNERS = 12
MOST_PARTNERS_OF_CHOSEN = 1000
"""Where some recordings are chosen, each of them has so many partners, divided by their number."""
MOST_EACH = 4
MOST_REPEATS = 64
LEAST_VOTES = 3
"""Pairs of keys that make a line."""
KEYS_AN_HOUR = 55_000
PART_KEYS = 1 << 22
"""About so many keys are sorted at a time: 32 MB."""
BATCH_KEYS = 1 << 20
"""So many keys are collected before they go to the files."""
MINUTE_BITS = 12
"""Counted pairs fall into squares of 4,096 frames (66 s)."""
MOST_COUNTERS = 1 << 28
LEAST_COUNTERS = 1 << 20
SCALE_BITS = 8
GAP_FRAMES = 1 << MINUTE_BITS
_ROOM = 1 << 18
_PIECE = 1 << 20
_MOST_STEPS = {Change.SPEED: 26, Change.TEMPO: 14, Change.PITCH: 9}


@dataclass(frozen=True, slots=True, eq=False)
class TimeLine:
    """All recordings that count, one after the other in the order of their ids.

    recording_id, base, n_frames  int64, a row a recording; ``base``: its first frame on the line
    volume, row                   where its fingerprint is
    """

    recording_id: NDArray[np.int64]
    base: NDArray[np.int64]
    n_frames: NDArray[np.int64]
    volume: NDArray[np.int32]
    row: NDArray[np.int64]
    volumes: tuple[Volume, ...]
    seconds: float

    def __len__(self) -> int:
        return self.recording_id.size

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """Of a snapshot's recordings that count."""
        at = [np.flatnonzero(alive) for alive in snapshot.alive]
        volumes = snapshot.volumes
        empty = np.empty(0, np.int64)
        ids = np.concatenate(
            [empty, *(v.recording_id[rows] for v, rows in zip(volumes, at, strict=True))]
        )
        order = np.argsort(ids, kind="stable")
        frames = np.concatenate(
            [empty, *(v.n_frames[rows] for v, rows in zip(volumes, at, strict=True))]
        )[order]
        steps = frames + GAP_FRAMES
        volume = np.repeat(np.arange(len(volumes), dtype=np.int32), [len(rows) for rows in at])
        return cls(
            recording_id=ids[order],
            base=np.cumsum(steps) - steps + GAP_FRAMES,
            n_frames=frames,
            volume=volume[order],
            row=np.concatenate([empty, *at])[order],
            volumes=volumes,
            seconds=3600.0 * snapshot.hours,
        )

    @property
    def end(self) -> int:
        """Frames of the whole line."""
        return int(self.base[-1] + self.n_frames[-1]) + GAP_FRAMES if len(self) else 0

    @property
    def frame_bits(self) -> int:
        """Bits of a frame of the line."""
        return max(1, self.end.bit_length())

    def rows_of(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """The recording (its number on the line) at each frame."""
        found: NDArray[np.int64] = np.searchsorted(self.base, frames, side="right") - 1
        return found


PAIR = np.dtype([("first", "<u4"), ("second", "<u4"), ("scale", "i1")])
"""Places that share a key: frames of the time line, the first before the second, and the first's
scale less the second's; see `duplicate_keys.change_keys`."""


class KeyFiles:
    """The keys of one change in parts, each sorted; files of a folder, or memory when few.

    A context manager: its files go with it.
    """

    def __init__(self, folder: Path, line: TimeLine, change: Change) -> None:
        keys = KEYS_AN_HOUR * line.seconds / 3600.0
        self.bits = max(0, math.ceil(math.log2(max(1.0, keys / PART_KEYS))))
        self.line = line
        self.change = change
        self._kept: list[NDArray[np.uint64]] = []
        self._paths = [
            folder / f"{change.name.lower()}-{i:04d}.keys" for i in range(1 << self.bits)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._kept.clear()
        for path in self._paths:
            path.unlink(missing_ok=True)

    @property
    def parts(self) -> int:
        """How many there are."""
        return 1 << self.bits

    @property
    def key_shift(self) -> int:
        """A word holds a key above so many bits, then the frame of the line, then the scale."""
        return self.line.frame_bits + SCALE_BITS

    def make(self, wanted: NDArray[np.bool_] | None, params: Params = PARAMS) -> Iterator[int]:
        """Makes the keys of all recordings, and sorts them; yields how many are done.

        ``wanted``: see `wanted_keys`; others are left out. Raises OSError.
        """
        keys: list[NDArray[np.uint64]] = []
        places: list[NDArray[np.uint64]] = []
        count = 0
        for number in range(len(self.line)):
            own, frames, scales = keys_of(self.line, number, self.change, params)
            place = frames.astype(np.uint64) + np.uint64(self.line.base[number])
            place = place << np.uint64(SCALE_BITS) | scales
            if wanted is not None:
                keep = wanted[_folded(own)]
                own, place = own[keep], place[keep]
            keys.append(own)
            places.append(place)
            count += len(own)
            if count >= BATCH_KEYS:
                self._put(np.concatenate(keys), np.concatenate(places))
                keys, places, count = [], [], 0
            yield number + 1
        if keys:
            self._put(np.concatenate(keys), np.concatenate(places))
        for i, path in enumerate(self._paths if self.bits else ()):
            if path.exists():
                words = self.read(i)
                words.sort()
                path.write_bytes(words.data)
                yield len(self.line)
        if self._kept:
            words = np.concatenate(self._kept)
            words.sort()
            self._kept = [words]

    def read(self, part: int) -> NDArray[np.uint64]:
        """The sorted words of a part."""
        if not self.bits:
            return self._kept[0] if self._kept else np.empty(0, np.uint64)
        path = self._paths[part]
        return np.fromfile(path, np.uint64) if path.exists() else np.empty(0, np.uint64)

    def _put(self, keys: NDArray[np.uint64], places: NDArray[np.uint64]) -> None:
        shift = np.uint64(self.key_shift)
        words = (keys << np.uint64(self.bits)) >> shift << shift | places
        if not self.bits:
            self._kept.append(words)
            return
        part = (keys >> np.uint64(64 - self.bits)).astype(np.int64)
        order = np.argsort(part, kind="stable")
        ends = np.searchsorted(part[order], np.arange(self.parts + 1))
        words = words[order]
        for i, path in enumerate(self._paths):
            if ends[i] < ends[i + 1]:
                with path.open("ab") as file:
                    file.write(words[ends[i] : ends[i + 1]].data)


def keys_of(
    line: TimeLine, number: int, change: Change, params: Params = PARAMS
) -> tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.uint8]]:
    """`change_keys` of a recording of the line."""
    volume = line.volumes[line.volume[number]]
    many = line.seconds > 3600.0 * MANY_TARGETS_HOURS
    return change_keys(
        volume.landmarks(int(line.row[number])),
        change,
        MANY_TARGETS if many else FEW_TARGETS,
        params,
    )


_FOLD_BITS = 24


def _folded(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (keys >> np.uint64(64 - _FOLD_BITS)).astype(np.int64)


def wanted_keys(
    line: TimeLine, chosen: NDArray[np.bool_], change: Change, params: Params = PARAMS
) -> NDArray[np.bool_]:
    """Which keys some of the recordings have, by their upper 24 bits."""
    wanted = np.zeros(1 << _FOLD_BITS, np.bool_)
    for number in np.flatnonzero(chosen).tolist():
        wanted[_folded(keys_of(line, number, change, params)[0])] = True
    return wanted


@kernel
def _cell(first: np.int64, second: np.int64, half: int, mask: np.uint64) -> np.int64:
    """Counter of the square of a minute by a minute in which a pair lies."""
    shifted = half << (MINUTE_BITS - 1)
    word = np.uint64(((first + shifted) >> MINUTE_BITS) << 32)
    word += np.uint64((((second + shifted) >> MINUTE_BITS) << 1) + half)
    h = (word ^ (word >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(32))) * np.uint64(0x94D049BB133111EB)
    return np.int64((h ^ (h >> np.uint64(31))) & mask)


@kernel
def _row_at(frame: np.int64, row_of_step: NDArray[np.int32], base: NDArray[np.int64]) -> np.int64:
    row = np.int64(row_of_step[frame >> MINUTE_BITS])
    if row + 1 < base.shape[0] and frame >= base[row + 1]:
        row += 1
    return row


@kernel
def _join(
    words: NDArray[np.uint64],
    key_shift: int,
    row_of_step: NDArray[np.int32],
    base: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    every: bool,
    partners: int,
    most_steps: int,
    pitch: bool,
    counters: NDArray[np.uint8],
    counting: bool,
    begin: int,
    begin_segment: int,
    out_first: NDArray[np.uint32],
    out_second: NDArray[np.uint32],
    out_scale: NDArray[np.int8],
) -> tuple[int, int, int, int]:
    """Pair the places of each key; returns where to go on (word, segment), written and seen.

    A segment is the places of one recording under one key.
    """
    shift = np.uint64(key_shift)
    frame_mask = (np.uint64(1) << np.uint64(key_shift - SCALE_BITS)) - np.uint64(1)
    mask = np.uint64(counters.shape[0] - 1)
    room = out_first.shape[0] - 2 * partners * MOST_REPEATS * MOST_EACH
    starts = np.empty(words.shape[0] + 1, np.int64)
    rows = np.empty(words.shape[0], np.int32)
    n = 0
    seen = 0
    i = begin
    first_segment = begin_segment
    while i < words.shape[0]:
        key = words[i] >> shift
        end = i
        segments = 0
        before = np.int64(-1)
        while end < words.shape[0] and words[end] >> shift == key:
            frame = np.int64((words[end] >> np.uint64(SCALE_BITS)) & frame_mask)
            row = _row_at(frame, row_of_step, base)
            if row != before:
                starts[segments] = end
                rows[segments] = row
                segments += 1
                before = row
            end += 1
        starts[segments] = end
        for s in range(first_segment, segments if segments > 1 else 0):
            if not every and not chosen[rows[s]]:
                continue
            if not counting and n > room:
                return i, s, n, seen
            low = s + 1 if every else max(0, s - partners)
            for t in range(low, min(segments, s + partners + 1)):
                if t == s or (t < s and chosen[rows[t]]):
                    continue
                one = min(s, t)
                other = max(s, t)
                ours = starts[one + 1] - starts[one]
                theirs = starts[other + 1] - starts[other]
                step = max(1, (ours + MOST_REPEATS - 1) // MOST_REPEATS)
                for k in range(0, ours, step):
                    a = words[starts[one] + k]
                    each = min(theirs, MOST_EACH)
                    # Of a loop's turns other ones for each place: no line is favoured.
                    turn = (k * 7919) % theirs
                    for e in range(each):
                        b = words[starts[other] + (turn + e) % theirs]
                        d = np.int64(a & np.uint64(255)) - np.int64(b & np.uint64(255))
                        if d > most_steps or d < -most_steps or (pitch and d == 0):
                            continue
                        fa = np.int64((a >> np.uint64(SCALE_BITS)) & frame_mask)
                        fb = np.int64((b >> np.uint64(SCALE_BITS)) & frame_mask)
                        seen += 1
                        if counting:
                            for half in range(2):
                                cell = _cell(fa, fb, half, mask)
                                if counters[cell] < 255:
                                    counters[cell] += np.uint8(1)
                        elif (
                            counters[_cell(fa, fb, 0, mask)] >= LEAST_VOTES
                            or counters[_cell(fa, fb, 1, mask)] >= LEAST_VOTES
                        ):
                            out_first[n] = fa
                            out_second[n] = fb
                            out_scale[n] = d
                            n += 1
        first_segment = 0
        i = end
    return i, 0, n, seen


class PairFiles:
    """Pairs of places by where the second lies, in files or in memory like their keys.

    A context manager: its files go with it.
    """

    def __init__(self, folder: Path, keys: KeyFiles) -> None:
        self._keys = keys
        self.parts = keys.parts
        self._kept: list[NDArray[np.void]] = []
        name = keys.change.name.lower()
        self._paths = [folder / f"{name}-{i:04d}.pairs" for i in range(self.parts)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._kept.clear()
        for path in self._paths:
            path.unlink(missing_ok=True)

    def make(self, chosen: NDArray[np.bool_] | None, check: Callable[[], None]) -> int:
        """Pairs places of different recordings, of ``chosen`` ones with all, and keeps those that
        are not alone. Returns how many there were. ``check`` is called between steps; what it
        raises is raised here. Raises OSError.
        """
        keys, line = self._keys, self._keys.line
        total = sum(len(keys.read(part)) for part in range(keys.parts))
        expected = max(1.0, 4.0 * (0.5 * total * total / (1 << 23)))
        size = min(max(1 << math.ceil(math.log2(expected)), LEAST_COUNTERS), MOST_COUNTERS)
        every = chosen is None
        # One recording among many is compared with more of those that have what it has.
        partners = MOST_PARTNERS
        if chosen is not None:
            partners = max(partners, MOST_PARTNERS_OF_CHOSEN // max(1, int(chosen.sum())))
        steps = np.arange(-(-line.end >> MINUTE_BITS) + 2, dtype=np.int64) << MINUTE_BITS
        row_of_step = np.maximum(line.rows_of(steps), 0).astype(np.int32)
        counters = np.zeros(size, np.uint8)
        room = _ROOM + 2 * partners * MOST_REPEATS * MOST_EACH
        out = (np.empty(room, np.uint32), np.empty(room, np.uint32), np.empty(room, np.int8))
        seen = 0
        for counting in (True, False):
            for part in range(keys.parts):
                words = keys.read(part)
                at = segment = 0
                while at < len(words):
                    check()
                    # By pieces, so that nobody waits long for an answer.
                    last = _run_end(words, at, keys.key_shift)
                    at, segment, written, passed = _join(
                        words[:last],
                        keys.key_shift,
                        row_of_step,
                        line.base,
                        np.zeros(1, np.bool_) if chosen is None else chosen,
                        every,
                        partners,
                        _MOST_STEPS[keys.change],
                        keys.change is Change.PITCH,
                        counters,
                        counting,
                        at,
                        segment,
                        *out,
                    )
                    seen += passed if counting else 0
                    if written:
                        self._put(out[0][:written], out[1][:written], out[2][:written])
        return seen

    def read(self, part: int) -> NDArray[np.void]:
        """Pairs of a part, in order of the second's recording, the first's, and time."""
        if not self._keys.bits:
            pairs = np.concatenate([np.empty(0, PAIR), *self._kept])
        elif self._paths[part].exists():
            pairs = np.fromfile(self._paths[part], PAIR)
        else:
            pairs = np.empty(0, PAIR)
        line = self._keys.line
        first = line.rows_of(pairs["first"].astype(np.int64))
        second = line.rows_of(pairs["second"].astype(np.int64))
        return pairs[np.lexsort((pairs["first"], pairs["second"], first, second))]

    def _put(
        self,
        first: NDArray[np.uint32],
        second: NDArray[np.uint32],
        scale: NDArray[np.int8],
    ) -> None:
        pairs = np.empty(len(first), PAIR)
        pairs["first"], pairs["second"], pairs["scale"] = first, second, scale
        if not self._keys.bits:
            self._kept.append(pairs)
            return
        # Pairs of one recording stay together.
        line = self._keys.line
        part = line.rows_of(second.astype(np.int64)) * self.parts // max(1, len(line))
        for i in np.unique(part).tolist():
            with self._paths[i].open("ab") as file:
                file.write(pairs[part == i].tobytes())


def _run_end(words: NDArray[np.uint64], at: int, key_shift: int) -> int:
    """The end of the keys that are joined at once from ``at`` on: a key is never cut."""
    end = at + _PIECE
    if end >= len(words):
        return len(words)
    next_key = (int(words[end]) >> key_shift) + 1
    if next_key << key_shift >= 1 << 64:
        return len(words)
    return int(np.searchsorted(words, np.uint64(next_key << key_shift)))
