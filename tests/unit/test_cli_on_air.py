"""How the program shows matches with what was on the air."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from rich.text import Text

from soundhash import Match, OnAir, ScoreParts
from soundhash.cli import _output as output

START = datetime(datetime.now(UTC).year, 11, 21, 18, 3, 10, tzinfo=UTC)
MATCH = Match(
    id="",
    query_id="",
    video_id="1",
    title="Radio [X], 2026-11-21 18:00:00 UTC",
    source_url="",
    external_id="",
    clip_start_s=0.0,
    clip_end_s=10.0,
    video_start_s=190.0,
    video_end_s=200.0,
    speed=1.0,
    pitch=1.0,
    confidence=0.99,
    parts=ScoreParts(9.0, 0, 0, 0, 0, 0, 0, 0),
    also_at_s=(),
    create_time=None,
    on_air=OnAir("2", "Radio [X]", START, START + timedelta(seconds=10.4)),
)


@pytest.fixture(autouse=True)
def local_zone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def test_a_station_and_a_time_stand_for_the_video() -> None:
    assert Text.from_markup(output.named(MATCH)).plain == "on Radio [X]"
    assert output.place(MATCH) == "21 Nov 18:03:10 – 18:03:20"
    assert output.match_json(MATCH)["on_air"] == {
        "monitor_id": "2",
        "monitor_name": "Radio [X]",
        "start_time": START.isoformat(),
        "end_time": (START + timedelta(seconds=10.4)).isoformat(),
    }


def test_another_year_is_named() -> None:
    past = datetime(2001, 1, 2, 3, 4, 5, tzinfo=UTC)
    found = dataclasses.replace(MATCH, on_air=OnAir("2", "Radio X", past, past))
    assert output.place(found) == "2 Jan 2001 03:04:05 – 03:04:05"


def test_videos_are_shown_as_ever() -> None:
    video = dataclasses.replace(MATCH, title="A song", on_air=None)
    assert (output.named(video), output.place(video)) == ("A song", "3:10.0 – 3:20.0")
    assert output.match_json(video)["on_air"] is None
