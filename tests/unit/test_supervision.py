"""Pieces of the supervisor that need no processes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from soundhash_server import up
from soundhash_server.up import Backoff, Child


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def pause_s(backoff: Backoff, clock: Clock) -> float:
    """How long it makes wait after an end that is noticed now."""
    began = clock.now
    while not backoff.may_start():
        clock.now += 0.25
    backoff.started()
    return clock.now - began


def test_pauses_grow_to_a_limit_and_start_anew_after_a_steady_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    backoff = Backoff()
    backoff.started()
    pauses = []
    for _ in range(7):
        clock.now += 1.0
        pauses.append(pause_s(backoff, clock))
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    clock.now += 60.0
    assert pause_s(backoff, clock) == 0.0
    clock.now += 1.0
    assert pause_s(backoff, clock) == 0.5


def test_log_is_cut_while_its_writer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "LOG_LIMIT_BYTES", 100)
    child = Child("server", [], tmp_path / "server.log")
    child.rotate_log()
    with child.log_path.open("ab", buffering=0) as log:
        log.write(b"a" * 50)
        child.rotate_log()
        assert child.log_path.stat().st_size == 50
        log.write(b"b" * 60)
        child.rotate_log()
        log.write(b"c\n")
    assert child.log_path.read_bytes() == b"c\n"
    assert (tmp_path / "server.log.1").read_bytes() == b"a" * 50 + b"b" * 60
    assert child.last_words() == "c"
