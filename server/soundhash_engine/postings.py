"""Who shares keys with a clip: the protocol between a search and an index's postings.

A `Question` is one round of a search: what of a clip is looked up, and the changes for which. An
`Answer` is where votes gather, and which part of the index did not answer. Postings that lie in a
volume's own arrays answer through one fused kernel (`LocalPostings`); of postings that lie
elsewhere, for example in a database, `RemotePostings` asks a `Lookup` for the buckets that are
wanted, once a round, and then lets the same kernel read those instead of the volume's. Both give
the same answer, element for element.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.hypotheses import Hypotheses
from soundhash_engine.jit import kernel
from soundhash_engine.layout import BUCKET_FRAME_BITS, CHECK_BITS, KEY_BITS
from soundhash_engine.params import SearchParams
from soundhash_engine.probes import Probes
from soundhash_engine.retrieval import vote
from soundhash_engine.triples import ANCHOR_SHIFT
from soundhash_engine.volume import Volume

MOST_FOUND = 65536
"""Most places of one volume in an answer; beyond it those with the fewest votes are dropped."""


@dataclasses.dataclass(frozen=True, slots=True)
class Missing:
    """A part of the index that did not answer, so that what it holds was not found.

    part    its name, for people
    share   0 … 1, of the audio's keys: what part of the evidence was not looked at
    reason  UPPER_SNAKE: UNREACHABLE, TIMED_OUT, NOT_LOADED, …
    """

    part: str
    share: float
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One round of a search.

    changes      pitches and tempos under which the clip is looked up
    probes       what is looked up, by the parameters with which a volume's triples were made
    margin       share of a cell within which its neighbour is asked too; 0: none
    least_votes  of a place
    """

    changes: Hypotheses
    probes: Mapping[SearchParams, Probes]
    margin: float
    least_votes: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Places of one volume on which votes gather; arrays of the same length.

    hypothesis  int32, index into the question's changes
    bin         uint32, the place: `retrieval.VOTE_BIN_FRAMES` frames of the volume's time line
    votes       int32
    """

    hypothesis: NDArray[np.int32]
    bin: NDArray[np.uint32]
    votes: NDArray[np.int32]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Where votes gather in each of the volumes that were asked, and what did not answer."""

    found: tuple[Found, ...]
    missing: tuple[Missing, ...] = ()


class Postings(Protocol):
    """Who shares keys with a clip."""

    def ask(self, volumes: Sequence[Volume], question: Question) -> Answer:
        """Votes in each of the volumes, in their order. Never raises for a part that is gone."""


def hot_limit(volume: Volume) -> int:
    """A key that has more postings than this in the volume is a steady tone and never votes.

    Half the root of the hours: 16 up to 1,000 h, 50 at 10,000 h.
    """
    return max(16, int(0.5 * math.sqrt(volume.hours)))


class LocalPostings:
    """Postings in the volumes' own arrays."""

    def ask(self, volumes: Sequence[Volume], question: Question) -> Answer:
        """Votes in each of the volumes; nothing is ever missing."""
        return Answer(
            tuple(
                _count(volume, question, _EVERY_ROW, volume.bucket, volume.post, volume.check)
                for volume in volumes
            )
        )


LOCAL = LocalPostings()
_EVERY_ROW = np.empty(0, np.int64)


def _count(
    volume: Volume,
    question: Question,
    rows: NDArray[np.int64],
    bucket: NDArray[np.uint32],
    post: NDArray[np.uint32],
    check: NDArray[np.uint8],
) -> Found:
    """Votes in one volume; ``rows`` as in `retrieval.look_up`."""
    probes, changes = question.probes[volume.search], question.changes
    hypothesis = np.empty(MOST_FOUND, np.int32)
    bins = np.empty(MOST_FOUND, np.uint32)
    votes = np.empty(MOST_FOUND, np.int32)
    n, _, _ = vote(
        probes.hashes,
        probes.cells,
        probes.first_cell,
        probes.triple,
        probes.first_tempo,
        probes.last_tempo,
        len(probes),
        probes.anchor,
        probes.from_centre,
        changes.tempos,
        changes.pitch,
        changes.above,
        volume.search.triple_bin_cell_bins,
        question.margin,
        volume.bits,
        rows,
        bucket,
        post,
        check,
        hot_limit(volume),
        question.least_votes,
        hypothesis,
        bins,
        votes,
    )
    return Found(hypothesis[:n].copy(), bins[:n].copy(), votes[:n].copy())


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """What is asked of one volume: ranges of the first ``volume.bits + CHECK_BITS`` bits of keys.

    first, last  int64, rising, apart: keys that begin with first … last
    bucket       int64, rising, each once: the buckets that such keys lie in
    """

    volume: Volume
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    bucket: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What lies in the wanted buckets of one volume.

    which  int64, indices into `Wanted.bucket`, rising
    count  int64, postings of the bucket
    check  uint8, the buckets' check bytes one after the other
    post   uint32, the buckets' words one after the other, as in `Volume.post`

    Postings outside the wanted ranges and those that never vote (`cold_rows`) may be left out, the
    others are in the order in which the volume has them.
    """

    which: NDArray[np.int64]
    count: NDArray[np.int64]
    check: NDArray[np.uint8]
    post: NDArray[np.uint32]


class Lookup(Protocol):
    """Postings by key, wherever they lie."""

    def holds(self, volume: Volume) -> bool:
        """Whether this volume's postings are to be asked for here."""

    def look_up(self, wanted: Sequence[Wanted]) -> tuple[list[Given], tuple[Missing, ...]]:
        """Postings of every volume, in their order, and what did not answer.

        Shares are of what was asked for. Comes back within a bounded time, whatever is gone.
        """


