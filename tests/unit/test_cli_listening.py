"""What `listen` shows of a stream's events, on a terminal and elsewhere."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console
from tests.unit.test_timeline import final

import soundhash
from soundhash import Gap, Heard, StreamWarning
from soundhash.cli import _listening, _live_view
from soundhash.cli import _output as output
from soundhash.cli._listening import JsonLines, Lines, one_line
from soundhash.cli._live_view import LiveView, meter, strip

LOST = soundhash.Unavailable("The connection to x was lost.", reason="CONNECTION_LOST")
OPENED = soundhash.StreamOpened(0.0, "the-token", 0, 60.0, False)
SUMMARY = soundhash.StreamSummary(100.0, "q", 2)


class Source:
    """A file that has been read by half."""

    name = "mix.mp3"
    done: float | None = 0.5


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], io.StringIO]]:
    """Makes every console a terminal of so many columns and lines, without colours."""

    def make(columns: int, lines: int = 24) -> io.StringIO:
        written = io.StringIO()

        def console(*, stderr: bool = False) -> Console:
            return Console(
                file=written,
                force_terminal=True,
                width=columns,
                height=lines,
                no_color=True,
                highlight=False,
                _environ={"TERM": "xterm"},
            )

        monkeypatch.setattr(output, "console", console)
        return written

    return make


def screen(view: LiveView) -> list[str]:
    """The lines that the view shows now."""
    made = Console(width=view._out.width, height=view._out.height, file=io.StringIO())
    with made.capture() as text:
        made.print(view.render())
    return text.get().splitlines()


def test_a_view_follows_the_stream(terminal: Callable[[int, int], io.StringIO]) -> None:
    written = terminal(80, 24)
    view = LiveView(Source(), timeline=False)
    with view:
        view.show(OPENED)
        view.show(Heard(2.0, -24.0, -6.0))
        assert screen(view) == ["0:02.0  50%  ▮▮▮▮▮▮▮▯▯▯▮▯ -24 dB", "listening to mix.mp3", "··"]
        view.show(soundhash.ProvisionalMatch(10.0, final(4, 10).match, 0.9))
        view.show(Heard(10.0, -60.0, -0.1, (StreamWarning.CLIPPING, StreamWarning.LATE)))
        level, now, cells = screen(view)
        assert level == "0:10.0  50%  ▯▯▯▯▯▯▯▯▯▯▯▮ -60 dB  clipping  the server is behind"
        assert now == "perhaps A at 1:46.0 confidence 99%, stability 90%"
        assert cells == "····▒▒▒▒▒▒"
        view.show(Heard(15.0, -20.0, -6.0))
        assert screen(view)[1] == "listening to mix.mp3", "nothing has confirmed it since"
        view.show(final(4, 14))
        view.show(final(12, 20, "b"))
        view.show(Gap(40.0, 0.0, 4.0))
        view.show(Heard(40.0, -20.0, -6.0))
        assert screen(view)[2] == "────████████▓▓▓▓▓▓▓▓" + 20 * "·"
        view.show(soundhash.StreamInterrupted(40.0, LOST, 0.1))
        assert screen(view)[1] == "the connection is lost; trying to go on"
        view.show(soundhash.StreamOpened(40.0, "the-token", 0, 60.0, True))
        assert screen(view)[1] == "listening to mix.mp3"
        idle = soundhash.DeadlineExceeded("Nothing was sent.", reason="STREAM_IDLE")
        view.show(soundhash.StreamInterrupted(40.0, idle, None))
        assert screen(view)[1] == "waiting for audio from mix.mp3"
        view.show(soundhash.StreamOpened(40.0, "the-token", 0, 60.0, True))
        view._event_at_s -= 12
        assert screen(view)[1] == "nothing new for 12.0 s; waiting"
        view.show(SUMMARY)
        view.end()
        assert screen(view) == [""], "nothing of the view stays"
    shown = written.getvalue()
    assert "0:04.0 – 0:14.0  match   A at 1:40.0 – 1:50.0" in shown
    assert "warning: The connection to x was lost; trying to go on" in shown
    assert "the stream goes on at 0:40.0" in shown
    assert "the-token" not in shown and "\x1b[3" not in shown


def test_a_view_with_the_timeline_in_it(terminal: Callable[[int, int], io.StringIO]) -> None:
    written = terminal(90, 24)
    view = LiveView(Source(), timeline=True)
    with view:
        view.show(Heard(60.0, -20.0, -6.0))
        for event in (final(5, 30), Gap(60, 0, 5), final(28, 50, "b")):
            view.show(event)
        lines = screen(view)
        assert lines[0] == "0:00.0 – 0:05.0  nothing known"
        assert lines[1].startswith("0:05.0 – 0:30.0  match   A at")
        assert lines[2].startswith("0:28.0 – 0:50.0  match   B at") and len(lines) == 6
        for number in range(20):
            view.show(final(60 + number, 61 + number))
        assert len(screen(view)) == 11, "the last eight"
        view.end()
    table = written.getvalue().rsplit("\x1b[2K", 1)[1]
    assert "in the video" in table and table.count("\n") > 25
    assert "22 matches of 2 videos, 1 min 05 s of 1 min 23 s recognised" in table


@pytest.mark.parametrize(("columns", "lines"), [(30, 6), (12, 2), (1, 1)])
def test_a_narrow_terminal(
    terminal: Callable[[int, int], io.StringIO], columns: int, lines: int
) -> None:
    written = terminal(columns, lines)
    view = LiveView(Source(), timeline=True)
    with view:
        view.show(Heard(4000.0, -20.0, -6.0, (StreamWarning.SILENCE,)))
        for event in (final(5, 30), Gap(60, 0, 5), final(30, 50, "b" * 60)):
            view.show(event)
        view.show(soundhash.ProvisionalMatch(4000.0, final(3900, 4000).match, 0.9))
        shown = screen(view)
        assert len(shown) <= max(3, lines)
        assert all(len(line) <= columns for line in shown)
        view.end()
    assert "recognised" in "".join(written.getvalue().split("\n")).replace(" ", "")


def test_the_strip_holds_all_of_a_long_stream() -> None:
    entries = (
        soundhash.TimelineEntry(0.0, 43_200.0, None),
        soundhash.TimelineEntry(43_200.0, 43_201.0, final(43_200, 43_201).match),
    )
    cells = strip(entries, None, 86_400.0, 40).plain
    assert len(cells) == 40
    assert cells == 20 * "─" + "█" + 19 * "·", "even a second of a day is seen"
    assert strip((), None, 0.0, 40).plain == ""


@pytest.mark.parametrize(
    ("level_db", "peak_db", "expected"),
    [
        (-120.0, -120.0, "▯▯▯▯▯▯▯▯▯▯▯▯ -120 dB"),
        (0.0, 0.0, "▮▮▮▮▮▮▮▮▮▮▮▮ 0 dB"),
        (-30.0, -30.0, "▮▮▮▮▮▮▯▯▯▯▯▯ -30 dB"),
        (-30.0, -25.0, "▮▮▮▮▮▮▮▯▯▯▯▯ -30 dB"),
        (-30.0, -5.0, "▮▮▮▮▮▮▯▯▯▯▮▯ -30 dB"),
    ],
)
def test_the_meter(level_db: float, peak_db: float, expected: str) -> None:
    assert meter(level_db, peak_db).plain == expected


def test_lines_for_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(timeline=False)
    for event in (
        OPENED,
        soundhash.ProvisionalMatch(3.0, final(1, 3).match, 0.5),
        Heard(3.0, -20.0, -6.0),
        soundhash.ProvisionalMatch(3.5, final(1, 3.5).match, 0.6),
        *(Heard(t, -120.0, -120.0, (StreamWarning.SILENCE,)) for t in (4.0, 4.5, 5.0)),
        Heard(300.0, -120.0, -120.0, (StreamWarning.SILENCE,)),
        soundhash.StreamInterrupted(300.0, LOST, 0.1),
        soundhash.StreamInterrupted(300.0, LOST, 0.2),
        soundhash.StreamOpened(280.0, "the-token", 0, 60.0, False),
        final(1, 8),
        SUMMARY,
    ):
        lines.show(event)
    lines.end()
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "0:03.0  perhaps A at 1:42.0 confidence 99%, stability 50%",
        "0:01.0 – 0:08.0  match   A at 1:40.0 – 1:47.0 speed 1.000, confidence 99.0%",
    ]
    assert told.err.splitlines() == [
        "warning: 0:04.0: nothing but silence arrives",
        "warning: 5:00.0: nothing but silence arrives",
        "warning: The connection to x was lost; trying to go on",
        "warning: the server had forgotten the stream; it listens again from 4:40.0",
    ]


def test_a_timeline_for_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(timeline=True)
    for event in (final(5, 30), Gap(60, 0, 5), Heard(60.0, -20.0, -6.0), SUMMARY):
        lines.show(event)
    lines.end()
    told = capsys.readouterr().out.splitlines()
    assert told[0].split() == ["stream", "video", "in", "the", "video", "speed", "confidence"]
    assert told[1].split() == ["0:00.0", "–", "0:05.0", "nothing", "known"]
    assert told[2].startswith("0:05.0 – 0:30.0  A")
    assert told[3] == "1 match of 1 video, 25.0 s of 1 min 40 s recognised"


def test_nothing_found_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for timeline in (False, True):
        lines = Lines(timeline=timeline)
        part = soundhash.MissingPart("shard 1/2", 0.5, "UNREACHABLE")
        lines.show(soundhash.StreamSummary(6.0, "q", 0, (part,)))
        lines.end()
        told = capsys.readouterr()
        assert told.out == "no match in what answered in 6.0 s\n"
        assert "50% of the index did not answer" in told.err


def test_every_event_is_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    events = [
        OPENED,
        Heard(1.0, -20.0, -6.0, (StreamWarning.LATE,)),
        soundhash.ProvisionalMatch(3.0, final(1, 3).match, 0.5),
        soundhash.StreamInterrupted(3.0, LOST, 0.25),
        final(1, 8),
        Gap(40.0, 0.0, 1.0),
        SUMMARY,
    ]
    printer = JsonLines(timeline=True)
    for event in events:
        printer.show(event)
    printer.end()
    printed = capsys.readouterr().out
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["event"] for line in lines] == [
        *("opened", "heard", "provisional", "interrupted", "final", "gap", "summary", "timeline")
    ]
    assert "the-token" not in printed
    assert lines[1] == {
        "event": "heard",
        "heard_s": 1.0,
        "level_db": -20.0,
        "peak_db": -6.0,
        "warnings": ["LATE"],
    }
    assert lines[3]["error"]["reason"] == "CONNECTION_LOST" and lines[3]["retry_in_s"] == 0.25
    assert [entry["start_s"] for entry in lines[-1]["entries"]] == [0.0, 1.0]
    assert lines[-1]["entries"][0]["match"] is None
    assert lines[-1]["entries"][1]["match"] == lines[4]["match"]
    assert lines[-1]["recognised_s"] == 7.0


def test_every_warning_has_words() -> None:
    assert set(_listening.WARNINGS) == set(StreamWarning) == set(_listening._EXPLAINED)
    assert _live_view.WARNINGS is _listening.WARNINGS


def test_titles_cannot_move_the_cursor() -> None:
    assert one_line("a\x1b[2J\nb\t c\u202e") == "a [2J b c"
