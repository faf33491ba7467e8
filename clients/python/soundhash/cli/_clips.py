"""Commands that ask where audio is from, and compare it."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundhash.cli import _output as output
from soundhash.cli._connection import (
    AddressOption,
    ConfidenceOption,
    JsonOption,
    LimitOption,
    TopOption,
    connect,
    connect_async,
)
from soundhash.cli._sources import is_url

if TYPE_CHECKING:
    from soundhash import AsyncClient, Match, MissingPart
    from soundhash.cli._progress import ClipsDisplay

CLIPS_AT_ONCE = 2
_MAX_STDIN_BYTES = (32 << 20) + 1
"""One byte more than a clip may have, so that the client says what is wrong."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one clip. error: reason and explanation, or None."""

    clip: str
    matches: tuple[Match, ...]
    elapsed_s: float
    error: tuple[str, str] | None = None
    missing: tuple[MissingPart, ...] = ()
    title: str | None = None
    """What a URL's source calls the clip."""

    def to_json(self) -> dict[str, Any]:
        """The line that `match --json` prints."""
        line: dict[str, Any] = {
            "clip": self.clip,
            "matches": [output.match_json(found) for found in self.matches],
            "elapsed_s": round(self.elapsed_s, 6),
            "missing": output.to_json(self.missing),
        }
        if self.title is not None:
            line["title"] = self.title
        if self.error is not None:
            line["error"] = {"reason": self.error[0], "message": self.error[1]}
        return line


