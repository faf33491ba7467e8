"""Sightings become episodes: what belongs together, and what does not."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from soundhash_server.model import Detection
from soundhash_workers.monitors.episodes import HOLD_S, LOST_S, Episodes, Sighting
from soundhash_workers.monitors.intervals import Covered

MONITOR, SONG, OTHER = UUID(int=1), UUID(int=2), UUID(int=3)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """So many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def seconds(time: datetime) -> float:
    return (time - NOON).total_seconds()


def sighting(start_s: float, end_s: float, video_s: float, **more: Any) -> Sighting:
    """The song, heard from ``start_s`` to ``end_s`` after noon, from its second ``video_s`` on."""
    speed = more.get("speed", 1.0)
    values: dict[str, Any] = {
        "video_id": SONG,
        "title": "Song",
        "source_url": "https://example.com/song",
        "external_id": "",
        "start": at(start_s),
        "end": at(end_s),
        "video_start_s": video_s,
        "video_end_s": video_s + speed * (end_s - start_s),
        "speed": speed,
        "pitch": 1.0,
        "confidence": 0.9,
        **more,
    }
    return Sighting(**values)


class Air:
    """One monitor's episodes, and all that was told of them."""

    def __init__(self, ongoing: tuple[Detection, ...] = (), **more: float) -> None:
        limits = {"min_duration_s": 3.0, "min_confidence": 0.0, **more}
        self.episodes = Episodes(MONITOR, ongoing, **limits)
        self.told: dict[UUID, Detection] = {}
        self.messages = 0
        self.look(0.0)

    def play(
        self, start_s: float, end_s: float, video_s: float, *, step_s: float = 0.5, **more: Any
    ) -> None:
        """One stretch, heard step by step as the matcher tells it."""
        now_s = start_s + step_s
        while now_s < end_s + 1e-9:
            self.episodes.saw(sighting(start_s, now_s, video_s, **more))
            self.look(now_s)
            now_s += step_s

    def look(self, now_s: float, searched_s: float | None = None) -> None:
        self.episodes.advance(at(now_s if searched_s is None else searched_s), at(now_s))
        for one in self.episodes.changes(at(now_s)):
            self.messages += 1
            self.told[one.id] = one

    def over(self, now_s: float) -> list[Detection]:
        """All episodes in order, once all are certain to be over."""
        self.look(now_s + LOST_S + 1)
        found = sorted(self.told.values(), key=lambda one: one.start_time)
        assert not any(one.ongoing for one in found)
        return found


def ranges(found: list[Detection]) -> list[tuple[float, float, float, float]]:
    """Air start and end, video start and end of each."""
    return [
        (
            pytest.approx(seconds(one.start_time), abs=0.01),
            pytest.approx(seconds(one.end_time), abs=0.01),
            pytest.approx(one.video_start_s, abs=0.01),
            pytest.approx(one.video_end_s, abs=0.01),
        )
        for one in found
    ]


def test_one_playing_is_one_episode() -> None:
    air = Air()
    air.play(10, 130, 0)
    found = air.over(130)
    assert ranges(found) == [(10, 130, 0, 120)]
    (one,) = found
    assert (one.monitor_id, one.video_id, one.title) == (MONITOR, SONG, "Song")
    assert one.coverage == pytest.approx(1.0)
    # It began, went on every 5 s, and ended.
    assert air.messages == pytest.approx(25, abs=2)


def test_it_is_told_while_it_goes_on() -> None:
    air = Air()
    air.play(10, 12.5, 0)
    assert not air.told
    air.play(10, 13, 0)
    (one,) = air.told.values()
    assert one.ongoing
    air.play(10, 40, 0)
    (later,) = air.told.values()
    assert later.ongoing
    assert later.id == one.id
    assert seconds(later.end_time) > 35


def test_what_is_short_or_unlikely_is_not_told() -> None:
    air = Air(min_duration_s=5.0, min_confidence=0.95)
    air.play(10, 14, 0, confidence=0.99)
    air.play(60, 80, 0, video_id=OTHER)
    assert air.over(80) == []
    air.episodes.min_duration_s, air.episodes.min_confidence = 2.0, 0.5
    air.play(300, 303, 0)
    assert ranges(air.over(303)) == [(300, 303, 0, 3)]


def test_talk_over_a_song_lowers_its_coverage() -> None:
    air = Air()
    air.play(0, 30, 0)
    air.look(50)
    air.play(50, 70, 50)
    found = air.over(70)
    assert ranges(found) == [(0, 70, 0, 70)]
    assert found[0].coverage == pytest.approx(50 / 70)