class RemotePostings:
    """Postings of some volumes elsewhere, of the others in their own arrays."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def ask(self, volumes: Sequence[Volume], question: Question) -> Answer:
        """Votes in each of the volumes; one look-up for all that are elsewhere."""
        held = [self._lookup.holds(volume) for volume in volumes]
        near = [volume for volume, away in zip(volumes, held, strict=True) if not away]
        far = [volume for volume, away in zip(volumes, held, strict=True) if away]
        local = iter(LOCAL.ask(near, question).found)
        remote, missing = self._ask_far(far, question) if far else ([], ())
        others = iter(remote)
        part = sum(volume.hours for volume in far) / (sum(v.hours for v in volumes) or 1.0)
        missing = tuple(dataclasses.replace(one, share=one.share * part) for one in missing)
        found = tuple(next(others) if away else next(local) for away in held)
        return Answer(found, missing)

    def _ask_far(
        self, volumes: Sequence[Volume], question: Question
    ) -> tuple[list[Found], tuple[Missing, ...]]:
        wanted = [_wanted(volume, question.probes[volume.search]) for volume in volumes]
        given, missing = self._lookup.look_up(wanted)
        found = []
        for one, part in zip(wanted, given, strict=True):
            count = np.zeros(len(one.bucket), np.int64)
            count[part.which] = part.count
            bucket = np.concatenate([[0], np.cumsum(count)]).astype(np.uint32)
            probes = question.probes[one.volume.search]
            rows = np.searchsorted(one.bucket, probes.hashes >> (KEY_BITS - one.volume.bits))
            found.append(_count(one.volume, question, rows, bucket, part.post, part.check))
        return found, missing


def _wanted(volume: Volume, probes: Probes) -> Wanted:
    top = probes.hashes + ((probes.cells.astype(np.int64) - 1) << ANCHOR_SHIFT)
    below = KEY_BITS - volume.bits - CHECK_BITS
    first, last = join_ranges(*_in_order(probes.hashes >> below, top >> below))
    low, high = join_ranges(first >> CHECK_BITS, last >> CHECK_BITS)
    length = high - low + 1
    bucket = np.repeat(high + 1 - np.cumsum(length), length) + np.arange(int(length.sum()))
    return Wanted(volume, first, last, bucket)


def _in_order(
    first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.argsort(first, kind="stable")
    return first[order], last[order]


def join_ranges(
    first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ranges first … last in rising order, those that overlap or touch made one."""
    if not len(first):
        return first, last
    reach = np.maximum.accumulate(last)
    new = np.append(True, first[1:] > reach[:-1] + 1)
    return first[new], reach[np.append(np.flatnonzero(new)[1:] - 1, len(first) - 1)]


def cold_rows(
    volume: Volume, first_bucket: int, last_bucket: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint32]]:
    """The postings of some buckets without the keys that never vote.

    Returns where each bucket begins and where the last one ends, the check bytes and the words.
    """
    return _cold_postings(
        volume.bucket,
        volume.post,
        volume.check,
        first_bucket,
        last_bucket,
        volume.bits + BUCKET_FRAME_BITS,
        hot_limit(volume),
    )


@kernel
def _cold_postings(
    bucket: NDArray[np.uint32],
    post: NDArray[np.uint32],
    check: NDArray[np.uint8],
    first_bucket: int,
    last_bucket: int,
    frame_bits: int,
    limit: int,
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint32]]:
    """Copy the postings of some buckets without keys that have more than ``limit`` of them."""
    total = np.int64(bucket[last_bucket]) - np.int64(bucket[first_bucket])
    starts = np.zeros(last_bucket - first_bucket + 1, np.int64)
    checks = np.empty(total, np.uint8)
    posts = np.empty(total, np.uint32)
    up = np.uint64(frame_bits)
    n = 0
    for b in range(first_bucket, last_bucket):
        end = np.int64(bucket[b + 1])
        i = np.int64(bucket[b])
        while i < end:
            # A bucket's postings are in order of key: those of one stand together.
            rest = np.uint64(post[i]) >> up
            j = i
            while j < end and check[j] == check[i] and np.uint64(post[j]) >> up == rest:
                j += 1
            if j - i <= limit:
                for k in range(i, j):
                    checks[n] = check[k]
                    posts[n] = post[k]
                    n += 1
            i = j
        starts[b - first_bucket + 1] = n
    return starts, checks[:n], posts[:n]
