"""Volumes: the same recordings give the same arrays, however they came together."""

import dataclasses
import functools
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.sounds import tune

from soundhash_engine import CorruptFingerprint, Fingerprint, ParamsMismatch, extract, join, merging
from soundhash_engine import volume as volume_module
from soundhash_engine.layout import CHECK_BITS, GAP_FRAMES, KEY_BITS, MOST_OF_A_KEY
from soundhash_engine.merging import Collected
from soundhash_engine.params import PARAMS
from soundhash_engine.triples import reference_triples
from soundhash_engine.volume import Volume


@functools.cache
def some_prints() -> list[Fingerprint]:
    return [join(extract(tune(8.0 + 3 * seed, seed))) for seed in range(1, 5)]


@pytest.fixture(scope="module")
def prints() -> list[Fingerprint]:
    return some_prints()


def same(first: Volume, second: Volume) -> bool:
    return first.meta() == second.meta() and all(
        np.array_equal(array, second.arrays()[name]) for name, array in first.arrays().items()
    )


def test_every_triple_is_found_where_its_hash_points(prints: list[Fingerprint]) -> None:
    volume = Volume.build([(10 + i, 1, p) for i, p in enumerate(prints)])
    total = 0
    for row, fingerprint in enumerate(prints):
        hashes, anchors = reference_triples(fingerprint.landmarks)
        total += len(hashes)
        base = int(volume.base_frame[row])
        for h, anchor in zip(hashes.tolist(), anchors.tolist(), strict=True):
            key = h >> (64 - KEY_BITS)
            bucket = key >> (KEY_BITS - volume.bits)
            check = (key >> (KEY_BITS - volume.bits - CHECK_BITS)) & 255
            rest = key & ((1 << (KEY_BITS - volume.bits - CHECK_BITS)) - 1)
            word = rest << volume.frame_bits | (base + anchor // 2)
            part = slice(int(volume.bucket[bucket]), int(volume.bucket[bucket + 1]))
            entries = zip(volume.post[part].tolist(), volume.check[part].tolist(), strict=True)
            assert (word, check) in set(entries)
    assert volume.triples == total


def test_landmarks_and_descriptors_come_back(prints: list[Fingerprint]) -> None:
    volume = Volume.build([(7, 1, prints[0]), (3, 2, prints[1])])
    assert volume.recordings.tolist() == [3, 7]
    assert volume.revision.tolist() == [2, 1]
    for recording_id, fingerprint in ((3, prints[1]), (7, prints[0])):
        row = volume.row_of(recording_id)
        assert row is not None
        assert volume.landmarks(row) == fingerprint.landmarks
        rows = volume.descriptor[volume.first_row[row] : volume.first_row[row + 1]]
        assert np.array_equal(rows, fingerprint.descriptor)
    assert volume.row_of(5) is None
    assert volume.hours == pytest.approx((prints[0].duration_s + prints[1].duration_s) / 3600)


def test_recordings_lie_far_apart_on_the_time_line(prints: list[Fingerprint]) -> None:
    volume = Volume.build([(i, 1, p) for i, p in enumerate(prints)])
    ends = volume.base_frame + volume.n_frames
    assert volume.base_frame[0] >= GAP_FRAMES
    assert (volume.base_frame[1:] - ends[:-1] >= GAP_FRAMES).all()


def test_neither_order_nor_parts_change_the_arrays(prints: list[Fingerprint]) -> None:
    items = [(i, 1, p) for i, p in enumerate(prints)]
    at_once = Volume.build(items)
    for order in itertools.permutations(items):
        assert same(Volume.build(order), at_once)
    parts = [Volume.build(items[:1]), Volume.build(items[1:3]), Volume.build(items[3:])]
    assert same(Volume.merge(parts), at_once)
    assert same(Volume.merge(parts[::-1]), at_once)


def test_merging_leaves_out_what_is_dead(prints: list[Fingerprint]) -> None:
    whole = Volume.build([(i, 1, p) for i, p in enumerate(prints)])
    kept = Volume.build([(i, 1, p) for i, p in enumerate(prints) if i != 2])
    assert same(Volume.merge([whole], lambda i, _: i != 2), kept)


def test_of_two_revisions_the_higher_stays(prints: list[Fingerprint]) -> None:
    old, new = Volume.build([(1, 1, prints[0])]), Volume.build([(1, 2, prints[1])])
    assert same(Volume.merge([old, new]), new)
    assert same(Volume.merge([new, old]), new)
    assert same(Volume.build([(1, 2, prints[1]), (1, 1, prints[0])]), new)


def test_small_steps_give_the_same_arrays(
    prints: list[Fingerprint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little a merge holds at a time, and however a long build is cut up."""
    items = [(i, 1, prints[i * 7 % 4]) for i in range(40)]
    at_once = Volume.build(items)
    monkeypatch.setattr(volume_module, "PIECE_HOURS", 30.0 / 3600.0)
    assert same(Volume.build(items), at_once)
    assert same(Volume.build(items[::-1]), at_once)
    monkeypatch.setattr(merging, "PART_POSTINGS", 50)
    monkeypatch.setattr(merging, "COPY_BYTES", 100)
    assert same(Volume.build(items), at_once)


def test_of_a_key_that_is_everywhere_the_first_are_kept(prints: list[Fingerprint]) -> None:
    """More than any volume lets vote, and the same ones however the volume came together."""
    count = MOST_OF_A_KEY + 40
    short = join(extract(tune(1.5, 3)))
    items = [(i, 1, short) for i in range(count)]
    keys = len(reference_triples(short.landmarks)[0])
    at_once = Volume.build(items)
    assert keys > 0
    assert at_once.triples <= keys * MOST_OF_A_KEY
    assert same(Volume.build(items[:MOST_OF_A_KEY]), Volume.build(items[:MOST_OF_A_KEY][::-1]))
    parts = [Volume.build(items[at::3]) for at in range(3)]
    assert same(Volume.merge(parts), at_once)
    halves = [Volume.build(items[: count // 2]), Volume.build(items[count // 2 :])]
    assert same(Volume.merge([Volume.merge(halves)]), at_once)


class Measured(Collected):
    """Notes the longest part of each array."""

    def __init__(self) -> None:
        super().__init__()
        self.longest: dict[str, int] = {}

    def append(self, name: str, part: NDArray[Any]) -> None:
        self.longest[name] = max(self.longest.get(name, 0), part.nbytes)
        super().append(name, part)


def test_a_merge_holds_little_of_what_is_large(
    prints: list[Fingerprint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "PART_POSTINGS", 200)
    monkeypatch.setattr(merging, "COPY_BYTES", 1000)
    parts = [
        Volume.build([(i, 1, prints[i % 4]) for i in range(first, 60, 3)]) for first in range(3)
    ]
    sink = Measured()
    merging.merge(parts, merging.newest(parts), sink)
    whole = sum(part.nbytes for part in parts)
    large = ("post", "check", "bucket", "peaks", "descriptor")
    assert sum(sink.longest[name] for name in large) < whole / 50


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_merge_is_what_a_build_of_its_rows_is(data: st.DataObject) -> None:
    made = some_prints()
    rows = st.tuples(st.integers(0, 9), st.integers(0, 2))
    parts = data.draw(
        st.lists(st.lists(rows, unique_by=lambda one: one[0], max_size=5), max_size=4)
    )
    # An id and a revision always mean the same content.
    volumes = [Volume.build([(i, r, made[(i + r) % 4]) for i, r in part]) for part in parts]
    dead = data.draw(st.sets(st.integers(0, 9)))
    best: dict[int, int] = {}
    for part in parts:
        for i, r in part:
            best[i] = max(r, best.get(i, r))
    expected = Volume.build([(i, r, made[(i + r) % 4]) for i, r in best.items() if i not in dead])
    assert same(Volume.merge(volumes, lambda i, _: i not in dead), expected)


def test_volumes_of_other_search_parameters_are_read_but_not_merged(
    prints: list[Fingerprint],
) -> None:
    other = dataclasses.replace(
        PARAMS, search=dataclasses.replace(PARAMS.search, triple_rank_limit=10)
    )
    old = Volume.build([(1, 1, prints[0])], other)
    again = Volume.from_arrays(old.meta(), old.arrays())
    assert again.search.triple_rank_limit == 10
    assert again.fingerprint(0).landmarks == prints[0].landmarks
    assert np.array_equal(again.fingerprint(0).descriptor, prints[0].descriptor)
    with pytest.raises(ParamsMismatch):
        Volume.merge([again, Volume.build([(2, 1, prints[1])])])


def test_an_empty_volume_is_a_volume() -> None:
    empty = Volume.build(())
    assert empty.triples == 0
    assert empty.hours == 0
    assert same(Volume.from_arrays(empty.meta(), empty.arrays()), empty)


def test_arrays_survive_files_and_memory_maps(prints: list[Fingerprint], tmp_path: Path) -> None:
    volume = Volume.build([(i, 1, p) for i, p in enumerate(prints)])
    meta = json.loads(json.dumps(volume.meta()))
    for name, array in volume.arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in volume.arrays()}
    again = Volume.from_arrays(meta, mapped)
    assert same(again, volume)
    assert again.nbytes == volume.nbytes


def test_what_does_not_fit_is_refused(prints: list[Fingerprint]) -> None:
    volume = Volume.build([(1, 1, prints[0])])
    with pytest.raises(ParamsMismatch):
        Volume.from_arrays({**volume.meta(), "params_digest": "another"}, volume.arrays())
    with pytest.raises(ParamsMismatch):
        Volume.from_arrays({**volume.meta(), "format": 0}, volume.arrays())
    short = {**volume.arrays(), "post": volume.post[:-1]}
    with pytest.raises(CorruptFingerprint):
        Volume.from_arrays(volume.meta(), short)
    assert len(volume.bucket) > 3
    for name in ("bucket", "block", "base_frame", "first_row"):
        damaged = volume.arrays()[name].copy()
        damaged[len(damaged) // 2] += 7_000_000
        with pytest.raises(CorruptFingerprint):
            Volume.from_arrays(volume.meta(), {**volume.arrays(), name: damaged})
    for change in ({"frame_bits": 14}, {"triples": {"triple_nonsense": 1}}, {"triples": None}):
        with pytest.raises(CorruptFingerprint):
            Volume.from_arrays({**volume.meta(), **change}, volume.arrays())
    lacking = {k: v for k, v in volume.arrays().items() if k != "peaks"}
    with pytest.raises(CorruptFingerprint):
        Volume.from_arrays(volume.meta(), lacking)


def test_size_an_hour_is_what_the_design_says() -> None:
    # Made-up music is as dense as real one: a bound, not a measurement.
    fingerprint = join(extract(tune(120.0, 9)))
    volume = Volume.build([(i, 1, fingerprint) for i in range(5)])
    index_bytes = volume.nbytes - volume.descriptor.nbytes
    assert index_bytes / volume.hours < 1.6e6
    assert volume.peaks.nbytes == 3 * len(fingerprint.landmarks) * 5
    assert volume.descriptor.nbytes / volume.hours < 1.6e6
    assert PARAMS.descriptor_row_bytes == volume.descriptor.shape[1]
