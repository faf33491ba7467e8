"""A catalogue compared with itself."""

import errno
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.songs import SAMPLE_RATE_HZ, cut, noise, song

from soundhash_engine import Fingerprint, Index, Snapshot, extract, join
from soundhash_engine import duplicate_join as joining
from soundhash_engine.duplicate_keys import Change, change_keys
from soundhash_engine.duplicates import (
    Duplicate,
    DuplicateKind,
    DuplicateOptions,
    find_duplicates,
)
from soundhash_engine.types import Pcm


def made(pcm: Pcm) -> Fingerprint:
    return join(extract(pcm))


def other_encoding(pcm: Pcm) -> Pcm:
    """Quieter, with a little noise, and begun between two frames."""
    hiss = noise(pcm.size / SAMPLE_RATE_HZ, 99, 0.004)[: pcm.size]
    return (0.7 * pcm[37:] + hiss[37:]).astype(np.float32)


@pytest.fixture(scope="module")
def strangers() -> list[Fingerprint]:
    return [made(song(25.0, 100 + seed)) for seed in range(8)]


def snapshot(prints: Sequence[Fingerprint], *, sealed: int = 0) -> Snapshot:
    """Of recordings 1, 2, 3 …; so many of them in a volume, the others in the tail."""
    index = Index()
    items = [(number, 1, one) for number, one in enumerate(prints, 1)]
    if sealed:
        index.apply(items[:sealed])
        index.seal(full=True)
    index.apply(items[sealed:])
    return index.snapshot()


def compared(
    view: Snapshot, *, only: Sequence[int] | None = None, min_shared_s: float = 10.0
) -> dict[tuple[int, int], Duplicate]:
    found: dict[tuple[int, int], Duplicate] = {}
    fraction = 0.0
    for told in find_duplicates(view, DuplicateOptions(min_shared_s, only)):
        assert told.fraction >= fraction
        fraction = told.fraction
        found |= {(one.first_id, one.second_id): one for one in told.found}
    assert fraction == 1.0
    return found


def test_another_encoding_is_the_same(strangers: list[Fingerprint]) -> None:
    whole = song(40.0, 1)
    view = snapshot([made(whole), *strangers, made(other_encoding(whole))], sealed=5)
    found = compared(view)
    assert list(found) == [(1, 10)]
    pair = found[1, 10]
    assert pair.kind is DuplicateKind.FULL
    assert pair.first_share > 0.97 and pair.second_share > 0.97
    (one,) = pair.ranges
    assert one.speed == one.pitch == 1.0
    assert one.confidence > 0.99


def test_an_excerpt_is_contained_in_the_longer_one(strangers: list[Fingerprint]) -> None:
    whole = song(60.0, 2)
    found = compared(snapshot([made(cut(whole, 20.0, 18.0)), *strangers, made(whole)]))
    assert list(found) == [(10, 1)]
    pair = found[10, 1]
    assert pair.kind is DuplicateKind.CONTAINS
    assert pair.second_share > 0.97
    assert pair.first_share == pytest.approx(0.3, abs=0.03)
    (one,) = pair.ranges
    assert one.first_start_s == pytest.approx(20.0, abs=0.3)
    assert one.first_end_s == pytest.approx(38.0, abs=0.7)
    assert one.second_start_s == pytest.approx(0.0, abs=0.1)


def test_a_mix_shares_its_passages_with_each(strangers: list[Fingerprint]) -> None:
    first, second = song(40.0, 3), song(40.0, 4)
    mix = np.concatenate([cut(first, 5.0, 20.0), song(12.0, 5), cut(second, 10.0, 15.0)])
    found = compared(snapshot([made(first), made(second), *strangers, made(mix)]))
    assert set(found) == {(11, 1), (11, 2)}
    for pair, start_s, at_s, length_s in (
        (found[11, 1], 0.0, 5.0, 20.0),
        (found[11, 2], 32.0, 10.0, 15.0),
    ):
        assert pair.kind is DuplicateKind.PARTIAL
        (one,) = pair.ranges
        assert one.first_start_s == pytest.approx(start_s, abs=0.8)
        assert one.first_end_s == pytest.approx(start_s + length_s, abs=0.8)
        assert one.second_start_s == pytest.approx(at_s, abs=0.8)
        assert one.second_end_s == pytest.approx(at_s + length_s, abs=0.8)
        assert pair.second_share == pytest.approx(length_s / 40.0, abs=0.03)


