"""Who shares keys with a clip: the protocol between a search and an index's postings.

A `Question` is one round of a search: triples of a clip and the changes under which they are looked
up. An `Answer` is where votes gather, and which part of the index did not answer. Postings that
lie in a volume's own arrays answer through one fused kernel (`LocalPostings`); postings that lie
elsewhere, for example in a database, through `RemotePostings`: it makes the keys, asks a `Lookup`
for their postings once a round, and counts here. Both give the same answer, element for element.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.layout import CHECK_BITS, KEY_BITS
from soundhash_engine.params import SearchParams
from soundhash_engine.remote import (
    cold_postings,
    count_rounds,
    distinct_keys,
    hash_question,
    match_keys,
)
from soundhash_engine.retrieval import vote
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

    time, bin           of the clip's landmarks: int32 half frames, int16 quarter bins
    triples             int32 (n, 3), indices of an anchor and two targets, by the parameters with
                        which a volume's own triples were made
    pitch, tempo        float64, one a hypothesis: bins and factor
    centre_half_frames  the clip's centre, at which votes are counted
    margin              share of a cell within which its neighbour is asked too; 0: none
    least_votes         of a place
    """

    time: NDArray[np.int32]
    bin: NDArray[np.int16]
    triples: Mapping[SearchParams, NDArray[np.int32]]
    pitch: NDArray[np.float64]
    tempo: NDArray[np.float64]
    centre_half_frames: float
    margin: float
    least_votes: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Places of one volume on which votes gather; arrays of the same length.

    hypothesis  int32, index into the question's
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
    """A key that has more postings than this in the volume is a steady tone and never votes."""
    return 16 + int(volume.hours / 100)


class LocalPostings:
    """Postings in the volumes' own arrays."""

    def ask(self, volumes: Sequence[Volume], question: Question) -> Answer:
        """Votes in each of the volumes; nothing is ever missing."""
        hypothesis = np.empty(MOST_FOUND, np.int32)
        bins = np.empty(MOST_FOUND, np.uint32)
        votes = np.empty(MOST_FOUND, np.int32)
        found: list[Found] = []
        for volume in volumes:
            n, _, _ = vote(
                *_asked(question, volume.search),
                question.margin,
                volume.bits,
                volume.bucket,
                volume.post,
                volume.check,
                hot_limit(volume),
                question.least_votes,
                hypothesis,
                bins,
                votes,
            )
            found.append(Found(hypothesis[:n].copy(), bins[:n].copy(), votes[:n].copy()))
        return Answer(tuple(found))


LOCAL = LocalPostings()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """What is asked of one volume: the first ``volume.bits + CHECK_BITS`` bits of the keys.

    prefix  int64, rising, each once
    """

    volume: Volume
    prefix: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Given:
    """The buckets of one volume that have a posting with the wanted check byte.

    which  int64, indices into `Wanted.prefix`, each at most once
    count  int64, postings in the bucket
    check  uint8, the buckets' check bytes one after the other
    post   uint32, the buckets' words one after the other, as in `Volume.post`

    Postings that never vote (`cold_rows`) may be left out.
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

        Comes back within a bounded time, whatever is gone.
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
        found = tuple(next(others) if away else next(local) for away in held)
        return Answer(found, missing)

    def _ask_far(
        self, volumes: Sequence[Volume], question: Question
    ) -> tuple[list[Found], tuple[Missing, ...]]:
        # Volumes whose triples were made alike, that is nearly always all, share their keys.
        asked: dict[SearchParams, _Keys] = {}
        for volume in volumes:
            if volume.search not in asked:
                asked[volume.search] = _Keys.of(question, volume.search)
        wanted = [asked[volume.search].wanted(volume) for volume in volumes]
        given, missing = self._lookup.look_up(wanted)
        found = [
            asked[one.volume.search].count(one, part, question.least_votes)
            for one, part in zip(wanted, given, strict=True)
        ]
        return found, missing


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Keys:
    """All keys of a question: each once, and which of them every probe asks."""

    distinct: NDArray[np.uint64]
    which: NDArray[np.int32]
    shifts: NDArray[np.float32]
    first: NDArray[np.int64]
    """Of each hypothesis' probes, and their number."""

    @classmethod
    def of(cls, question: Question, search: SearchParams) -> "_Keys":
        hashes, shifts, first = hash_question(*_asked(question, search), question.margin)
        distinct, which = distinct_keys(hashes)
        return cls(distinct, which, shifts, first)

    def wanted(self, volume: Volume) -> Wanted:
        prefix = (self.distinct >> np.uint64(KEY_BITS - volume.bits - CHECK_BITS)).astype(np.int64)
        new = np.ones(len(prefix), np.bool_)
        new[1:] = prefix[1:] != prefix[:-1]
        return Wanted(volume, prefix[new])

    def count(self, wanted: Wanted, given: Given, least_votes: int) -> Found:
        bits = wanted.volume.bits
        low, frames = match_keys(
            self.distinct, bits, wanted.prefix, given.which, given.count, given.check, given.post
        )
        hypothesis = np.empty(MOST_FOUND, np.int32)
        bins = np.empty(MOST_FOUND, np.uint32)
        votes = np.empty(MOST_FOUND, np.int32)
        n = count_rounds(
            self.which, self.shifts, self.first, low, frames, least_votes, hypothesis, bins, votes
        )
        return Found(hypothesis[:n], bins[:n], votes[:n])


def cold_rows(
    volume: Volume, first_bucket: int, last_bucket: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint32]]:
    """The postings of some buckets without the keys that never vote.

    Returns where each bucket begins and where the last one ends, the check bytes and the words.
    """
    return cold_postings(
        volume.bucket, volume.post, volume.check, first_bucket, last_bucket, hot_limit(volume)
    )


def _asked(
    question: Question, search: SearchParams
) -> tuple[
    NDArray[np.int32],
    NDArray[np.int16],
    NDArray[np.int32],
    NDArray[np.float64],
    NDArray[np.float64],
    float,
    float,
    float,
    float,
    float,
]:
    """The kernels' first arguments."""
    return (
        question.time,
        question.bin,
        question.triples[search],
        question.pitch,
        question.tempo,
        question.centre_half_frames,
        search.triple_bin_cell_bins,
        search.triple_time_cell_frames,
        2.0 * search.triple_min_dt_frames,
        2.0 * search.triple_max_dt_frames,
    )
