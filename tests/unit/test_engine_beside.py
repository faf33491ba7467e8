"""An index with another beside it: one search, and neither takes anything from the other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.songs import cut, noise, song

from soundhash_engine import PARAMS, Fingerprint, Index, MatchOptions, extract, join
from soundhash_engine.layout import thin_out
from soundhash_engine.live import LiveMatcher, Provisional
from soundhash_engine.matcher import match
from soundhash_engine.types import Pcm

LATEST = dataclasses.replace(PARAMS, latest_of_a_key=12)
JINGLE = song(12.0, seed=3)
CLIP = cut(JINGLE, 2.0, 6.0)


def airing(number: int) -> Fingerprint:
    """The jingle between other sounds, a little different each time."""
    before = song(9.0 + 0.1 * number, seed=100 + number)
    after = song(6.0, seed=200 + number)
    pcm = np.concatenate([before, JINGLE, after]).astype(np.float32)
    return join(extract(pcm + noise(pcm.size / 8000, number, 0.002)[: pcm.size]))


@pytest.fixture(scope="module")
def airings() -> list[Fingerprint]:
    return [airing(number) for number in range(40)]


@pytest.fixture(scope="module")
def catalogue() -> Index:
    index = Index()
    index.apply([(1, 1, join(extract(JINGLE))), (2, 1, join(extract(song(40.0, seed=4))))])
    return index


def air_index(airings: list[Fingerprint]) -> Index:
    index = Index(LATEST)
    for number, fingerprint in enumerate(airings):
        index.apply([(1000 + number, 1, fingerprint)])
    index.seal()
    return index


def ids(index: Index, clip: Pcm = CLIP, **options: int) -> list[int]:
    found = match(index.snapshot(), clip, MatchOptions(**options)).matches
    return [one.recording_id for one in found]


def test_repetitions_hide_nothing_of_what_is_beside(
    catalogue: Index, airings: list[Fingerprint]
) -> None:
    together = Index()
    together.apply([(1, 1, join(extract(JINGLE)))])
    together.apply([(1000 + n, 1, fingerprint) for n, fingerprint in enumerate(airings)])
    together.seal()
    # The reason for all this: of so many that are alike only some are looked at.
    assert 1 not in ids(together, top=50)
    beside = catalogue.snapshot().beside(air_index(airings).snapshot())
    found = match(beside, CLIP, MatchOptions(top=5)).matches
    assert 1 in [one.recording_id for one in found]
    on_air = [one.recording_id for one in found if one.recording_id >= 1000]
    assert len(on_air) >= 8
    alone = match(catalogue.snapshot(), CLIP).matches[0]
    same = next(one for one in found if one.recording_id == 1)
    assert (same.video_start_s, same.score) == (alone.video_start_s, alone.score)


def test_the_search_goes_on_for_the_index_whatever_is_found_beside(catalogue: Index) -> None:
    """On the air it plays as in the clip; in the index it is slower, which a first look misses."""
    fast = song(20.0, seed=4, tempo=1.09, start_s=5.0)
    air = Index(LATEST)
    air.apply([(1000, 1, join(extract(fast)))])
    clip = cut(fast, 5.0, 8.0)
    found = match(catalogue.snapshot().beside(air.snapshot()), clip).matches
    assert {one.recording_id for one in found} == {2, 1000}
    by_id = {one.recording_id: one for one in found}
    assert by_id[1000].speed == pytest.approx(1.0, abs=0.002)
    assert by_id[2].speed == pytest.approx(1.09, abs=0.01)


def test_an_empty_index_lets_what_is_beside_decide(airings: list[Fingerprint]) -> None:
    beside = Index().snapshot().beside(air_index(airings[:3]).snapshot())
    result = match(beside, CLIP)
    assert {one.recording_id for one in result.matches} == {1000, 1001, 1002}
    assert result.rounds == 1


def test_nothing_beside_is_the_index_itself(catalogue: Index) -> None:
    snapshot = catalogue.snapshot()
    assert snapshot.beside(Index().snapshot()) is snapshot


def test_views_keep_what_is_beside(catalogue: Index, airings: list[Fingerprint]) -> None:
    air = air_index(airings[:3])
    both = catalogue.snapshot().beside(air.snapshot())
    assert (both.aside, both.recordings) == (1, 5)
    less = both.without([1001])
    assert (less.aside, less.recordings) == (1, 4)
    assert less.hours_aside == pytest.approx(both.hours_aside * 2 / 3, rel=0.02)
    assert less.hours - less.hours_aside == pytest.approx(catalogue.snapshot().hours)


def test_a_stream_finds_both(catalogue: Index, airings: list[Fingerprint]) -> None:
    both = catalogue.snapshot().beside(air_index(airings).snapshot())
    live = LiveMatcher()
    live.push(JINGLE[: 8 * 8000])
    seen = {event.match.recording_id for event in live.step(both) if isinstance(event, Provisional)}
    assert 1 in seen
    assert any(one >= 1000 for one in seen)


@pytest.mark.parametrize("latest", [0, 3])
def test_frequent_keys_are_thinned_out_alike_in_parts_and_at_once(latest: int) -> None:
    random = np.random.default_rng(1)
    bits = 20
    keys = random.integers(0, 5, 2000).astype(np.uint64) << np.uint64(bits)
    all_numbers = np.sort(keys | np.arange(2000, dtype=np.uint64))

    def thin(numbers: np.ndarray) -> np.ndarray:
        made = numbers.copy()
        return made[: thin_out(made, bits, latest)]

    at_once = thin(all_numbers)
    frame = all_numbers & np.uint64((1 << bits) - 1)
    parts = [thin(all_numbers[(frame >= a) & (frame < a + 700)]) for a in (0, 700, 1400)]
    assert np.array_equal(thin(np.sort(np.concatenate(parts))), at_once)
    counts = np.unique(at_once >> np.uint64(bits), return_counts=True)[1]
    assert counts.max() == (latest or 160)
    if latest:
        own = all_numbers[all_numbers >> np.uint64(bits) == 0]
        assert np.array_equal(at_once[:latest], own[-latest:])
