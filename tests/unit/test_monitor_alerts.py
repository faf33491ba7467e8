"""When monitors say that something is wrong, and when it was on the air."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from soundhash_server.model import AlertKind
from soundhash_workers.monitors.air_time import AirTime
from soundhash_workers.monitors.alerts import AlertBegan, AlertEnded, Alerts

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SOUND_DB, SILENCE_DB = -20.0, -90.0


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Source:
    """A source, half a second after the other, and what was told of it."""

    def __init__(self, *ongoing: AlertKind) -> None:
        self.alerts = Alerts(silence_after_s=10, loss_after_s=20, since=NOON, ongoing=ongoing)
        self.told: list[tuple[str, str, float]] = []

    def send(self, start_s: float, end_s: float, level_db: float = SOUND_DB) -> None:
        now_s = start_s
        while now_s < end_s:
            self.alerts.heard(at(now_s), at(now_s + 0.5), level_db, at(now_s + 0.5))
            now_s += 0.5
            self.wait(now_s)

    def wait(self, now_s: float, reason: str = "") -> None:
        self.alerts.advance(at(now_s), reason)
        for event in self.alerts.changes():
            if isinstance(event, AlertBegan):
                self.told.append(("began", event.kind.value, (event.start - NOON).total_seconds()))
                self.reason = event.message
            else:
                assert isinstance(event, AlertEnded)
                self.told.append(("ended", event.kind.value, (event.end - NOON).total_seconds()))


def test_sound_is_no_reason_to_complain() -> None:
    source = Source()
    source.send(0, 300)
    assert source.told == []


def test_silence_begins_and_ends() -> None:
    source = Source()
    source.send(0, 5)
    source.send(5, 14.5, SILENCE_DB)
    assert source.told == []
    source.send(14.5, 60, SILENCE_DB)
    assert source.told == [("began", "SILENCE", 5)]
    source.send(60, 80)
    assert source.told == [("began", "SILENCE", 5), ("ended", "SILENCE", 60)]
    source.send(80, 95, SILENCE_DB)
    assert source.told[-1] == ("began", "SILENCE", 80)


def test_a_click_does_not_end_a_silence() -> None:
    source = Source()
    for turn in range(10):
        source.send(turn * 4, turn * 4 + 0.5)
        source.send(turn * 4 + 0.5, turn * 4 + 4, SILENCE_DB)
    assert source.told == [("began", "SILENCE", 0.5)]


def test_loss_begins_and_ends() -> None:
    source = Source()
    source.send(0, 5)
    source.wait(24)
    assert source.told == []
    source.wait(25, "The source answers 503.")
    assert source.told == [("began", "LOSS", 5)]
    assert source.reason == "The source answers 503."
    source.wait(400)
    source.send(400, 401)
    assert source.told == [("began", "LOSS", 5)]
    source.send(401, 410)
    assert source.told == [("began", "LOSS", 5), ("ended", "LOSS", 400.5)]


def test_a_source_that_never_was() -> None:
    source = Source()
    source.wait(20)
    assert source.told == [("began", "LOSS", 0)]


def test_a_connection_that_breaks_at_once_does_not_end_a_loss() -> None:
    source = Source()
    source.wait(20)
    for turn in range(5):
        source.send(30 + turn * 10, 31.5 + turn * 10)
        source.alerts.interrupted()
    assert source.told == [("began", "LOSS", 0)]
    source.send(100, 103)
    assert source.told[-1] == ("ended", "LOSS", 100.5)


def test_a_loss_ends_a_silence() -> None:
    source = Source()
    source.send(0, 15, SILENCE_DB)
    source.wait(35)
    assert source.told == [("began", "SILENCE", 0), ("ended", "SILENCE", 15), ("began", "LOSS", 15)]
    source.send(100, 120, SILENCE_DB)
    assert source.told[3:] == [("ended", "LOSS", 100.5), ("began", "SILENCE", 100)]


def test_a_short_break_does_not_interrupt_a_silence() -> None:
    source = Source()
    source.send(0, 8, SILENCE_DB)
    source.alerts.interrupted()
    source.send(12, 13, SILENCE_DB)
    assert source.told == [("began", "SILENCE", 0)]


def test_another_worker_knows_what_was_told() -> None:
    source = Source(AlertKind.LOSS, AlertKind.SILENCE)
    source.wait(25)
    assert source.told == []
    source.send(30, 34)
    assert sorted(source.told) == [("ended", "LOSS", 30.5), ("ended", "SILENCE", 30)]


def test_a_burst_ends_a_loss_when_it_arrives() -> None:
    source = Source()
    source.wait(20)
    for piece in range(20):
        source.alerts.heard(at(20 + piece / 2), at(20.5 + piece / 2), SOUND_DB, at(30))
    source.wait(30)
    assert source.told == [("began", "LOSS", 0), ("ended", "LOSS", 30)]
    source.wait(49)
    assert len(source.told) == 2
    source.wait(50)
    assert source.told[2] == ("began", "LOSS", 30)


def test_thresholds_may_change() -> None:
    source = Source()
    source.send(0, 8, SILENCE_DB)
    source.alerts.silence_after_s = 3
    source.send(8, 8.5, SILENCE_DB)
    assert source.told == [("began", "SILENCE", 0)]


def test_air_time_of_an_even_source() -> None:
    air = AirTime(NOON)
    for piece in range(20):
        air.arrived(0.5, 0.2 + 0.5 * (piece + 1))
        assert air.settle(piece * 0.5) == at(0.2 + piece * 0.5)
    assert air.at(3.25) == at(3.45)
    assert air.at(100) == at(100.2)
    assert air.arrived_s == 10


def test_a_burst_lies_before_the_connection() -> None:
    air = AirTime(NOON)
    for _ in range(20):
        air.arrived(0.5, 0.1)
    # Ten seconds at once: they are the last ten.
    assert [air.settle(n * 0.5) for n in range(20)] == [at(-9.9 + n * 0.5) for n in range(20)]
    air.arrived(0.5, 0.6)
    assert air.settle(10) == at(0.1)


def test_segments_come_whole() -> None:
    air = AirTime(NOON)
    told = []
    for piece in range(120):
        # Six seconds every six.
        air.arrived(0.5, 6.0 * (piece // 12))
        if piece >= 12:
            told.append(
                (air.settle((piece - 11) * 0.5) - NOON).total_seconds() - (piece - 11) * 0.5
            )
    assert told == [-6.0] * len(told)


def test_a_pause_that_is_made_up_for_moves_nothing() -> None:
    air = AirTime(NOON)
    for piece in range(200):
        after_s = 0.5 * (piece + 1)
        air.arrived(0.5, max(after_s, 62.0) if 100 <= piece < 124 else after_s)
        assert air.settle(piece * 0.5) == at(piece * 0.5)


def test_a_pause_that_is_not_made_up_for_moves_what_follows() -> None:
    air = AirTime(NOON)
    for piece in range(200):
        air.arrived(0.5, 0.5 * (piece + 1) + (7.0 if piece >= 100 else 0.0))
        air.settle(piece * 0.5)
    assert air.at(20) == at(20)
    assert air.at(99) == at(106)


def test_air_time_never_runs_backwards() -> None:
    chance = random.Random(3)
    air = AirTime(NOON)
    after_s, latest = 0.0, None
    marks: list[tuple[float, datetime]] = []
    for piece in range(5000):
        # Bursts, pauses, and a clock that is 0.1 % off.
        after_s += chance.choice(
            (0.0, 0.0, 0.5, 0.5005, 0.5, 1.0, 9.0 if piece % 100 == 0 else 0.5)
        )
        air.arrived(0.5, after_s)
        time = air.settle(piece * 0.5)
        assert latest is None or time >= latest
        latest = time
        marks.append((piece * 0.5, time))
    for position_s, time in marks[-500:]:
        assert abs((air.at(position_s) - time).total_seconds()) <= 0.51
    times = [air.at(n * 0.1) for n in range(25_000)]
    assert times == sorted(times)


def test_a_clock_that_drifts_is_followed() -> None:
    air = AirTime(NOON)
    for piece in range(7200):
        air.arrived(0.5, 0.5005 * (piece + 1))
        air.settle(piece * 0.5)
    # An hour at 0.1 %: 3.6 s.
    assert (air.at(3600) - NOON).total_seconds() == pytest.approx(3603.6, abs=0.1)
