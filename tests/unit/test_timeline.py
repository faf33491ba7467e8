"""The events of a stream, put in order."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

import soundhash
from soundhash import FinalMatch, Gap, Match, Timeline

PARTS = soundhash.ScoreParts(5, 1, 1, 1, 1, 1, 1, 1)


def final(start_s: float, end_s: float, video: str = "a") -> FinalMatch:
    match = Match(
        id="m",
        query_id="q",
        video_id=video,
        title=video.upper(),
        source_url="",
        external_id="",
        clip_start_s=start_s,
        clip_end_s=end_s,
        video_start_s=100.0,
        video_end_s=100.0 + end_s - start_s,
        speed=1.0,
        pitch=1.0,
        confidence=0.99,
        parts=PARTS,
        also_at_s=(),
        create_time=None,
    )
    return FinalMatch(end_s + 3, match)


def told(timeline: Timeline) -> list[tuple[float, float, str]]:
    return [(e.start_s, e.end_s, e.match.video_id if e.match else "-") for e in timeline]


def test_everything_is_in_the_order_of_its_start() -> None:
    timeline = Timeline()
    for event in (final(50, 90, "b"), Gap(75, 40, 45), final(0, 40), final(45, 60, "c")):
        assert timeline.add(event)
    assert told(timeline) == [(0, 40, "a"), (40, 45, "-"), (45, 60, "c"), (50, 90, "b")]
    assert len(timeline) == 4 and timeline.entries == tuple(timeline)
    assert [match.video_id for match in timeline.matches] == ["a", "c", "b"]
    assert timeline.recognised_s == 85, "what overlaps counts once"


def test_gaps_that_touch_are_one() -> None:
    timeline = Timeline()
    for start_s, end_s in ((10, 20), (30, 35), (20, 24), (24.0005, 30), (40, 41)):
        timeline.add(Gap(99, start_s, end_s))
    assert told(timeline) == [(10, 35, "-"), (40, 41, "-")]


def test_other_events_change_nothing() -> None:
    timeline = Timeline()
    for event in (
        soundhash.StreamOpened(0, "t", 0, 60, False),
        soundhash.Heard(1, -20, -3),
        soundhash.ProvisionalMatch(1, final(0, 1).match, 0.5),
        soundhash.StreamSummary(1, "q", 0),
    ):
        assert not timeline.add(event)
    assert told(timeline) == [] and timeline.recognised_s == 0


@given(st.lists(st.floats(0.5, 30), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_any_order_of_events_gives_the_same_timeline(lengths: list[float], random) -> None:
    """A stream that is cut anywhere, each second part known, told in any order."""
    ends = [0.0, *itertools.accumulate(lengths)]
    events = [
        final(start_s, end_s) if number % 2 else Gap(end_s, start_s, end_s)
        for number, (start_s, end_s) in enumerate(itertools.pairwise(ends))
    ]
    expected = Timeline()
    for event in events:
        expected.add(event)
    random.shuffle(events)
    timeline = Timeline()
    for event in events:
        timeline.add(event)
    assert timeline.entries == expected.entries
    assert all(a.end_s == b.start_s for a, b in itertools.pairwise(timeline))
