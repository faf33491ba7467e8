"""`soundhash listen`: live audio, and what it is while it plays."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundhash.cli import _output as output
from soundhash.cli._connection import (
    AddressOption,
    ConfidenceOption,
    JsonOption,
    TopOption,
    connect,
)
from soundhash.cli._pace import FAST_CHUNK_BYTES, HeardPace, at_rate, read_chunks, wav_bytes_per_s

if TYPE_CHECKING:
    from soundhash import PcmFormat, StreamEvent

_HEAD_BYTES = 4096


def listen(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-", help="A media file; - is standard input.", show_default=False
        ),
    ],
    fast: Annotated[
        bool, typer.Option("--fast", help="As fast as it goes, not as it plays.")
    ] = False,
    pcm: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT:RATE:CHANNELS",
            help="Raw audio, for example s16le:44100:2 (also s32le, f32le, u8).",
            show_default=False,
        ),
    ] = None,
    stop_after_first: Annotated[
        bool, typer.Option("--stop-after-first", help="End at the first certain match.")
    ] = False,
    top: TopOption = 5,
    min_confidence: ConfidenceOption = 0.0,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Stream audio as it plays, and print what it is.

    Provisional answers may change, final ones do not. Finding nothing is a normal answer.
    """
    from soundhash import PcmFormat  # noqa: PLC0415 - loads gRPC

    try:
        pcm_format = None if pcm is None else PcmFormat.parse(pcm)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--pcm") from None
    fd = 0 if source == "-" else os.open(source, os.O_RDONLY)
    feed = _Feed(fd, pcm_format, fast)
    try:
        with (
            connect(context, address) as client,
            closing(
                client.stream(
                    feed.chunks(),
                    pcm=pcm_format,
                    top=top,
                    min_confidence=min_confidence,
                    stop_after_first=stop_after_first,
                )
            ) as events,
            _Screen(as_json) as screen,
        ):
            for event in events:
                feed.heard(event)
                screen.show(event)
    finally:
        feed.stop()


class _Feed:
    """The audio on its way to the server, at its pace."""

    def __init__(self, fd: int, pcm: PcmFormat | None, fast: bool) -> None:
        self._fd = fd
        self._pcm = pcm
        self._fast = fast
        self._pace = HeardPace()
        self._stop = threading.Event()

    def chunks(self) -> Iterator[bytes]:
        """All audio, in the server client's thread."""
        if self._fast:
            return read_chunks(self._fd, lambda: FAST_CHUNK_BYTES)
        if self._pcm is not None:
            return self._at_rate(self._pcm.bytes_per_s, b"")
        head = os.read(self._fd, _HEAD_BYTES)
        rate = wav_bytes_per_s(head)
        if rate is not None:
            return self._at_rate(rate, head)
        rest = read_chunks(self._fd, lambda: self._pace.chunk_bytes)
        return self._pace.pace(_after(head, rest))

    def _at_rate(self, bytes_per_s: int, head: bytes) -> Iterator[bytes]:
        # A tenth of a second at a time is what a sound card gives.
        rest = read_chunks(self._fd, lambda: max(1, bytes_per_s // 10))
        return at_rate(_after(head, rest), bytes_per_s, self._stop)

    def heard(self, event: StreamEvent) -> None:
        """The server has told how much it has heard."""
        self._pace.heard(event.heard_s)

    def stop(self) -> None:
        """Ends the sending."""
        self._stop.set()
        self._pace.stop()


def _after(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    return itertools.chain([head] if head else [], rest)


class _Screen:
    """Answers as lines; on a terminal what is heard stands in a last line that changes."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._out = output.console()
        self._status: Any = None
        self._answer: tuple[str, int] | None = None

    def __enter__(self) -> _Screen:
        if not self._json and self._out.is_terminal:
            self._status = self._out.status("listening", spinner="dots")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, event: StreamEvent) -> None:
        """One event."""
        from soundhash import FinalMatch, Heard, ProvisionalMatch  # noqa: PLC0415 - loads gRPC

        if self._json:
            output.print_json(_event_json(event))
            return
        if isinstance(event, Heard):
            self._now(f"{output.clock(event.heard_s)}  [dim]{_meter(event.level_db)}[/]")
        elif isinstance(event, ProvisionalMatch):
            found = event.match
            text = (
                f"{output.clock(event.heard_s)}  [yellow]perhaps[/] "
                f"{output.linked(found.title, found.source_url)} "
                f"at {output.clock(found.video_end_s)} "
                f"[dim]confidence {found.confidence:.0%}, stability {event.stability:.0%}[/]"
            )
            if self._status is not None:
                self._now(text)
                return
            # Without a line that changes, only what is new is told.
            answer = (found.video_id, round(found.video_start_s - found.clip_start_s))
            if answer != self._answer:
                self._answer = answer
                self._out.print(text, soft_wrap=True)
        elif isinstance(event, FinalMatch):
            found = event.match
            self._answer = None
            link = f"  {output.escape(found.source_url)}" if found.source_url else ""
            self._out.print(
                f"{output.span(found.clip_start_s, found.clip_end_s)}  [green]match[/]   "
                f"{output.linked(found.title, found.source_url)} "
                f"at {output.span(found.video_start_s, found.video_end_s)} "
                f"[dim]speed {found.speed:.3f}, confidence {found.confidence:.1%}[/]{link}",
                soft_wrap=True,
            )
        else:
            if event.match_count == 0:
                nothing = output.no_match(event.missing)
                self._out.print(f"[yellow]{nothing}[/] in {output.length(event.heard_s)}")
            output.print_missing(event.missing)
        if self._status is None:
            sys.stdout.flush()

    def _now(self, markup: str) -> None:
        if self._status is not None:
            self._status.update(markup)


def _meter(level_db: float) -> str:
    """A level from -60 to 0 dB as a bar."""
    filled = round(max(0.0, min(1.0, 1 + level_db / 60)) * 12)
    return f"{'▮' * filled}{'▯' * (12 - filled)} {level_db:.0f} dB"


def _event_json(event: StreamEvent) -> dict[str, Any]:
    """The line that `listen --json` prints."""
    from soundhash import FinalMatch, Heard, ProvisionalMatch  # noqa: PLC0415 - loads gRPC

    if isinstance(event, Heard):
        return {"event": "heard", "heard_s": event.heard_s, "level_db": event.level_db}
    if isinstance(event, ProvisionalMatch):
        return {
            "event": "provisional",
            "heard_s": event.heard_s,
            "stability": event.stability,
            "match": output.match_json(event.match),
        }
    if isinstance(event, FinalMatch):
        return {
            "event": "final",
            "heard_s": event.heard_s,
            "match": output.match_json(event.match),
        }
    return {
        "event": "summary",
        "heard_s": event.heard_s,
        "query_id": event.query_id,
        "match_count": event.match_count,
        "missing": output.to_json(event.missing),
    }
