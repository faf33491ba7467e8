"""Triple keys against a slow reference written from the formulas."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundhash_engine.hypotheses import IDENTITY, Hypotheses, hypotheses, wide_hypotheses
from soundhash_engine.landmarks import rank_landmarks
from soundhash_engine.params import PARAMS
from soundhash_engine.probes import probe
from soundhash_engine.triples import query_triples, reference_triples
from soundhash_engine.types import Landmarks

MASK = 2**64 - 1


def slow_mix(key: int) -> int:
    h = (key + 0x9E3779B97F4A7C15) & MASK
    h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & MASK
    return h ^ (h >> 31)


def slow_targets(marks: Landmarks, a: int, n_targets: int, stretch: float) -> list[int]:
    """The strongest landmarks 3 to 80 frames after a, within 40 bins; in order of time."""
    near = [
        b
        for b in range(a + 1, len(marks))
        if 6 / stretch <= int(marks.time[b]) - int(marks.time[a]) <= 160 * stretch
        and abs(int(marks.bin[b]) - int(marks.bin[a])) <= 160
    ]
    near.sort(key=lambda b: (-int(marks.strength[b]), b))
    return sorted(near[:n_targets])


def slow_key(marks: Landmarks, a: int, b: int, c: int, pitch: float, tempo: float) -> int | None:
    """35 bits: the spread of four fields, and the anchor's cell added from bit 8 on."""
    fa, fb, fc = (int(marks.bin[i]) / 4 for i in (a, b, c))
    tb, tc = ((int(marks.time[i]) - int(marks.time[a])) / 2 * tempo for i in (b, c))
    x = math.floor((fa + 1 / 8 - pitch) / 1.5)
    y1 = math.floor((fb - fa + 1 / 8) / 1.5) + 64
    y2 = math.floor((fc - fa + 1 / 8) / 1.5) + 64
    z1 = math.floor((tb + 1 / 4) / 2)
    z2 = math.floor((tc + 1 / 4) / 2)
    if not 0 <= x < 128:
        return None
    h = slow_mix(y1 << 21 | y2 << 14 | z1 << 7 | z2) >> 29
    if h >= 2**35 - 2**15:
        h -= 2**15
    return h + 256 * x


def asked(
    marks: Landmarks, triples: np.ndarray, changes: Hypotheses, margin: float = 0.0
) -> list[tuple[int, int, float]]:
    """(triple, hash, tempo) of everything that is looked up, one by one."""
    probes = probe(marks, triples, changes, centre_half_frames=0.0, margin=margin)
    return [
        (int(probes.triple[i]), int(probes.hashes[i]) + 256 * cell, float(changes.tempos[t]))
        for i in range(len(probes))
        for cell in range(int(probes.cells[i]))
        for t in range(int(probes.first_tempo[i]), int(probes.last_tempo[i]) + 1)
    ]


@st.composite
def landmarks(draw: st.DrawFn) -> Landmarks:
    points = draw(
        st.sets(st.tuples(st.integers(0, 500), st.integers(0, 666)), min_size=0, max_size=60)
    )
    ordered = sorted(points)
    strengths = draw(st.lists(st.integers(0, 8), min_size=len(ordered), max_size=len(ordered)))
    return rank_landmarks(
        np.array([t for t, _ in ordered], np.int32),
        np.array([f for _, f in ordered], np.int16),
        np.array(strengths, np.uint8),
        300,
    )


@settings(max_examples=60, deadline=None)
@given(landmarks())
def test_reference_triples_follow_the_formula(marks: Landmarks) -> None:
    keep = np.flatnonzero(marks.rank < PARAMS.search.triple_rank_limit)
    strong = Landmarks(
        marks.time[keep], marks.bin[keep], marks.strength[keep], marks.rank[keep], marks.n_frames
    )
    expected = []
    for a in range(len(strong)):
        targets = slow_targets(strong, a, 3, 1.0)
        expected += [
            ((slow_key(strong, a, b, c, 0.0, 1.0) or 0) << 29, int(strong.time[a]))
            for i, b in enumerate(targets)
            for c in targets[i + 1 :]
        ]
    hashes, anchors = reference_triples(marks)
    assert list(zip(hashes.tolist(), anchors.tolist(), strict=True)) == expected


