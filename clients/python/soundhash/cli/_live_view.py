"""`listen` on a terminal: a few lines that follow the stream, below what has been decided."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from soundhash.cli import _output as output
from soundhash.cli._listening import WARNINGS, Lines, final_line, one_line, perhaps

if TYPE_CHECKING:
    from soundhash import (
        FinalMatch,
        Heard,
        ProvisionalMatch,
        StreamInterrupted,
        StreamOpened,
    )
    from soundhash._timeline import TimelineEntry

_REFRESHES_PER_S = 8
_METER_CELLS = 12
_FLOOR_DB = -60.0
_STALE_S = 4.0
"""An answer that was not renewed for so much audio is not shown as what plays now."""
_QUIET_S = 3.0
"""Nothing has come from the server for so long: the view says that it waits."""
_MOST_ENTRIES = 8
_COLOURS = ("green", "cyan", "magenta", "blue", "yellow")
_MATCHED, _OTHER, _PERHAPS, _GAP, _OPEN = "█", "▓", "▒", "─", "·"


class Playing(Protocol):
    """What a view says of the audio that is sent; see `AudioIn`."""

    @property
    def name(self) -> str:
        """What it is, for people."""

    @property
    def done(self) -> float | None:
        """How much of it has been read, 0 to 1; None where its size is not known."""


class LiveView(Lines):
    """The level, what plays now, and a strip of the whole stream."""

    def __init__(self, source: Playing, *, timeline: bool) -> None:
        super().__init__(timeline=timeline)
        self._source = source
        self._level: Heard | None = None
        self._now: ProvisionalMatch | None = None
        self._event_at_s = time.monotonic()
        self._ended = False
        self._live = Live(
            get_renderable=self.render,
            console=self._out,
            refresh_per_second=_REFRESHES_PER_S,
            transient=True,
        )

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._live.stop()

    def end(self) -> None:
        self._ended = True
        self._live.stop()
        super().end()

    def render(self) -> RenderableType:
        """What the terminal shows now."""
        # Called by a thread of rich's while events arrive in another: takes what is there.
        if self._ended:
            return Text()
        width = max(1, self._out.width)
        entries = self.timeline.entries
        # The terminal writes ^C behind the last line: in a full one that would begin another.
        last = strip(entries, self._now, self.heard_s, max(1, width - len("^C") - 1))
        lines = [self._status(), self._playing(), last]
        if self._wants_timeline:
            shown = max(0, min(_MOST_ENTRIES, self._out.height - len(lines) - 1))
            lines = [*map(_entry_line, entries[len(entries) - shown :] if shown else ()), *lines]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return Group(*lines)

    # ---- the lines ----

    def _status(self) -> Text:
        done = self._source.done
        line = Text(output.clock(self.heard_s))
        if done is not None:
            line.append(f"  {done:.0%}")
        level = self._level
        if level is not None:
            line.append("  ")
            line.append_text(meter(level.level_db, level.peak_db))
            for warning in level.warnings:
                line.append("  ")
                line.append(WARNINGS[warning], style="yellow")
        return line

    def _playing(self) -> Text:
        now = self._now
        if self.broken:
            return Text("the connection is lost; trying to go on", style="yellow")
        quiet_s = time.monotonic() - self._event_at_s
        if self.idle:
            return Text(f"waiting for audio from {one_line(self._source.name)}", style="dim")
        if quiet_s > _QUIET_S:
            return Text(f"nothing new for {output.length(quiet_s)}; waiting", style="dim")
        if now is not None and self.heard_s - now.heard_s < _STALE_S:
            return Text.from_markup(perhaps(now))
        return Text(f"listening to {one_line(self._source.name)}", style="dim")

    # ---- events ----

    def _interrupted(self, event: StreamInterrupted) -> None:
        self._event_at_s = time.monotonic()
        super()._interrupted(event)

    def _back(self, event: StreamOpened) -> None:
        self._now = None
        super()._back(event)

    def _heard(self, event: Heard) -> None:
        self._level = event
        self._event_at_s = time.monotonic()

    def _provisional(self, event: ProvisionalMatch) -> None:
        self._now = event

    def _final(self, event: FinalMatch) -> None:
        now = self._now
        if now is not None and now.match.video_id == event.match.video_id:
            self._now = None
        if not self._wants_timeline:
            self._print(final_line(event.match))

    def _note(self, text: str) -> None:
        self._print(f"[dim]{output.escape(text)}[/]")

    def _warn(self, text: str) -> None:
        self._print(f"[yellow]warning:[/] {output.escape(text)}")


def meter(level_db: float, peak_db: float) -> Text:
    """A level from -60 to 0 dB as a bar, with its peak."""

    def cells(db: float) -> int:
        return round(max(0.0, min(1.0, 1 - db / _FLOOR_DB)) * _METER_CELLS)

    filled = cells(level_db)
    peak = max(filled, cells(peak_db))
    bar = Text("▮" * filled, style="green")
    bar.append("▯" * max(0, peak - filled - 1), style="dim")
    if peak > filled:
        bar.append("▮", style="red" if peak_db > -1.0 else "yellow")
    bar.append("▯" * (_METER_CELLS - peak), style="dim")
    bar.append(f" {level_db:.0f} dB", style="dim")
    return bar


def strip(
    entries: tuple[TimelineEntry, ...], now: ProvisionalMatch | None, heard_s: float, width: int
) -> Text:
    """The stream so far on one line: a second a cell as long as it fits, then all of it.

    Full cells are matches (a shade and a colour each in turn), a line is what holds nothing
    known, dots are not decided yet.
    """
    per_cell_s = max(1.0, heard_s / width)
    n_cells = min(width, round(heard_s / per_cell_s))
    signs, styles = [_OPEN] * n_cells, ["dim"] * n_cells

    def paint(start_s: float, end_s: float, sign: str, style: str) -> None:
        first = max(0, round(start_s / per_cell_s))
        for at in range(first, min(n_cells, max(first + 1, round(end_s / per_cell_s)))):
            signs[at], styles[at] = sign, style

    if now is not None:
        paint(now.match.clip_start_s, heard_s, _PERHAPS, "yellow")
    for entry in entries:
        if entry.match is None:
            paint(entry.start_s, entry.end_s, _GAP, "dim")
    colours: dict[str, str] = {}
    for number, entry in enumerate(entry for entry in entries if entry.match is not None):
        assert entry.match is not None  # noqa: S101 - for the type checker
        style = colours.setdefault(entry.match.video_id, _COLOURS[len(colours) % len(_COLOURS)])
        paint(entry.start_s, entry.end_s, (_MATCHED, _OTHER)[number % 2], style)
    line = Text()
    for style, cells in groupby(zip(styles, signs, strict=True), key=lambda cell: cell[0]):
        line.append("".join(sign for _, sign in cells), style=style)
    return line


def _entry_line(entry: TimelineEntry) -> Text:
    if entry.match is None:
        return Text(f"{output.span(entry.start_s, entry.end_s)}  nothing known", style="dim")
    return Text.from_markup(final_line(entry.match))
