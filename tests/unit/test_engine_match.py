"""Matching owes three things: the right recording, the right place, and silence about the rest."""

import math

import numpy as np
import pytest
from tests.songs import cut, noise, song

from soundhash_engine import ClipTooLong, ClipTooShort, SilentAudio, extract, join
from soundhash_engine.index import Index, Snapshot
from soundhash_engine.matcher import Match, MatchOptions, match

LENGTH_S = 40.0


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """Songs 1 to 6, half of them sealed, half in the tail."""
    index = Index()
    items = [(seed, 1, join(extract(song(LENGTH_S, seed)))) for seed in range(1, 7)]
    index.apply(items[:3])
    index.seal()
    index.apply(items[3:])
    return index.snapshot()


def only(snapshot: Snapshot, clip: np.ndarray) -> Match:
    result = match(snapshot, clip)
    assert len(result.matches) == 1
    return result.matches[0]


@pytest.mark.parametrize("length_s", [1.0, 2.0, 3.0, 5.0, 10.0])
@pytest.mark.parametrize("seed", [2, 5])
def test_a_clean_clip_is_found_where_it_is(snapshot: Snapshot, seed: int, length_s: float) -> None:
    found = only(snapshot, cut(song(LENGTH_S, seed), 17.3, length_s))
    assert found.recording_id == seed
    assert found.video_start_s == pytest.approx(17.3, abs=0.02)
    assert found.video_end_s == pytest.approx(17.3 + length_s, abs=0.02)
    assert (found.clip_start_s, found.clip_end_s) == (0.0, length_s)
    assert found.speed == pytest.approx(1.0, abs=0.002)
    assert found.pitch == pytest.approx(1.0, abs=0.002)
    assert found.confidence > 0.9
    assert found.parts.identity
    assert found.parts.correlation > 0.8
    assert found.parts.distance == pytest.approx(math.sqrt(2 - 2 * found.parts.correlation))


@pytest.mark.parametrize("length_s", [2.0, 5.0, 10.0, 25.0])
def test_what_is_not_indexed_is_not_found(snapshot: Snapshot, length_s: float) -> None:
    assert match(snapshot, cut(song(LENGTH_S, 99), 8.0, length_s)).matches == ()
    assert match(snapshot, noise(length_s, 4)).matches == ()


def test_a_hidden_recording_is_not_found(snapshot: Snapshot) -> None:
    clip = cut(song(LENGTH_S, 2), 10.0, 5.0)
    assert match(snapshot.without([2]), clip).matches == ()


def test_noise_over_a_clip_is_no_obstacle(snapshot: Snapshot) -> None:
    clip = cut(song(LENGTH_S, 4), 21.0, 6.0)
    loud = float(np.sqrt(np.mean(clip**2)))
    found = only(snapshot, clip + noise(6.0, 8, loud))
    assert found.recording_id == 4
    assert found.video_start_s - found.speed * found.clip_start_s == pytest.approx(21.0, abs=0.05)


@pytest.mark.parametrize(
    ("tempo", "pitch"),
    [
        (1.05, 1.05),
        (0.8, 0.8),
        (1.25, 1.25),
        (1.1, 1.0),
        (0.9, 1.0),
        (1.0, 2 ** (2 / 12)),
        (1.0, 2 ** (-2 / 12)),
        (1.08, 2 ** (-1 / 12)),
    ],
)
def test_changed_speed_tempo_and_pitch_are_found_and_told(
    snapshot: Snapshot, tempo: float, pitch: float
) -> None:
    clip = song(6.0, 3, tempo=tempo, pitch=pitch, start_s=12.0)
    found = only(snapshot, clip)
    assert found.recording_id == 3
    assert found.speed == pytest.approx(tempo, rel=0.005)
    assert found.pitch == pytest.approx(pitch, rel=0.005)
    start_s = found.video_start_s - found.speed * found.clip_start_s
    assert start_s == pytest.approx(12.0, abs=0.1)


def test_equal_places_of_a_loop_are_all_told() -> None:
    phrase = song(6.0, 20)
    whole = np.concatenate([song(7.0, 21), phrase, phrase, phrase, song(5.0, 22)])
    index = Index()
    index.apply([(1, 1, join(extract(whole))), (2, 1, join(extract(song(30.0, 23))))])
    found = only(index.snapshot(), cut(phrase, 1.5, 3.5))
    places = sorted([found.video_start_s, *found.also_at_s])
    assert found.recording_id == 1
    assert places == pytest.approx([8.5, 14.5, 20.5], abs=0.05)