@settings(max_examples=60, deadline=None)
@given(
    landmarks(),
    st.floats(-9, 9, allow_nan=False),
    st.floats(0.74, 1.36, allow_nan=False),
    st.integers(2, 12),
)
def test_query_hashes_follow_the_formula(
    marks: Landmarks, pitch: float, tempo: float, n_targets: int
) -> None:
    triples = query_triples(marks, n_targets=n_targets, stretch=1.3)
    assert triples.tolist() == [
        [a, b, c]
        for a in range(len(marks))
        for targets in [slow_targets(marks, a, n_targets, 1.3)]
        for i, b in enumerate(targets)
        for c in targets[i + 1 :]
    ]
    expected = []
    for i, (a, b, c) in enumerate(triples.tolist()):
        first = (int(marks.time[b]) - int(marks.time[a])) * tempo
        last = (int(marks.time[c]) - int(marks.time[a])) * tempo
        if first >= 5.5 and last <= 160.5:
            key = slow_key(marks, a, b, c, pitch, tempo)
            if key is not None:
                expected.append((i, key, tempo))
    assert asked(marks, triples, hypotheses([(pitch, tempo)])) == expected


@settings(max_examples=10, deadline=None)
@given(landmarks())
def test_all_changes_together_ask_for_what_each_asks_for(marks: Landmarks) -> None:
    triples = query_triples(marks, n_targets=5, stretch=1.3)
    changes = wide_hypotheses()
    together = asked(marks, triples, changes)
    assert len(together) == len(set(together))
    known = set(together)
    for pitch, tempo in list(zip(changes.pitch, changes.tempo, strict=True))[::7]:
        assert known.issuperset(asked(marks, triples, hypotheses([(pitch, tempo)])))


def test_a_query_asks_for_what_the_reference_stored() -> None:
    random = np.random.default_rng(5)
    time = np.sort(random.integers(0, 4000, 300)).astype(np.int32)
    marks = rank_landmarks(
        time,
        random.integers(0, 667, 300).astype(np.int16),
        random.integers(0, 64, 300).astype(np.uint8),
        2001,
    )
    stored = {key >> 29 for key in reference_triples(marks)[0].tolist()}
    wanted = {key for _, key, _ in asked(marks, query_triples(marks, n_targets=10), IDENTITY)}
    assert stored <= wanted


@pytest.mark.parametrize("margin", [0.15, 0.26])
def test_soft_probes_add_the_neighbours_of_near_borders(margin: float) -> None:
    marks = rank_landmarks(
        np.array([0, 40, 80], np.int32),
        # 1 quarter bin is 1/6 of a cell: the anchor lies 1/12 of a cell above a border.
        np.array([240, 243, 245], np.int16),
        np.array([9, 9, 9], np.uint8),
        60,
    )
    triples = query_triples(marks, n_targets=2)
    plain = asked(marks, triples, IDENTITY)
    soft = asked(marks, triples, IDENTITY, margin)
    cells = [
        (240 / 4 + 1 / 8) / 1.5,
        (3 / 4 + 1 / 8) / 1.5,
        (5 / 4 + 1 / 8) / 1.5,
        (40 / 2 + 1 / 4) / 2,
        (80 / 2 + 1 / 4) / 2,
    ]
    choices = 1
    for cell in cells:
        inside = cell - math.floor(cell)
        choices *= 2 if inside < margin or inside > 1 - margin else 1
    assert len(plain) == 1
    assert plain[0] in soft
    assert len(soft) == len(set(soft)) == choices > 1


def doubt(marks: Landmarks, a: int, b: int, c: int, n_targets: int) -> int:
    """How unlikely the recording has the triple: by the anchor's rank and the targets' places."""
    near = slow_targets(marks, a, n_targets, 1.0)
    near.sort(key=lambda t: (-int(marks.strength[t]), t))
    low, high = sorted((near.index(b) + 1, near.index(c) + 1))
    parts = (0.1 * int(marks.rank[a]), 1.2 * math.log(low), 2.0 * math.log(high))
    return sum(int(16 * part) for part in parts)


def test_the_likeliest_triples_are_kept_in_order() -> None:
    random = np.random.default_rng(6)
    marks = rank_landmarks(
        np.sort(random.integers(0, 900, 80)).astype(np.int32),
        random.integers(0, 667, 80).astype(np.int16),
        random.integers(0, 64, 80).astype(np.uint8),
        460,
    )
    every = [tuple(row) for row in query_triples(marks, n_targets=10).tolist()]
    doubts = [doubt(marks, *row, 10) for row in every]
    likeliest = sorted(range(len(every)), key=lambda i: (doubts[i], i))[:100]
    some = query_triples(marks, n_targets=10, limit=100)
    assert [tuple(row) for row in some.tolist()] == [every[i] for i in sorted(likeliest)]