def test_a_pause_and_a_skip_are_the_same_playing() -> None:
    air = Air()
    air.play(0, 20, 100)
    # Stood still for 20 s, went on where it was.
    air.play(40, 60, 120)
    # Skipped 30 s.
    air.play(61, 80, 170)
    assert ranges(air.over(80)) == [(0, 80, 100, 189)]


def test_a_replay_from_the_start_is_another_episode() -> None:
    air = Air()
    for turn in range(3):
        air.play(turn * 30, turn * 30 + 30, 0)
    assert ranges(air.over(90)) == [(0, 30, 0, 30), (30, 60, 0, 30), (60, 90, 0, 30)]


def test_a_jingle_played_again_and_again() -> None:
    air = Air(min_duration_s=2.0)
    for turn in range(5):
        air.play(turn * 3, turn * 3 + 3, 0)
    assert ranges(air.over(15)) == [(3 * n, 3 * n + 3, 0, 3) for n in range(5)]


def test_a_rewind_is_another_episode() -> None:
    air = Air()
    air.play(0, 60, 0)
    air.play(60, 90, 30)
    assert ranges(air.over(90)) == [(0, 60, 0, 60), (60, 90, 30, 60)]


def test_the_same_song_after_a_long_time_is_another_episode() -> None:
    air = Air()
    air.play(0, 20, 0)
    air.look(20 + HOLD_S + 1)
    assert [one.ongoing for one in air.told.values()] == [False]
    # Even though it is where it would be.
    air.play(120, 140, 120)
    assert ranges(air.over(140)) == [(0, 20, 0, 20), (120, 140, 120, 140)]


def test_silence_of_the_line_does_not_end_it() -> None:
    air = Air()
    air.play(0, 20, 0)
    air.episodes.interrupted()
    # No audio for 90 s: nothing was searched.
    for now_s in range(20, 110):
        air.look(now_s, searched_s=20)
    air.play(110, 130, 110)
    found = air.over(130)
    assert ranges(found) == [(0, 130, 0, 130)]
    assert found[0].coverage == pytest.approx(40 / 130)


def test_a_server_repeats_itself_after_a_reconnection() -> None:
    air = Air()
    air.play(0, 60, 0)
    air.episodes.interrupted()
    # It goes on 20 s before it was cut, and later than the clock says.
    air.play(65, 100, 40)
    assert ranges(air.over(100)) == [(0, 100, 0, 75)]


def test_a_burst_that_is_known_as_one_counts_once() -> None:
    air = Air()
    air.play(0, 60, 0)
    air.episodes.interrupted()
    # Ten seconds from before the break come once more, with their own time.
    air.play(50, 90, 50)
    found = air.over(90)
    assert ranges(found) == [(0, 90, 0, 90)]
    assert found[0].coverage == pytest.approx(1.0)


def test_a_replay_after_a_reconnection_is_another_episode() -> None:
    air = Air()
    air.play(0, 30, 0)
    air.episodes.interrupted()
    air.play(33, 60, 0)
    assert ranges(air.over(60)) == [(0, 30, 0, 30), (33, 60, 0, 27)]


def test_another_worker_goes_on() -> None:
    first = Air()
    first.play(0, 47, 0)
    (cut,) = first.told.values()
    assert cut.ongoing
    second = Air((cut,))
    second.look(70, searched_s=70)
    second.play(72, 90, 72)
    (one,) = second.over(90)
    assert one.id == cut.id
    assert ranges([one]) == [(0, 90, 0, 90)]
    assert one.coverage == pytest.approx((cut.covered_s + 18) / 90, abs=0.01)


def test_another_worker_ends_what_is_over() -> None:
    first = Air()
    first.play(0, 20, 0)
    (cut,) = first.told.values()
    second = Air((cut,))
    second.look(30)
    assert second.told == {}
    second.look(20 + HOLD_S + 6)
    assert [one.ongoing for one in second.told.values()] == [False]
    third = Episodes(MONITOR, (cut,), min_duration_s=3.0, min_confidence=0.0)
    # The source cannot be reached at all.
    third.advance(None, at(20 + LOST_S - 5))
    assert third.changes(at(0)) == []
    third.advance(None, at(20 + LOST_S + 5))
    assert [one.ongoing for one in third.changes(at(0))] == [False]


def test_of_two_ongoing_detections_of_one_video_one_is_left() -> None:
    air = Air()
    air.play(0, 20, 0)
    (cut,) = air.told.values()
    twin = Detection(**{**_fields(cut), "id": uuid4(), "start_time": at(1), "end_time": at(25)})
    both = Air((twin, cut))
    assert {one.id: one.ongoing for one in both.told.values()} == {cut.id: False}


