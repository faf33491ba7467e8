"""What every way of holding postings has to answer: volumes, questions, and the comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from soundhash_engine import extract, join
from soundhash_engine.hypotheses import hypotheses
from soundhash_engine.landmarks import query_features
from soundhash_engine.layout import CHECK_BITS
from soundhash_engine.params import PARAMS
from soundhash_engine.postings import (
    LOCAL,
    Given,
    Lookup,
    Missing,
    Question,
    RemotePostings,
    Wanted,
    cold_rows,
)
from soundhash_engine.probes import probe
from soundhash_engine.triples import query_triples
from soundhash_engine.volume import Volume
from soundhash_engine.window import ROUNDS
from tests.songs import song

SONGS = {i: song(40.0, seed=i) for i in range(1, 5)}


def make_volumes() -> tuple[Volume, ...]:
    """A small one, and one in which some keys share votes and some are too frequent to vote."""
    prints = {i: join(extract(pcm)) for i, pcm in SONGS.items()}
    many = [(100 + k, 1, prints[3]) for k in range(10)]
    many += [(200 + k, 1, prints[1]) for k in range(20)]
    return (
        Volume.build([(1, 1, prints[1]), (2, 1, prints[2])]),
        Volume.build([*many, (4, 1, prints[4])]),
    )


def questions() -> list[Question]:
    """Every round of a search, for a clip that is indexed and changed, and for one that is not."""
    out = []
    for pcm in (song(5.0, seed=3, tempo=1.02, start_s=11.0), song(5.0, seed=77)):
        landmarks = query_features(pcm).landmarks
        for step in ROUNDS:
            few = hypotheses(
                list(zip(step.hypotheses.pitch, step.hypotheses.tempo, strict=True))[::3]
            )
            probes = probe(
                landmarks,
                query_triples(landmarks, n_targets=8),
                few,
                centre_half_frames=float(landmarks.n_frames - 1),
                margin=step.margin,
            )
            out.append(Question(few, {PARAMS.search: probes}, step.margin, least_votes=2))
    return out


class Kept:
    """A look-up in plain dictionaries: the rule of `Given` in its simplest form."""

    def __init__(self, volumes: Sequence[Volume], lost: frozenset[int] = frozenset()) -> None:
        self.volumes = volumes
        self.lost = lost
        """Of the buckets, modulo three, these do not answer."""
        self.asked = 0
        self.buckets = {
            id(volume): cold_rows(volume, 0, len(volume.bucket) - 1) for volume in volumes
        }

    def holds(self, volume: Volume) -> bool:
        return any(one is volume for one in self.volumes)

    def look_up(self, wanted: Sequence[Wanted]) -> tuple[list[Given], tuple[Missing, ...]]:
        self.asked += 1
        given = []
        for one in wanted:
            starts, checks, posts = self.buckets[id(one.volume)]
            which, count, check, post = [], [], [], []
            for i, bucket in enumerate(one.bucket.tolist()):
                if bucket % 3 in self.lost:
                    continue
                here = slice(starts[bucket], starts[bucket + 1])
                keys = (bucket << CHECK_BITS) | checks[here].astype(np.int64)
                at = np.searchsorted(one.first, keys, side="right") - 1
                wanted_here = (at >= 0) & (keys <= one.last[at])
                if wanted_here.any():
                    which.append(i)
                    count.append(int(wanted_here.sum()))
                    check.append(checks[here][wanted_here])
                    post.append(posts[here][wanted_here])
            given.append(
                Given(
                    np.array(which, np.int64),
                    np.array(count, np.int64),
                    np.concatenate([np.empty(0, np.uint8), *check]),
                    np.concatenate([np.empty(0, np.uint32), *post]),
                )
            )
        missing = tuple(Missing(f"third {k}", 1 / 3, "UNREACHABLE") for k in sorted(self.lost))
        return given, missing


def check_same_answers(volumes: tuple[Volume, ...], lookup: Lookup, most: int | None = None) -> int:
    """Asks the questions, or the first ones, there and here, and compares element for element.

    Returns the number of places.
    """
    remote = RemotePostings(lookup)
    places = 0
    for question in questions()[:most]:
        expected, given = LOCAL.ask(volumes, question), remote.ask(volumes, question)
        assert given.missing == ()
        for a, b in zip(expected.found, given.found, strict=True):
            places += len(a.bin)
            np.testing.assert_array_equal(a.hypothesis, b.hypothesis)
            np.testing.assert_array_equal(a.bin, b.bin)
            np.testing.assert_array_equal(a.votes, b.votes)
    return places
