"""When a match was on the air; pieces of one passage are one match."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from soundhash_server.model import MatchRecord, OnAir, ScoreParts
from soundhash_server.services.on_air import at_most, joined

BEGUN = datetime(2026, 11, 21, 18, 0, tzinfo=UTC)
RADIO_X, RADIO_Y = uuid4(), uuid4()


def record(
    clip_s: tuple[float, float],
    video_start_s: float,
    *,
    monitor: UUID | None = RADIO_X,
    begun_s: float = 0.0,
    speed: float = 1.0,
    confidence: float = 0.99,
) -> MatchRecord:
    """A match with a part that began so many seconds after BEGUN."""
    start_s, end_s = clip_s
    length_s = speed * (end_s - start_s)
    start_time = BEGUN + timedelta(seconds=begun_s + video_start_s)
    return MatchRecord(
        id=None,
        query_id=None,
        video_id=uuid4(),
        title="",
        source_url="",
        external_id="",
        clip_start_s=start_s,
        clip_end_s=end_s,
        video_start_s=video_start_s,
        video_end_s=video_start_s + length_s,
        speed=speed,
        pitch=1.0,
        confidence=confidence,
        parts=ScoreParts(9.0, 0, 0, 0, 0, 0, 0, 0),
        also_at_s=(),
        create_time=BEGUN,
        on_air=None
        if monitor is None
        else OnAir(monitor, "Radio X", start_time, start_time + timedelta(seconds=length_s)),
    )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("drift_s", [0.0, 0.9, -0.9])
@pytest.mark.parametrize("speed", [1.0, 0.97])
def test_pieces_on_both_sides_of_a_border_are_one(
    order: tuple[int, int], drift_s: float, speed: float
) -> None:
    first = record((0.0, 24.0), 276.0, speed=speed)
    # The next part began 288 s later, or so it says; the clip's second 14 is its second 2 or so.
    second = record(
        (14.0, 40.0), 276.0 + 14.0 * speed - 288.0, begun_s=288.0 + drift_s, speed=speed
    )
    (one,) = joined([(first, second)[i] for i in order])
    assert (one.clip_start_s, one.clip_end_s) == (0.0, 40.0)
    assert one.video_id == second.video_id, "the longer piece's"
    assert one.on_air is not None
    begins = (one.on_air.start_time - BEGUN).total_seconds()
    assert begins == pytest.approx(276.0 + drift_s)
    ends = (one.on_air.end_time - BEGUN).total_seconds()
    assert ends == pytest.approx(276.0 + drift_s + 40.0 * speed)
    assert one.video_start_s == 0.0
    assert one.video_end_s == pytest.approx(second.video_end_s)


def test_a_third_piece_joins_two_that_do_not_touch() -> None:
    pieces = [
        record((0.0, 10.0), 290.0),
        record((400.0, 410.0), 114.0, begun_s=576.0),
        record((10.0, 400.0), 12.0, begun_s=288.0),
    ]
    (one,) = joined(pieces)
    assert (one.clip_start_s, one.clip_end_s) == (0.0, 410.0)


@pytest.mark.parametrize(
    "other",
    [
        record((0.0, 10.0), 50.0, monitor=RADIO_Y),
        record((0.0, 10.0), 50.0, begun_s=3600.0),
        record((0.0, 10.0), 50.0, speed=1.05),
        record((30.0, 40.0), 80.0),
        record((0.0, 10.0), 50.0, monitor=None),
    ],
    ids=["another monitor", "another time", "another speed", "far away", "a video"],
)
def test_other_passages_stay_by_themselves(other: MatchRecord) -> None:
    first = record((0.0, 10.0), 50.0)
    assert joined([first, other]) == [first, other]
    assert joined([other, first]) == [other, first]


def test_videos_have_room_and_come_first_among_equals() -> None:
    air = [record((0.0, 5.0), 20.0, begun_s=1000.0 * n) for n in range(6)]
    video = record((0.0, 5.0), 20.0, monitor=None)
    unsure = record((5.0, 8.0), 20.0, monitor=None, confidence=0.8)
    assert at_most([*air, video], 3) == [video, air[0], air[1]]
    assert at_most([*air, video], 1) == [video]
    assert at_most([*air, video, unsure], 4) == [video, air[0], air[1], unsure]
    assert at_most([video, unsure], 5) == [video, unsure]
    assert at_most(air, 2) == air[:2]
