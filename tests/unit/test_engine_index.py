"""The index: whatever is applied, removed, replaced and sealed, it holds what a dict would."""

import functools
import threading

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.sounds import tune

from soundhash_engine import Fingerprint, extract, join
from soundhash_engine.index import Index
from soundhash_engine.volume import Volume

IDS = st.integers(0, 7)


@functools.cache
def made(seed: int) -> Fingerprint:
    return join(extract(tune(2.0 + 0.4 * seed, seed)))


class IndexMachine(RuleBasedStateMachine):
    """Random changes; a dict of id -> (revision, seed) is the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
        self.truth: dict[int, tuple[int, int]] = {}

    @rule(items=st.dictionaries(IDS, st.tuples(st.integers(1, 3), st.integers(1, 5)), max_size=3))
    def add(self, items: dict[int, tuple[int, int]]) -> None:
        # One revision is one content.
        items = {i: (revision, 1 + (i + revision) % 5) for i, (revision, _) in items.items()}
        self.index.apply([(i, r, made(seed)) for i, (r, seed) in items.items()])
        for i, (revision, seed) in items.items():
            if revision >= self.truth.get(i, (0, 0))[0]:
                self.truth[i] = (revision, seed)

    @rule(ids=st.sets(IDS, max_size=3))
    def remove(self, ids: set[int]) -> None:
        self.index.remove(ids)
        for i in ids:
            self.truth.pop(i, None)

    @rule(ids=st.sets(IDS, max_size=2), item=IDS)
    def remove_and_add_at_once(self, ids: set[int], item: int) -> None:
        self.index.apply([(item, 1, made(1 + (item + 1) % 5))], ids | {item})
        for i in ids:
            self.truth.pop(i, None)
        self.truth[item] = (1, 1 + (item + 1) % 5)

    @rule(full=st.booleans())
    def seal(self, full: bool) -> None:
        before = self.index.status()
        sealed = self.index.seal(full=full)
        after = self.index.status()
        assert after.tail_recordings == 0
        if before.tail_recordings:
            assert sealed is not None
        if sealed is not None:
            assert any(v is sealed for v in self.index.snapshot().volumes)
        if full:
            assert after.volumes <= 1
            assert after.dead_recordings == 0

    @rule()
    def load_again(self) -> None:
        self.index.seal(full=True)
        volumes = self.index.snapshot().volumes
        again = Index()
        again.load([Volume.from_arrays(v.meta(), v.arrays()) for v in volumes])
        self.index = again

    @invariant()
    def holds_the_truth(self) -> None:
        snapshot = self.index.snapshot()
        found: dict[int, int] = {}
        for volume, alive in zip(snapshot.volumes, snapshot.alive, strict=True):
            for i, revision, lives in zip(
                volume.recording_id.tolist(), volume.revision.tolist(), alive.tolist(), strict=True
            ):
                if lives:
                    assert i not in found
                    found[i] = revision
        assert found == {i: revision for i, (revision, _) in self.truth.items()}
        for i, (_, seed) in self.truth.items():
            place = snapshot.find(i)
            assert place is not None
            volume, row = place
            assert volume.landmarks(row) == made(seed).landmarks
        status = self.index.status()
        assert status.recordings == len(self.truth) == snapshot.recordings
        hours = sum(made(seed).duration_s for _, seed in self.truth.values()) / 3600
        assert abs(status.hours - hours) < 1e-9


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)


def test_a_snapshot_stays_as_it_was() -> None:
    index = Index()
    index.apply([(1, 1, made(1)), (2, 1, made(2))])
    before = index.snapshot()
    index.remove([1])
    index.apply([(3, 1, made(3))])
    index.seal()
    assert before.find(1) is not None
    assert before.find(3) is None
    assert before.recordings == 2


def test_without_hides_recordings_of_one_view_only() -> None:
    index = Index()
    index.apply([(1, 1, made(1)), (2, 1, made(2))])
    snapshot = index.snapshot()
    less = snapshot.without([1, 99])
    assert less.find(1) is None
    assert less.find(2) is not None
    assert less.hours < snapshot.hours
    assert snapshot.find(1) is not None


def test_small_volumes_are_merged_and_large_ones_left_alone() -> None:
    index = Index()
    large = Volume.build([(100 + i, 1, made(5)) for i in range(40)])
    index.load([large])
    index.apply([(1, 1, made(1))])
    index.seal()
    index.apply([(2, 1, made(2))])
    index.seal()
    volumes = index.snapshot().volumes
    assert volumes[0] is large
    assert [v.recordings.tolist() for v in volumes[1:]] == [[1, 2]]


def test_changes_during_a_merge_are_kept() -> None:
    """Sealing runs beside changes: nothing is lost, nothing comes back."""
    index = Index()
    index.apply([(i, 1, made(1 + i % 5)) for i in range(8)])
    stop = threading.Event()

    def seal() -> None:
        while not stop.is_set():
            index.seal(full=True)

    thread = threading.Thread(target=seal)
    thread.start()
    try:
        for step in range(40):
            index.apply([(step % 8, 2 + step, made(1 + step % 5))], [(step + 3) % 8])
    finally:
        stop.set()
        thread.join(timeout=30)
    truth = dict.fromkeys(range(8), 1)
    for step in range(40):
        truth.pop((step + 3) % 8, None)
        truth[step % 8] = 2 + step
    index.seal(full=True)
    volume = index.snapshot().volumes[0]
    found = dict(zip(volume.recording_id.tolist(), volume.revision.tolist(), strict=True))
    assert found == truth
    assert np.array_equal(volume.recording_id, sorted(truth))