@pytest.mark.parametrize(
    ("tempo", "pitch"), [(1.08, 1.08), (0.8, 0.8), (1.1, 1.0), (1.0, 2 ** (1 / 12))]
)
def test_a_changed_copy_tells_its_speed_and_pitch(
    strangers: list[Fingerprint], tempo: float, pitch: float
) -> None:
    copy = song(40.0 / tempo, 6, tempo=tempo, pitch=pitch)
    found = compared(snapshot([made(song(40.0, 6)), *strangers, made(copy)]))
    (pair,) = found.values()
    assert {pair.first_id, pair.second_id} == {1, 10}
    assert pair.kind is DuplicateKind.FULL
    sign = -1.0 if pair.first_id == 1 else 1.0
    (one,) = pair.ranges
    assert one.speed == pytest.approx(tempo**sign, rel=0.003)
    assert one.pitch == pytest.approx(pitch**sign, rel=0.003)


def test_strangers_share_nothing(strangers: list[Fingerprint]) -> None:
    assert compared(snapshot(strangers), min_shared_s=3.0) == {}


def test_loops_in_one_recording_are_no_pairs_and_few_lines(strangers: list[Fingerprint]) -> None:
    bar = song(4.0, 7)
    loops = np.tile(bar, 20)
    found = compared(snapshot([made(loops), *strangers, made(other_encoding(loops))]))
    (pair,) = found.values()
    assert pair.kind is DuplicateKind.FULL
    # Twenty turns lie on one another in hundreds of ways: the whole one is told.
    assert len(pair.ranges) <= 3
    assert pair.ranges[0].second_end_s - pair.ranges[0].second_start_s > 70.0


def test_a_jingle_in_all_recordings_is_told_to_the_next_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jingle = song(12.0, 8)
    prints = [made(np.concatenate([jingle, song(6.0, 200 + seed)])) for seed in range(12)]
    everything = compared(snapshot(prints))
    assert len(everything) == 12 * 11 / 2
    monkeypatch.setattr(joining, "MOST_PARTNERS", 2)
    found = compared(snapshot(prints))
    # Not every key is in every recording: some reach a little further than to the next two.
    assert 11 + 10 <= len(found) <= 2 * (11 + 10)
    assert {(number, number + 1) for number in range(1, 12)} <= {(min(p), max(p)) for p in found}
    assert all(pair.kind is DuplicateKind.PARTIAL for pair in found.values())
    asked = compared(snapshot(prints), only=[6])
    assert len(asked) == 11 and all(6 in pair for pair in asked)


def test_only_pairs_with_chosen_recordings(strangers: list[Fingerprint]) -> None:
    one, other = song(25.0, 9), song(25.0, 10)
    view = snapshot([made(one), made(one), *strangers, made(other), made(other)])
    assert set(compared(view)) == {(1, 2), (11, 12)}
    assert set(compared(view, only=[12, 3])) == {(11, 12)}
    assert compared(view, only=[5]) == {}
    assert compared(view, only=[]) == {}


def test_short_passages_are_told_when_asked_for(strangers: list[Fingerprint]) -> None:
    part = song(5.0, 11)
    first = np.concatenate([song(15.0, 12), part, song(15.0, 13)])
    second = np.concatenate([song(9.0, 14), part, song(15.0, 15)])
    view = snapshot([made(first), made(second), *strangers])
    assert compared(view) == {}
    pair = compared(view, min_shared_s=4.0)[1, 2]
    (one,) = pair.ranges
    assert one.first_start_s == pytest.approx(15.0, abs=1.0)
    assert one.second_start_s == pytest.approx(9.0, abs=1.0)