def _fields(one: Detection) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Detection.__dataclass_fields__}


def test_videos_that_overlap_have_an_episode_each() -> None:
    air = Air()
    for step in range(1, 81):
        now_s = step * 0.5
        air.episodes.saw(sighting(0, now_s, 0))
        if now_s > 20:
            air.episodes.saw(sighting(20, now_s, 5, video_id=OTHER, title="Other"))
        air.look(now_s)
    found = air.over(40)
    assert ranges(found) == [(0, 40, 0, 40), (20, 40, 5, 25)]
    assert [one.title for one in found] == ["Song", "Other"]


def test_equal_places_of_a_loop_are_no_jumps() -> None:
    air = Air()
    air.play(0, 20, 0)
    # The matcher takes the next bars for those of another turn, and says that it may be either.
    air.play(20, 26, 4, also_at_s=(12, 20, 28))
    air.play(26, 40, 26)
    assert ranges(air.over(40)) == [(0, 40, 0, 40)]


def test_a_place_that_is_corrected_is_the_same_episode() -> None:
    air = Air()
    air.play(0, 4, 30)
    air.play(0, 20, 90)
    assert ranges(air.over(20)) == [(0, 20, 30, 110)]


def test_a_doubtful_moment_changes_nothing() -> None:
    air = Air()
    air.play(0, 30, 0)
    # For a second it looks like another place; then as before.
    air.episodes.saw(sighting(27, 30.5, 120))
    air.episodes.saw(sighting(27, 31, 120))
    air.play(0, 60, 0)
    assert ranges(air.over(60)) == [(0, 60, 0, 60)]


@pytest.mark.parametrize("speed", [0.74, 0.999, 1.001, 1.25])
def test_speed_and_drift(speed: float) -> None:
    air = Air()
    air.play(0, 600, 0, speed=speed, step_s=5.0)
    air.play(612, 700, 612 * speed, speed=speed)
    found = air.over(700)
    assert ranges(found) == [(0, 700, 0, 700 * speed)]
    assert found[0].speed == speed


def test_the_best_moment_gives_the_confidence() -> None:
    air = Air()
    air.play(0, 10, 0, confidence=0.6)
    air.play(0, 20, 0, confidence=0.95, pitch=1.06)
    air.play(0, 30, 0, confidence=0.7)
    (one,) = air.over(30)
    assert (one.confidence, one.pitch) == (0.95, 1.06)


def test_where_it_began_stays_once_it_was_told() -> None:
    air = Air()
    air.play(5, 10, 5)
    (told,) = air.told.values()
    air.episodes.saw(sighting(2, 12, 2))
    (one,) = air.over(12)
    assert (one.start_time, one.video_start_s) == (told.start_time, told.video_start_s)
    assert one.coverage == pytest.approx(1.0)


def test_a_hundred_videos_at_once_are_bounded() -> None:
    air = Air()
    for number in range(100):
        air.episodes.saw(sighting(number * 0.01, 5 + number * 0.01, 0, video_id=UUID(int=number)))
    air.look(6)
    assert sum(one.ongoing for one in air.told.values()) == 64
    assert len(air.told) == 100


def test_any_order_of_sightings_gives_sound_episodes() -> None:
    chance = random.Random(7)
    air = Air(min_duration_s=0.0)
    now_s = 0.0
    for _ in range(3000):
        now_s += chance.choice((0.5, 0.5, 0.5, 5.0, 40.0))
        start_s = now_s - chance.uniform(0, 10)
        one = sighting(
            start_s, now_s, chance.uniform(0, 300), video_id=UUID(int=chance.choice((2, 3)))
        )
        air.episodes.saw(one)
        if chance.random() < 0.05:
            air.episodes.interrupted()
        air.look(now_s)
    for told in air.over(now_s):
        assert told.end_time >= told.start_time
        assert 0 <= told.coverage <= 1
        assert told.video_start_s >= 0


def test_covered_is_a_union() -> None:
    covered = Covered(10.0)
    covered.add(0, 5)
    covered.add(3, 8)
    covered.add(20, 21)
    covered.add(21, 21)
    covered.add(2, 1)
    assert covered.total_s == pytest.approx(19.0)
    covered.add(0, 30)
    assert covered.total_s == pytest.approx(40.0)
    for second in range(100, 10_000, 2):
        covered.add(second, second + 1)
    assert covered.total_s == pytest.approx(40.0 + 4950.0)