def match(
    context: typer.Context,
    clips: Annotated[
        list[str],
        typer.Argument(
            metavar="CLIP",
            help="Media files, or URLs that the server fetches; - is standard input.",
            show_default=False,
        ),
    ],
    start: Annotated[
        float | None,
        typer.Option(
            "--start", min=0.0, metavar="S", help="Of a URL: begin at this second of the media."
        ),
    ] = None,
    length: Annotated[
        float | None,
        typer.Option(
            "--length",
            min=1.0,
            metavar="S",
            help="Of a URL: use so many seconds of it. Default: 60.",
        ),
    ] = None,
    top: TopOption = 5,
    min_confidence: ConfidenceOption = 0.0,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Find the videos that clips are from.

    Answers in the order of the clips. Finding nothing is a normal answer; a clip that cannot be
    read is told, the others go on, and the exit status is 1. Of a URL only as much is fetched as
    is needed, and nothing of it is kept.
    """
    part = _Part(start, length)
    if part != _Part() and not all(map(is_url, clips)):
        raise typer.BadParameter("--start and --length are for URLs only.")
    # Read here and not beside the calls: a thread that waits for input cannot be interrupted.
    stdin = sys.stdin.buffer.read(_MAX_STDIN_BYTES) if "-" in clips else b""
    sources: list[tuple[str, str | bytes]] = [
        (clip, stdin if clip == "-" else clip) for clip in clips
    ]
    answers = asyncio.run(_match_all(context, address, sources, part, top, min_confidence, as_json))
    if not as_json:
        _print_answers(answers)
    if any(answer.error for answer in answers):
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Part:
    """Which part of a URL's media to use; None: the server's choice."""

    start_s: float | None = None
    length_s: float | None = None


async def _match_all(
    context: typer.Context,
    address: str | None,
    clips: list[tuple[str, str | bytes]],
    part: _Part,
    top: int,
    min_confidence: float,
    as_json: bool,
) -> list[Answer]:
    from soundhash.cli._progress import ClipsDisplay  # noqa: PLC0415 - loads gRPC

    slots = asyncio.Semaphore(CLIPS_AT_ONCE)
    answers = []
    with ClipsDisplay(len(clips)) as display:
        async with connect_async(context, address) as client:

            async def one(clip: str, source: str | bytes) -> Answer:
                async with slots:
                    if is_url(clip):
                        return await _match_url(client, clip, part, top, min_confidence, display)
                    return await _match_one(client, clip, source, top, min_confidence)

            tasks = [asyncio.create_task(one(*clip)) for clip in clips]
            try:
                for task in tasks:
                    answers.append(await task)
                    display.advance()
                    if as_json:
                        output.print_json(answers[-1].to_json())
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    return answers


async def _match_one(
    client: AsyncClient, clip: str, source: str | bytes, top: int, min_confidence: float
) -> Answer:
    """The answer to one clip. Raises only what would befall all others too."""
    from soundhash import SoundHashError  # noqa: PLC0415 - loads gRPC

    began = time.perf_counter()
    try:
        result = await client.match(source, top=top, min_confidence=min_confidence)
    except SoundHashError as error:
        if error.reason in ("SERVER_UNREACHABLE", "ADDRESS_INVALID"):
            raise
        return Answer(clip, (), time.perf_counter() - began, (error.reason, str(error)))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "FILE_NOT_FOUND" if missing else "FILE_NOT_READABLE"
        text = f"The file cannot be read: {error.strerror or error}."
        return Answer(clip, (), time.perf_counter() - began, (reason, text))
    return Answer(clip, result.matches, result.elapsed_s, missing=result.missing)


async def _match_url(
    client: AsyncClient,
    url: str,
    part: _Part,
    top: int,
    min_confidence: float,
    display: ClipsDisplay,
) -> Answer:
    """As `_match_one` for what the server fetches."""
    from soundhash import SoundHashError, UrlProgress  # noqa: PLC0415 - loads gRPC
    from soundhash._convert import url_result  # noqa: PLC0415 - loads gRPC

    began = time.perf_counter()
    events = []
    try:
        async for event in client.stream_url(
            url,
            start_s=part.start_s or 0.0,
            length_s=part.length_s,
            top=top,
            min_confidence=min_confidence,
        ):
            if isinstance(event, UrlProgress):
                display.fetched(url, event.bytes_done, event.audio_done_s)
            else:
                events.append(event)
    except SoundHashError as error:
        if error.reason in ("SERVER_UNREACHABLE", "ADDRESS_INVALID"):
            raise
        return Answer(url, (), time.perf_counter() - began, (error.reason, str(error)))
    finally:
        display.finished(url)
    result = url_result(events)
    return Answer(url, result.matches, result.elapsed_s, missing=result.missing, title=result.title)


def _print_answers(answers: list[Answer]) -> None:
    rows = []
    several = len(answers) > 1
    for answer in answers:
        if answer.error is not None:
            output.print_error(f"{answer.clip}: {answer.error[1]}")
            continue
        output.print_missing(answer.missing, f"{answer.clip}: ")
        name = output.escape(answer.clip)
        if not answer.matches:
            rows.append(
                ([name] if several else [])
                + [f"[yellow]{output.no_match(answer.missing)}[/]"]
                + [""] * 6
            )
        for place, found in enumerate(answer.matches):
            rows.append(([name if place == 0 else ""] if several else []) + _cells(found))
    if not rows:
        return
    columns = (["clip"] if several else []) + _COLUMNS
    linked = any(found.source_url for answer in answers for found in answer.matches)
    if not (linked and not output.console().is_terminal):
        # On a terminal the title itself is the link.
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    output.print_table(columns, rows, right=_RIGHT, whole=_WHOLE)


_COLUMNS = ["video", "at", "part of the clip", "speed", "pitch", "confidence", "link"]

_RIGHT = ("speed", "pitch", "confidence")
_WHOLE = ("when", "at", "part of the clip", "id")


def _cells(found: Match) -> list[str]:
    return [
        output.named(found),
        output.place(found),
        output.span(found.clip_start_s, found.clip_end_s),
        f"{found.speed:.3f}",
        f"{found.pitch:.3f}",
        f"{found.confidence:.1%}",
        output.escape(found.source_url),
    ]


def matches(
    context: typer.Context,
    video: Annotated[str, typer.Option(metavar="ID", help="Only matches of this video.")] = "",
    query: Annotated[str, typer.Option(metavar="ID", help="Only those of this question.")] = "",
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """List past matches, newest first."""
    with connect(context, address) as client:
        found = client.matches(video_id=video, query_id=query, limit=limit)
        if as_json:
            for one in found:
                output.print_json(one)
            return
        rows = [[output.moment(one.create_time), *_cells(one)[:-1], one.id] for one in found]
    columns = ["when", *_COLUMNS[:-1], "id"]
    output.print_table(columns, rows, right=_RIGHT, whole=_WHOLE)


_SIDE_HELP = "A media file, or the id of a video."


def compare(
    context: typer.Context,
    first: Annotated[str, typer.Argument(help=_SIDE_HELP, show_default=False)],
    second: Annotated[str, typer.Argument(help=_SIDE_HELP, show_default=False)],
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Tell whether two recordings share audio, and where.

    The place is that of the second one's start in the first.
    """
    with connect(context, address) as client:
        answer = client.compare(first, second)
    if as_json:
        output.print_json(answer)
        return
    pairs = [
        ("same audio", "yes" if answer.same_audio else "no"),
        ("confidence", f"{answer.confidence:.1%}"),
    ]
    if answer.same_audio:
        pairs += [
            ("second starts at", f"{output.clock(answer.offset_s)} of the first"),
            ("speed", f"{answer.speed:.3f}"),
            ("pitch", f"{answer.pitch:.3f}"),
        ]
    pairs += [
        ("correlation", f"{answer.correlation:.3f}"),
        ("distance", f"{answer.distance:.3f}"),
        ("vector similarity", f"{answer.vector_similarity:.3f}"),
    ]
    output.print_pairs(pairs)
    if not answer.passages:
        return
    rows = [
        [
            output.span(one.first_start_s, one.first_end_s),
            output.span(one.second_start_s, one.second_end_s),
            f"{one.speed:.3f}",
            f"{one.pitch:.3f}",
            f"{one.confidence:.1%}",
        ]
        for one in answer.passages
    ]
    columns = ["in the first", "in the second", "speed", "pitch", "confidence"]
    output.print_table(columns, rows, right=_RIGHT, whole=columns[:2])


def fingerprint(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FILE|ID", help=_SIDE_HELP, show_default=False)],
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Show the fingerprint of a file or a video.

    A file is fingerprinted without being stored. With --json the segments' data are in base64.
    """
    from soundhash._media import is_uuid  # noqa: PLC0415 - loads gRPC

    with connect(context, address) as client:
        if is_uuid(source):
            made = client.get_fingerprint(source, full=True)
        else:
            made = client.compute_fingerprint(Path(source))
    if as_json:
        output.print_json(made)
        return
    output.print_pairs(
        [
            ("length", output.length(made.duration_s)),
            ("landmarks", f"{made.landmark_count:,}"),
            ("parameters", made.params_digest),
        ]
    )
    rows = [
        [
            str(segment.index),
            output.span(segment.start_s, segment.start_s + segment.duration_s),
            f"{segment.landmark_count:,}",
            output.size(len(segment.landmarks) + len(segment.descriptor) + len(segment.vector)),
            segment.md5,
        ]
        for segment in made.segments
    ]
    columns = ["segment", "part", "landmarks", "size", "md5"]
    output.print_table(columns, rows, right=("segment", "landmarks", "size"))
