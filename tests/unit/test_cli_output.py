"""What the program prints, and how."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

import soundhash
from soundhash.cli import _output as output


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (0, "0:00.0"),
        (9.96, "0:10.0"),
        (59.96, "1:00.0"),
        (61.25, "1:01.2"),
        (3599.99, "1:00:00.0"),
        (3725.5, "1:02:05.5"),
        (360000, "100:00:00.0"),
        (-1.5, "-0:01.5"),
        (-0.01, "0:00.0"),
    ],
)
def test_clock(value_s: float, text: str) -> None:
    assert output.clock(value_s) == text


@pytest.mark.parametrize(
    ("value_s", "text"),
    [(5, "5.0 s"), (65, "1 min 05 s"), (3600, "1 h 00 min"), (36_000_000, "10,000 h 00 min")],
)
def test_length(value_s: float, text: str) -> None:
    assert output.length(value_s) == text


@pytest.mark.parametrize(
    ("value_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (10**16, "10000.0 TB")],
)
def test_size(value_bytes: int, text: str) -> None:
    assert output.size(value_bytes) == text


def test_json_of_results(capsys: pytest.CaptureFixture[str]) -> None:
    segment = soundhash.Segment(0, 0.0, 90.0, 3, b"\x00\xff", b"", b"", "m")
    output.print_json(
        {
            "when": datetime(2025, 1, 2, tzinfo=UTC),
            "segment": segment,
            "jobs": {soundhash.JobState.FAILED: 2},
            "none": None,
            "text": "é\n",
        }
    )
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1, "one value a line, whatever is in it"
    assert json.loads(printed) == {
        "when": "2025-01-02T00:00:00+00:00",
        "segment": {
            "index": 0,
            "start_s": 0.0,
            "duration_s": 90.0,
            "landmark_count": 3,
            "landmarks": "AP8=",
            "descriptor": "",
            "vector": "",
            "md5": "m",
        },
        "jobs": {"FAILED": 2},
        "none": None,
        "text": "é\n",
    }


def test_tables_in_a_pipe_are_plain_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    title = "A very long title [not] markup " * 20
    output.print_table(
        ["title", "length", "note"],
        [[output.linked(title, "https://example.org/[1]"), "1:00.0", ""], ["[red]b[/]", "2", "x"]],
        right=("length",),
    )
    head, first, second = capsys.readouterr().out.splitlines()
    assert "\x1b" not in head + first + second
    assert title.strip() in first and first.endswith("1:00.0")
    assert second.split() == ["b", "2", "x"]
    assert head.split() == ["title", "length", "note"]


def test_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_pairs([("name", "[bold]"), ("longer name", "2")])
    assert capsys.readouterr().out == "name         [bold]\nlonger name  2\n"


def test_errors_go_to_stderr_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error("[odd] " + "word " * 50)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: [odd] " + "word " * 50 + "\n"
