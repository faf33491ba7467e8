"""`soundhash duplicates`: videos that are the same, contain one another or share passages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from soundhash.cli import _output as output
from soundhash.cli._connection import AddressOption, JsonOption, LimitOption, connect
from soundhash.cli._times import parse_span_s

if TYPE_CHECKING:
    from soundhash import Client, DuplicatePair, Job, SharedRange

_KINDS = {
    "FULL": "[green]=[/]",
    "CONTAINS": "[cyan]contains[/]",
    "PARTIAL": "[yellow]shares[/]",
}
_MOST_RANGES = 5
_CHANGED = 0.001


def duplicates(
    context: typer.Context,
    job_id: Annotated[
        str,
        typer.Argument(
            metavar="[JOB]", help="Show what this comparison has found.", show_default=False
        ),
    ] = "",
    show: Annotated[
        bool, typer.Option("--show", help="Show what the latest comparison has found.")
    ] = False,
    video: Annotated[
        list[str] | None,
        typer.Option(
            "--video",
            metavar="ID",
            help="Only pairs with this video; may be repeated.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="K",
            help="Only show these (full, contains, partial); may be repeated.",
            show_default=False,
        ),
    ] = None,
    min_shared: Annotated[
        str,
        typer.Option(
            metavar="S", help="Shortest passage that is told: 3s to 10m.", show_default=False
        ),
    ] = "10s",
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until the comparison is done.")
    ] = True,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Find videos that are the same, contain one another or share passages.

    Compares all videos with one another, follows that, and shows the pairs, the longest shared
    passages first. A comparison that fails makes the exit status 1.
    """
    shown = bool(job_id) or show
    if shown and video is not None and len(video) > 1:
        raise typer.BadParameter("what was found can be shown for one video at a time")
    with connect(context, address) as client:
        if not shown:
            job = client.find_duplicates(video or (), min_shared_s=_seconds(min_shared))
            if not wait:
                _tell_started(job, as_json)
                return
            job = _follow(client, job, as_json)
            job_id = job.id
            if as_json:
                output.print_json(job)
        one = video[0] if video is not None and shown else ""
        try:
            found = list(client.duplicates(job_id, video_id=one, kinds=kind or (), limit=limit))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--kind") from None
        if as_json:
            for pair in found:
                output.print_json(pair)
            return
    if not found:
        output.console(stderr=True).print("no videos are alike")
    for pair in found:
        _print(pair)
    if len(found) == limit:
        output.console(stderr=True).print(f"[dim]the first {limit}; see --limit[/]")


def _seconds(text: str) -> float:
    value = parse_span_s(text, "--min-shared")
    if not 3.0 <= value <= 600.0:
        raise typer.BadParameter("must be 3s to 10m", param_hint="--min-shared")
    return value


def _tell_started(job: Job, as_json: bool) -> None:
    if as_json:
        output.print_json(job)
        return
    output.console().print(f"comparing; see soundhash duplicates {job.id}", soft_wrap=True)


def _follow(client: Client, started: Job, as_json: bool) -> Job:
    from soundhash._errors import with_remedy  # noqa: PLC0415 - loads gRPC
    from soundhash.cli._progress import JobDisplay  # noqa: PLC0415 - loads gRPC

    job = started
    with JobDisplay() as display:
        for job in client.watch_job(started.id):
            if not as_json:
                display.show(job)
    if job.state != "SUCCEEDED":
        if as_json:
            output.print_json(job)
        elif job.failure is not None and job.state == "FAILED":
            output.print_error(with_remedy(job.failure.message, job.failure.remedy))
        else:
            output.print_error(f"the comparison is {job.state.lower()}")
        raise typer.Exit(1)
    if not as_json and job.duplicates_result is not None:
        made = job.duplicates_result
        counts = f"{made.full:,} the same, {made.contains:,} contained, {made.partial:,} in part"
        output.console(stderr=True).print(
            f"[dim]{made.videos:,} videos, {output.clock(made.duration_s)} of audio: {counts}[/]"
        )
    return job


def _print(pair: DuplicatePair) -> None:
    out = output.console()
    first = output.linked(pair.first.title, pair.first.source_url)
    second = output.linked(pair.second.title, pair.second.source_url)
    share = f"[dim]{pair.first_share:.0%} | {pair.second_share:.0%}[/]"
    word = _KINDS.get(pair.kind, output.escape(pair.kind.lower()))
    out.print(f"{first} {word} {second}  {share}", soft_wrap=True)
    out.print(f"  [dim]{pair.first.id} {pair.second.id}[/]", soft_wrap=True)
    for one in pair.ranges[:_MOST_RANGES]:
        out.print(f"  {_describe(one)}", soft_wrap=True)
    if len(pair.ranges) > _MOST_RANGES:
        out.print(f"  [dim]and {len(pair.ranges) - _MOST_RANGES} more[/]", soft_wrap=True)


def _describe(one: SharedRange) -> str:
    text = (
        f"{output.span(one.first_start_s, one.first_end_s)} is "
        f"{output.span(one.second_start_s, one.second_end_s)}"
    )
    if abs(one.speed - 1.0) >= _CHANGED:
        text += f", {one.speed:.3f} times as fast"
    if abs(one.pitch - 1.0) >= _CHANGED:
        text += f", {one.pitch:.3f} times as high"
    return f"{text} [dim]({one.confidence:.0%})[/]"