@pytest.mark.parametrize(("first_s", "second_s"), [(5.0, 6.0), (14.0, 13.0)])
def test_two_recordings_in_one_clip_are_two_matches(
    snapshot: Snapshot, first_s: float, second_s: float
) -> None:
    clip = np.concatenate(
        [cut(song(LENGTH_S, 1), 5.0, first_s), cut(song(LENGTH_S, 6), 20.0, second_s)]
    )
    found = sorted(match(snapshot, clip).matches, key=lambda m: m.clip_start_s)
    assert [m.recording_id for m in found] == [1, 6]
    assert found[0].clip_start_s == pytest.approx(0.0, abs=0.1)
    assert found[0].clip_end_s == pytest.approx(first_s, abs=0.8)
    assert found[0].video_start_s == pytest.approx(5.0, abs=0.1)
    assert found[1].clip_start_s == pytest.approx(first_s, abs=0.8)
    assert found[1].clip_end_s == pytest.approx(first_s + second_s, abs=0.1)
    assert found[1].video_end_s == pytest.approx(20.0 + second_s, abs=0.1)


def test_only_the_part_that_is_indexed_is_the_range(snapshot: Snapshot) -> None:
    clip = np.concatenate([noise(8.0, 3), cut(song(LENGTH_S, 2), 6.0, 14.0), noise(9.0, 5)])
    found = only(snapshot, clip)
    assert found.recording_id == 2
    assert found.clip_start_s == pytest.approx(8.0, abs=0.8)
    assert found.clip_end_s == pytest.approx(22.0, abs=0.8)
    assert found.video_start_s == pytest.approx(6.0 + found.clip_start_s - 8.0, abs=0.1)


def test_a_long_clip_is_one_match_from_end_to_end(snapshot: Snapshot) -> None:
    found = only(snapshot, cut(song(LENGTH_S, 5), 2.0, 36.0))
    assert found.recording_id == 5
    assert (found.clip_start_s, found.clip_end_s) == (0.0, 36.0)
    assert found.video_start_s == pytest.approx(2.0, abs=0.02)
    assert found.video_end_s == pytest.approx(38.0, abs=0.02)


def test_a_very_long_clip_is_one_match_too() -> None:
    index = Index()
    index.apply([(1, 1, join(extract(song(90.0, 50)))), (2, 1, join(extract(song(20.0, 51))))])
    found = only(index.snapshot(), cut(song(90.0, 50), 3.0, 78.0))
    assert (found.clip_start_s, found.clip_end_s) == (0.0, 78.0)
    assert (found.video_start_s, found.video_end_s) == pytest.approx((3.0, 81.0), abs=0.02)


def test_the_same_recording_twice_is_told_twice_up_to_top() -> None:
    copy = join(extract(song(20.0, 30)))
    index = Index()
    index.apply([(5, 1, copy), (9, 1, copy)])
    clip = cut(song(20.0, 30), 4.0, 5.0)
    result = match(index.snapshot(), clip)
    assert [m.recording_id for m in result.matches] == [5, 9]
    assert result.matches[0].score == result.matches[1].score
    assert len(match(index.snapshot(), clip, MatchOptions(top=1)).matches) == 1


def test_the_answer_depends_on_nothing_but_clip_and_catalogue() -> None:
    prints = [(seed, 1, join(extract(song(20.0, seed)))) for seed in range(40, 46)]
    clip = cut(song(20.0, 42), 9.0, 4.0) + noise(4.0, 1, 0.08)
    answers = []
    for order in (prints, prints[::-1]):
        index = Index()
        for item in order:
            index.apply([item])
        answers += [match(index.snapshot(), clip).matches for _ in range(2)]
        index.seal()
        answers.append(match(index.snapshot(), clip).matches)
    assert answers[0]
    assert all(answer == answers[0] for answer in answers)


def test_an_answer_that_is_not_sure_enough_is_left_out(snapshot: Snapshot) -> None:
    clip = cut(song(LENGTH_S, 2), 10.0, 5.0)
    assert match(snapshot, clip, MatchOptions(min_confidence=0.9)).matches
    assert not match(snapshot, clip, MatchOptions(min_confidence=1.1)).matches


def test_an_empty_index_answers_nothing() -> None:
    assert match(Index().snapshot(), cut(song(10.0, 2), 1.0, 5.0)).matches == ()


def test_clips_that_cannot_be_matched_say_why(snapshot: Snapshot) -> None:
    with pytest.raises(ClipTooShort) as short:
        match(snapshot, song(0.99, 2))
    assert short.value.reason == "CLIP_TOO_SHORT"
    with pytest.raises(ClipTooLong) as long:
        match(snapshot, song(6.0, 2), MatchOptions(max_clip_s=5.0))
    assert long.value.reason == "CLIP_TOO_LONG"
    for seconds in (2, 30):
        with pytest.raises(SilentAudio) as silent:
            match(snapshot, np.zeros(8000 * seconds, np.float32))
        assert silent.value.reason == "SILENT_AUDIO"
