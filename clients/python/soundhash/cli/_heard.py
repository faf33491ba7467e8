"""What monitors hear: `soundhash monitors detections`, `alerts` and `watch`."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundhash.cli import _output as output
from soundhash.cli._connection import (
    AddressOption,
    JsonOption,
    LimitOption,
    connect,
    connect_async,
)
from soundhash.cli._monitor_names import find_id
from soundhash.cli._times import parse_moment

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from soundhash import Detection, MonitorAlert, MonitorEvent

_PATIENT_RETRIES = 9

OfMonitorOption = Annotated[
    str,
    typer.Option(
        "--monitor",
        metavar="MONITOR",
        help="Only of this one: UUID, name or URL.",
        show_default=False,
    ),
]
SinceOption = Annotated[
    str,
    typer.Option(
        metavar="TIME",
        help="Only what ended after it: 2026-11-21T18:00, or 2h for two hours ago.",
        show_default=False,
    ),
]


def detections(
    context: typer.Context,
    monitor: OfMonitorOption = "",
    video: Annotated[
        str, typer.Option(metavar="ID", help="Only of this video.", show_default=False)
    ] = "",
    since: SinceOption = "",
    until: Annotated[
        str, typer.Option(metavar="TIME", help="Only what began before it.", show_default=False)
    ] = "",
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """List what was on the air, the latest first."""
    asked: dict[str, Any] = {
        "since": parse_moment(since, "--since") if since else None,
        "until": parse_moment(until, "--until") if until else None,
    }
    with connect(context, address) as client:
        of = find_id(client, monitor)
        found = list(client.detections(monitor_id=of, video_id=video, limit=limit, **asked))
    if as_json:
        for one in found:
            output.print_json(one)
        return
    if not found:
        output.console(stderr=True).print("no detections")
        return
    rows = [
        [
            output.moment(one.start_time),
            "[green]now[/]" if one.ongoing else output.length(_length_s(one)),
            output.escape(one.monitor_name),
            output.linked(one.title, one.source_url),
            output.span(one.video_start_s, one.video_end_s),
            f"{one.coverage:.0%}",
            f"{one.confidence:.1%}",
            one.video_id,
        ]
        for one in found
    ]
    output.print_table(
        ["on the air", "for", "on", "video", "part of it", "heard", "confidence", "video id"],
        rows,
        right=("for", "heard", "confidence"),
        whole=("on the air", "part of it", "video id"),
    )


def alerts(
    context: typer.Context,
    monitor: OfMonitorOption = "",
    ongoing: Annotated[bool, typer.Option("--ongoing", help="Only what is not over.")] = False,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """List silence and losses of sources, the latest first."""
    with connect(context, address) as client:
        of = find_id(client, monitor)
        found = list(client.monitor_alerts(monitor_id=of, ongoing=ongoing, limit=limit))
    if as_json:
        for one in found:
            output.print_json(one)
        return
    if not found:
        output.console(stderr=True).print("no alerts")
        return
    rows = [
        [
            output.moment(one.start_time),
            output.moment(one.end_time) or "[red]not over[/]",
            output.escape(one.monitor_name),
            one.kind.lower(),
            output.escape(one.message),
        ]
        for one in found
    ]
    output.print_table(
        ["since", "until", "on", "what", "why"], rows, whole=("since", "until", "what")
    )


def watch(
    context: typer.Context,
    monitors: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MONITOR", help="UUIDs, names or URLs. Default: all.", show_default=False
        ),
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="First what changed since then: 2026-11-21T18:00, or 2h for two hours ago.",
            show_default=False,
        ),
    ] = "",
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Tell what begins and ends on the air as it happens, until Ctrl-C.

    With --json every change is a line, also how far what goes on has come.
    """
    moment = parse_moment(since, "--since") if since else None
    with connect(context, address) as client:
        ids = [find_id(client, name) for name in monitors or ()]
    asyncio.run(_watch(context, address, ids, moment, as_json))


async def _watch(
    context: typer.Context,
    address: str | None,
    ids: list[str],
    since: datetime | None,
    as_json: bool,
) -> None:
    told = _Told(output.console())
    async with (
        connect_async(context, address, max_retries=_PATIENT_RETRIES) as client,
        aclosing(client.watch_detections(ids, since=since)) as events,
    ):
        async for event in events:
            if as_json:
                output.print_json(_event_json(event))
            elif event.detection is not None:
                told.detection(event.detection)
            elif event.alert is not None:
                told.alert(event.alert)


def _event_json(event: MonitorEvent) -> dict[str, Any]:
    kind = "detection" if event.detection is not None else "alert"
    return {
        "event": kind,
        "update_time": event.update_time,
        kind: event.detection or event.alert,
    }


class _Told:
    """Tells people when something begins and when it is over, each once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._going_on: set[str] = set()

    def detection(self, one: Detection) -> None:
        title = output.linked(one.title, one.source_url)
        if one.ongoing:
            if one.id not in self._going_on:
                self._going_on.add(one.id)
                at = f"at {output.clock(one.video_start_s)}"
                self._line(one.start_time, one.monitor_name, "[green]on air[/]", f"{title} {at}")
            return
        self._going_on.discard(one.id)
        lasted = f"{output.length(_length_s(one))}, {one.coverage:.0%} of it heard"
        self._line(one.end_time, one.monitor_name, "ended ", f"{title} after {lasted}")

    def alert(self, one: MonitorAlert) -> None:
        what = one.kind.lower()
        if one.end_time is None:
            why = f"{what}: {output.escape(one.message)}" if one.message else what
            self._line(one.start_time, one.monitor_name, "[red]alert [/]", why)
        else:
            self._line(one.end_time, one.monitor_name, "over  ", what)

    def _line(self, moment: datetime | None, name: str, word: str, text: str) -> None:
        when = output.moment(moment)
        self._console.print(f"{when}  {word}  {output.escape(name)}: {text}", soft_wrap=True)


def _length_s(one: Detection) -> float:
    if one.start_time is None or one.end_time is None:
        return 0.0
    return (one.end_time - one.start_time).total_seconds()