def test_what_does_not_count_is_left_out() -> None:
    whole = made(song(25.0, 16))
    view = snapshot([whole, whole, whole], sealed=2)
    assert set(compared(view)) == {(1, 2), (1, 3), (2, 3)}
    assert set(compared(view.without([2]))) == {(1, 3)}


@pytest.mark.parametrize("number", [0, 1])
def test_nothing_to_compare(number: int) -> None:
    view = snapshot([made(song(15.0, 17)) for _ in range(number)])
    assert compared(view) == {}


def test_silence_between_is_no_border(strangers: list[Fingerprint]) -> None:
    pause = np.zeros(8 * SAMPLE_RATE_HZ, np.float32)
    whole = np.concatenate([pause, song(15.0, 18), pause, song(15.0, 19)])
    found = compared(snapshot([made(whole), made(other_encoding(whole)), *strangers]))
    pair = found[1, 2]
    assert pair.kind is DuplicateKind.FULL
    assert len(pair.ranges) <= 2


def test_files_give_the_same_as_memory_and_vanish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strangers: list[Fingerprint]
) -> None:
    whole = song(40.0, 20)
    view = snapshot([made(whole), *strangers, made(other_encoding(whole))])
    expected = compared(view)
    seen = 0
    monkeypatch.setattr(joining, "PART_KEYS", 200)
    monkeypatch.setattr(joining, "BATCH_KEYS", 500)
    found: dict[tuple[int, int], Duplicate] = {}
    for told in find_duplicates(view, folder=tmp_path):
        seen = max(seen, len(list(tmp_path.rglob("*.keys"))))
        found |= {(one.first_id, one.second_id): one for one in told.found}
    assert seen > 4
    assert found == expected
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strangers: list[Fingerprint]
) -> None:
    monkeypatch.setattr(joining, "PART_KEYS", 200)
    (tmp_path / "speed-0001.keys").symlink_to("/dev/full")
    line = joining.TimeLine.of(snapshot(strangers))
    with joining.KeyFiles(tmp_path, line, Change.SPEED) as keys, pytest.raises(OSError) as error:
        list(keys.make(None))
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_what_check_raises_ends_it_and_leaves_nothing(
    tmp_path: Path, strangers: list[Fingerprint]
) -> None:
    class Stopped(Exception):  # noqa: N818 - no error
        pass

    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 12:
            raise Stopped

    with pytest.raises(Stopped):
        list(find_duplicates(snapshot(strangers), folder=tmp_path, check=check))
    assert list(tmp_path.iterdir()) == []


def test_a_key_of_more_targets_is_for_large_catalogues(
    monkeypatch: pytest.MonkeyPatch, strangers: list[Fingerprint]
) -> None:
    marks = strangers[0].landmarks
    few, _, _ = change_keys(marks, Change.SPEED)
    many, _, _ = change_keys(marks, Change.SPEED, 4)
    assert 0.8 < len(many) / len(few) < 1.2
    assert not set(few.tolist()) & set(many.tolist())
    whole = song(40.0, 21)
    view = snapshot([made(whole), *strangers, made(other_encoding(whole))])
    monkeypatch.setattr(joining, "MANY_TARGETS_HOURS", 0.0)
    assert compared(view)[1, 10].kind is DuplicateKind.FULL


def test_made_keys_do_not_depend_on_how_many_are_made_at_once() -> None:
    marks = made(song(30.0, 22)).landmarks
    for change in Change:
        keys, frames, scales = change_keys(marks, change)
        assert len(keys) == len(frames) == len(scales) > 100
        assert (np.diff(frames) >= 0).all()
