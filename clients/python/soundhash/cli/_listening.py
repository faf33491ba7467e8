"""What `listen` prints: lines, JSON, or a view that follows the stream on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from soundhash.cli import _output as output

if TYPE_CHECKING:
    from soundhash import (
        FinalMatch,
        Heard,
        Match,
        ProvisionalMatch,
        StreamEvent,
        StreamInterrupted,
        StreamOpened,
        StreamSummary,
        Timeline,
    )

_WARNED_AGAIN_S = 60.0
_TABLE_COLUMNS = 76
"""A terminal that is narrower gets the timeline as lines."""
WARNINGS = {
    "SILENCE": "silence",
    "CLIPPING": "clipping",
    "LATE": "the server is behind",
    "UNKNOWN": "something is wrong with the audio",
}
_EXPLAINED = {
    "SILENCE": "nothing but silence arrives",
    "CLIPPING": "the audio is overdriven (clipping); turn the source down",
    "LATE": "the server is busy: answers come late",
    "UNKNOWN": "the server warns of something that this program does not know",
}


class Printer:
    """Takes the events of a stream one by one; the base of the ways to show them.

    timeline: all of the stream in order is shown at its end. broken: the connection is, for now.
    idle: it is not needed, for now.
    """

    def __init__(self, *, timeline: bool) -> None:
        from soundhash import Timeline  # noqa: PLC0415 - loads gRPC

        self.timeline: Timeline = Timeline()
        self.broken = False
        self.idle = False
        self.heard_s = 0.0
        self._wants_timeline = timeline

    def __enter__(self) -> Printer:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, event: StreamEvent) -> None:
        """One event."""
        import soundhash  # noqa: PLC0415 - loads gRPC

        self.timeline.add(event)
        self.heard_s = max(self.heard_s, event.heard_s)
        match event:
            case soundhash.StreamInterrupted():
                self._interrupted(event)
                self.idle = event.retry_in_s is None
                self.broken = not self.idle
            case soundhash.StreamOpened():
                if self.broken or self.idle:
                    self._back(event)
                self.broken = self.idle = False
            case soundhash.Heard():
                self._heard(event)
            case soundhash.ProvisionalMatch():
                self._provisional(event)
            case soundhash.FinalMatch():
                self._final(event)
            case soundhash.StreamSummary():
                self._summary(event)
            case soundhash.Gap():
                self._gap()

    def end(self) -> None:
        """The stream has ended, or nobody wants more of it."""

    def _interrupted(self, event: StreamInterrupted) -> None: ...
    def _back(self, event: StreamOpened) -> None: ...
    def _heard(self, event: Heard) -> None: ...
    def _provisional(self, event: ProvisionalMatch) -> None: ...
    def _final(self, event: FinalMatch) -> None: ...
    def _gap(self) -> None: ...
    def _summary(self, event: StreamSummary) -> None: ...


class JsonLines(Printer):
    """A line of JSON an event, for machines."""

    def show(self, event: StreamEvent) -> None:
        super().show(event)
        output.print_json(event_json(event))

    def end(self) -> None:
        if self._wants_timeline and self.heard_s:
            output.print_json(timeline_json(self.timeline, self.heard_s))


class Lines(Printer):
    """Answers as lines, for pipes and files."""

    def __init__(self, *, timeline: bool) -> None:
        super().__init__(timeline=timeline)
        self._out = output.console()
        self._answer: tuple[str, int] | None = None
        self._warned_s: dict[str, float] = {}
        self._summed_up: StreamSummary | None = None

    def _interrupted(self, event: StreamInterrupted) -> None:
        if event.retry_in_s is None:
            self._note("no audio arrives; waiting for more")
        elif not self.broken:
            self._warn(f"{event.error.message.rstrip('.')}; trying to go on")

    def _back(self, event: StreamOpened) -> None:
        at = output.clock(event.heard_s)
        if event.resumed:
            if not self.idle:
                self._note(f"the stream goes on at {at}")
        else:
            self._warn(f"the server had forgotten the stream; it listens again from {at}")

    def _heard(self, event: Heard) -> None:
        for warning in event.warnings:
            last_s = self._warned_s.get(warning)
            if last_s is None or event.heard_s - last_s > _WARNED_AGAIN_S:
                self._warn(f"{output.clock(event.heard_s)}: {_EXPLAINED[warning]}")
            # As long as it stays it is one warning.
            self._warned_s[warning] = event.heard_s

    def _provisional(self, event: ProvisionalMatch) -> None:
        # Only what is new is told.
        found = event.match
        answer = (found.video_id, round(found.video_start_s - found.clip_start_s))
        if answer != self._answer and not self._wants_timeline:
            self._answer = answer
            self._print(f"{output.clock(event.heard_s)}  {perhaps(event)}")

    def _final(self, event: FinalMatch) -> None:
        self._answer = None
        if not self._wants_timeline:
            self._print(final_line(event.match))

    def _summary(self, event: StreamSummary) -> None:
        self._summed_up = event

    def end(self) -> None:
        summary = self._summed_up
        if self._wants_timeline and self.timeline.matches:
            print_timeline(self.timeline, self.heard_s)
        elif summary is not None and summary.match_count == 0:
            nothing = output.no_match(summary.missing)
            self._print(f"[yellow]{nothing}[/] in {output.length(summary.heard_s)}")
        if summary is not None:
            output.print_missing(summary.missing)

    def _print(self, markup: str) -> None:
        self._out.print(markup, soft_wrap=True)
        sys.stdout.flush()

    def _note(self, text: str) -> None:
        output.console(stderr=True).print(output.escape(text), soft_wrap=True)

    def _warn(self, text: str) -> None:
        output.console(stderr=True).print(
            f"[yellow]warning:[/] {output.escape(text)}", soft_wrap=True
        )


def perhaps(event: ProvisionalMatch) -> str:
    """A match that may change; markup."""
    found = event.match
    return (
        f"[yellow]perhaps[/] {_named(found)} at {output.place_end(found)} "
        f"[dim]confidence {found.confidence:.0%}, stability {event.stability:.0%}[/]"
    )


def final_line(found: Match) -> str:
    """A match that stays; markup."""
    link = f"  {output.escape(found.source_url)}" if found.source_url else ""
    return (
        f"{output.span(found.clip_start_s, found.clip_end_s)}  [green]match[/]   "
        f"{_named(found)} at {output.place(found)} "
        f"[dim]speed {found.speed:.3f}, confidence {found.confidence:.1%}[/]{link}"
    )


def print_timeline(timeline: Timeline, heard_s: float) -> None:
    """All of a stream in its order, as a table with a line of totals."""
    out = output.console()
    narrow = out.is_terminal and out.width < _TABLE_COLUMNS
    rows: list[Sequence[str]] = []
    for entry in timeline:
        time = output.span(entry.start_s, entry.end_s)
        found = entry.match
        if found is None:
            rows.append((time, "[dim]nothing known[/]", "", "", ""))
            if narrow:
                out.print(f"{time}  [dim]nothing known[/]")
            continue
        rows.append(
            (
                time,
                _named(found),
                output.place(found),
                f"{found.speed:.3f}",
                f"{found.confidence:.1%}",
            )
        )
        if narrow:
            _, title, place, _, confidence = rows[-1]
            out.print(f"{time}  {title}\n  at {place} [dim]{confidence}[/]")
    if not narrow:
        columns = ("stream", "video", "in the video", "speed", "confidence")
        right, whole = ("speed", "confidence"), ("stream", "in the video")
        output.print_table(columns, rows, right=right, whole=whole)
    matches = timeline.matches
    n_videos = len({found.video_id for found in matches})
    out.print(
        f"{len(matches)} {'match' if len(matches) == 1 else 'matches'} of {n_videos} "
        f"{'video' if n_videos == 1 else 'videos'}, {output.length(timeline.recognised_s)} of "
        f"{output.length(heard_s)} recognised"
    )


def event_json(event: StreamEvent) -> dict[str, Any]:
    """The line that `listen --json` prints."""
    import soundhash  # noqa: PLC0415 - loads gRPC

    heard_s = event.heard_s
    match event:
        case soundhash.StreamOpened():
            # Without the token: it is a secret, and what is printed is kept in logs.
            return {
                "event": "opened",
                "heard_s": heard_s,
                "resumed": event.resumed,
                "resume_within_s": event.resume_within_s,
            }
        case soundhash.StreamInterrupted():
            return {
                "event": "interrupted",
                "heard_s": heard_s,
                "error": {"reason": event.error.reason, "message": event.error.message},
                "retry_in_s": event.retry_in_s,
            }
        case soundhash.Heard():
            return {
                "event": "heard",
                "heard_s": heard_s,
                "level_db": event.level_db,
                "peak_db": event.peak_db,
                "warnings": output.to_json(event.warnings),
            }
        case soundhash.ProvisionalMatch():
            return {
                "event": "provisional",
                "heard_s": heard_s,
                "stability": event.stability,
                "match": output.match_json(event.match),
            }
        case soundhash.FinalMatch():
            return {"event": "final", "heard_s": heard_s, "match": output.match_json(event.match)}
        case soundhash.Gap():
            return {
                "event": "gap",
                "heard_s": heard_s,
                "start_s": event.start_s,
                "end_s": event.end_s,
            }
        case soundhash.StreamSummary():
            return {
                "event": "summary",
                "heard_s": heard_s,
                "query_id": event.query_id,
                "match_count": event.match_count,
                "missing": output.to_json(event.missing),
            }


def timeline_json(timeline: Timeline, heard_s: float) -> dict[str, Any]:
    """The last line of `listen --timeline --json`."""
    return {
        "event": "timeline",
        "heard_s": heard_s,
        "recognised_s": timeline.recognised_s,
        "entries": [
            {
                "start_s": entry.start_s,
                "end_s": entry.end_s,
                "match": None if entry.match is None else output.match_json(entry.match),
            }
            for entry in timeline
        ],
    }


def _named(found: Match) -> str:
    """What a match is with, on one line; markup."""
    if found.on_air is not None:
        return output.named(found)
    return output.linked(one_line(found.title), found.source_url)


def one_line(title: str) -> str:
    """A title without what would move the cursor: it is somebody else's text."""
    return " ".join("".join(c if c.isprintable() else " " for c in title).split())
