"""The index: whatever is applied, removed, replaced and sealed, it holds what a dict would."""

import dataclasses
import functools
import threading

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.sounds import tune

from soundhash_engine import Fingerprint, extract, join, match
from soundhash_engine.index import Index
from soundhash_engine.params import PARAMS
from soundhash_engine.sealing import Merge
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

    @rule(ids=st.sets(IDS), stale=st.sets(IDS, max_size=2), parts=st.integers(1, 2))
    def follow_another_server(self, ids: set[int], stale: set[int], parts: int) -> None:
        """Another process has put volumes of what it knows in the place of ours."""
        known = [(i, *self.truth[i]) for i in sorted(ids & self.truth.keys())]
        # What this index does not know, not yet or no more.
        known += [(i, 99, 1 + i % 5) for i in sorted(stale - ids)]
        volumes = [
            Volume.build([(i, revision, made(seed)) for i, revision, seed in known[at::parts]])
            for at in range(parts)
        ]
        tail = {
            int(i)
            for volume in self.index.snapshot().volumes[len(self.index.volumes()) :]
            for i in volume.recording_id
        }
        lost = self.index.adopt(volumes)
        assert lost.keys() >= self.truth.keys() - ids - tail
        assert not lost.keys() & ids
        assert self.index.volumes() == tuple(volumes)
        there = self.index.revive({i: self.truth[i][0] for i in ids & self.truth.keys()})
        assert there == ids & self.truth.keys()
        self.index.apply([(i, r, made(self.truth[i][1])) for i, r in lost.items()])

    @rule(at=st.integers(0, 3))
    def drop_a_volume(self, at: int) -> None:
        chosen = self.index.volumes()[at : at + 1]
        lost = self.index.drop(chosen)
        assert not any(v is one for v in self.index.volumes() for one in chosen)
        self.index.apply([(i, r, made(self.truth[i][1])) for i, r in lost.items()])

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


def test_what_returns_to_the_catalogue_is_found_where_it_lies() -> None:
    index = Index()
    index.load([Volume.build([(1, 4, made(1)), (2, 1, made(2))])])
    index.remove([1])
    assert index.revive({1: 5, 2: 1, 3: 1}) == {2}
    assert index.revive({1: 4}) == {1}
    assert index.snapshot().find(1) is not None
    # A newer one in the tail gives way to the revision that is wanted.
    index.apply([(1, 5, made(3))])
    assert index.revive({1: 4}) == {1}
    place = index.snapshot().find(1)
    assert place is not None
    assert place[0].revision[place[1]] == 4
    assert index.status().tail_recordings == 0


def test_the_tail_grows_by_few_and_cheap_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thousand small changes sort and copy grows like n log n, not like n²."""
    index = Index()
    copied: list[int] = []
    in_memory = Merge.in_memory

    def counted(merge: Merge) -> Volume:
        volume = in_memory(merge)
        copied.append(len(volume.recording_id))
        return volume

    monkeypatch.setattr(Merge, "in_memory", counted)
    count = 300
    for i in range(count):
        index.apply([(i, 1, made(1))])
        assert len(index.snapshot().volumes) <= 1 + np.log2(i + 1)
    assert index.snapshot().recordings == count
    assert sum(copied) <= 2 * count * np.log2(count)


def test_sealing_writes_each_hour_a_few_times_and_leaves_few_volumes() -> None:
    index = Index()
    written = 0
    for i in range(64):
        index.apply([(i, 1, made(1))])
        sealed = index.seal()
        assert sealed is not None
        written += len(sealed.recording_id)
        assert len(index.volumes()) <= 1 + np.log2(i + 1)
    assert written <= 64 * (1 + np.log2(64))


def test_in_quiet_few_and_large_volumes_are_left() -> None:
    index = Index()
    counts = (200, 30, 9, 3, 1)
    firsts = np.cumsum([0, *counts]).tolist()
    parts = [
        Volume.build([(first + i, 1, made(1)) for i in range(count)])
        for first, count in zip(firsts, counts, strict=False)
    ]
    index.load(parts)
    # 1 + 3 + 9 + 30 < 200 / 4: the largest one is not worth its copy.
    assert index.seal(ratio=4.0) is not None
    assert [len(volume.recording_id) for volume in index.volumes()] == [200, 43]
    assert index.volumes()[0] is parts[0]
    assert index.seal(ratio=4.0) is None
    assert index.seal(ratio=8.0) is not None
    assert len(index.volumes()) == 1
    assert index.seal(ratio=8.0) is None


def test_volumes_of_earlier_search_parameters_answer_until_they_are_made_anew() -> None:
    earlier = dataclasses.replace(
        PARAMS, search=dataclasses.replace(PARAMS.search, triple_rank_limit=12)
    )
    songs = {i: tune(20.0, 40 + i) for i in range(4)}
    old = Volume.build([(i, 1, join(extract(pcm))) for i, pcm in songs.items()], earlier)
    index = Index()
    index.load([Volume.from_arrays(old.meta(), old.arrays())])
    index.remove([3])

    def found() -> list[int]:
        clips = {i: pcm[40_000:80_000] for i, pcm in songs.items()}
        return [
            i
            for i, clip in clips.items()
            if any(m.recording_id == i for m in match(index.snapshot(), clip).matches)
        ]

    assert found() == [0, 1, 2]
    assert index.status().outdated_recordings == 3
    hours = 25.0 / 3600.0
    assert index.renew(hours) == 2
    assert index.status().outdated_recordings == 1
    assert found() == [0, 1, 2]
    index.seal()
    assert old.search in {volume.search for volume in index.volumes()}
    assert index.renew(hours) == 1
    assert index.renew(hours) == 0
    index.seal(full=True)
    assert found() == [0, 1, 2]
    assert index.status().outdated_recordings == 0
    assert [volume.search for volume in index.volumes()] == [PARAMS.search]


def test_nothing_is_written_where_nothing_is_left() -> None:
    index = Index()
    index.load([Volume.build([(1, 1, made(1))])])
    index.remove([1])
    assert index.seal() is None
    assert index.volumes() == ()


def test_a_failed_write_changes_nothing() -> None:
    index = Index()
    index.apply([(1, 1, made(1))])

    def fails(merge: Merge) -> Volume:
        index.apply([(2, 1, made(2))])
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        index.seal(fails)
    assert index.volumes() == ()
    assert index.snapshot().recordings == 2
    assert index.seal() is not None
    assert index.snapshot().recordings == 2


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
