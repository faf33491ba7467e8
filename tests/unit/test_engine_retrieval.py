"""Votes of a round against a slow count, written from the meaning of a probe."""

from collections import Counter

import numpy as np
import pytest
from tests.songs import song

from soundhash_engine import extract, join
from soundhash_engine.hypotheses import Hypotheses, hypotheses, wide_hypotheses
from soundhash_engine.landmarks import query_features
from soundhash_engine.layout import BUCKET_FRAME_BITS, KEY_BITS
from soundhash_engine.params import PARAMS
from soundhash_engine.postings import LOCAL, Question, hot_limit
from soundhash_engine.probes import Probes, probe
from soundhash_engine.retrieval import VOTE_BIN_FRAMES, look_up
from soundhash_engine.triples import query_triples
from soundhash_engine.volume import Volume


@pytest.fixture(scope="module")
def volume() -> Volume:
    prints = {i: join(extract(song(30.0, seed=i))) for i in (1, 2, 3)}
    copies = [(10 + k, 1, prints[3]) for k in range(20)]
    return Volume.build([(1, 1, prints[1]), (2, 1, prints[2]), *copies])


def keys_and_frames(volume: Volume) -> list[tuple[int, int]]:
    """All postings: the key's 35 bits and the anchor's frame."""
    frame_bits = volume.bits + BUCKET_FRAME_BITS
    below = KEY_BITS - volume.bits
    out = []
    for b in range(len(volume.bucket) - 1):
        for j in range(int(volume.bucket[b]), int(volume.bucket[b + 1])):
            word = int(volume.post[j])
            key = b << below | int(volume.check[j]) << (below - 8) | word >> frame_bits
            out.append((key, word & (2**frame_bits - 1)))
    return out


def asked(changes: Hypotheses, *, margin: float, seed: int = 2) -> Probes:
    clip = song(4.0, seed=seed, tempo=1.05, pitch=2 ** (3 / 36), start_s=12.0)
    marks = query_features(clip).landmarks
    triples = query_triples(marks, n_targets=6, limit=120)
    return probe(
        marks, triples, changes, centre_half_frames=float(marks.n_frames - 1), margin=margin
    )


WIDE = wide_hypotheses()
MANY = hypotheses([(3.0, 1.05), *list(zip(WIDE.pitch, WIDE.tempo, strict=True))[::25]])
CHANGES = hypotheses([(0.0, 1.0), (3.0, 1.05), (2.0, 1.05), (0.0, 1.05), (-4.0, 0.9)])


@pytest.mark.parametrize(
    ("changes", "margin"),
    [(CHANGES, 0.0), (hypotheses([(3.0, 1.05)]), 0.15), (MANY, 0.0)],
)
def test_every_posting_votes_for_the_changes_that_explain_it(
    volume: Volume, changes: Hypotheses, margin: float
) -> None:
    probes = asked(changes, margin=margin)
    by_key: dict[int, list[int]] = {}
    for key, frame in keys_and_frames(volume):
        by_key.setdefault(key, []).append(frame)
    cell_bins = PARAMS.search.triple_bin_cell_bins
    cast: dict[int, Counter[int]] = {}
    for i in range(len(probes)):
        t = int(probes.triple[i])
        for cell in range(int(probes.cells[i])):
            frames = by_key.get(int(probes.hashes[i]) + 256 * cell, [])
            if len(frames) > hot_limit(volume):
                continue
            inside = float(probes.anchor[t]) - int(probes.first_cell[i]) - cell
            for h in range(len(changes)):
                tempo = float(changes.tempo[h])
                tempos = changes.tempos[probes.first_tempo[i] : probes.last_tempo[i] + 1]
                if tempo not in tempos:
                    continue
                if not -margin <= inside - changes.pitch[h] / cell_bins < 1.0 + margin:
                    continue
                for frame in frames:
                    place = int((frame - probes.from_centre[t] * tempo) / VOTE_BIN_FRAMES)
                    cast.setdefault(h, Counter())[place] += 1
    expected = set()
    for h, count in cast.items():
        for place in count:
            here, after = count[place], count[place + 1]
            before, second = count[place - 1], count[place + 2]
            beaten = before > after or second > here or (before == after and before > 0)
            if here + after >= 2 and not beaten:
                expected.add((h, place, here + after))
    question = Question(changes, {PARAMS.search: probes}, margin, least_votes=2)
    found = LOCAL.ask((volume,), question).found[0]
    answer = set(
        zip(found.hypothesis.tolist(), found.bin.tolist(), found.votes.tolist(), strict=True)
    )
    assert answer == expected
    assert max(votes for _, _, votes in answer) > 8


def test_what_does_not_fit_at_once_is_looked_up_in_parts(volume: Volume) -> None:
    probes = asked(CHANGES, margin=0.0, seed=3)
    whole: list[list[tuple[int, int, int]]] = []
    for room in (1 << 15, 90):
        at, rows = 0, []
        arrays = np.empty(room, np.int32), np.empty(room, np.uint8), np.empty(room, np.uint32)
        while at < len(probes):
            at, n, _ = look_up(
                probes.hashes,
                probes.cells,
                at,
                min(len(probes), at + 1024),
                volume.bits,
                np.empty(0, np.int64),
                volume.bucket,
                volume.post,
                volume.check,
                100,
                *arrays,
            )
            rows += list(zip(*(array[:n].tolist() for array in arrays), strict=True))
        whole.append(rows)
    assert len(whole[0]) > 300
    assert whole[0] == whole[1]


def test_the_order_of_volumes_does_not_change_the_votes(volume: Volume) -> None:
    other = Volume.build([(7, 1, join(extract(song(30.0, seed=9))))])
    question = Question(CHANGES, {PARAMS.search: asked(CHANGES, margin=0.0)}, 0.0, least_votes=2)
    first, second = LOCAL.ask((volume, other), question).found
    assert np.array_equal(LOCAL.ask((other, volume), question).found[0].bin, second.bin)
    assert np.array_equal(LOCAL.ask((other, volume), question).found[1].bin, first.bin)
