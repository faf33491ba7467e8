"""`soundhash monitors`: live sources that the workers listen to."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundhash.cli import _output as output
from soundhash.cli._connection import (
    AddressOption,
    ConfidenceOption,
    JsonOption,
    LimitOption,
    connect,
)
from soundhash.cli._fetching import (
    BrowserOption,
    CookiesOption,
    PlayerClientOption,
    ProxyOption,
    UserAgentOption,
    fetch_options,
)
from soundhash.cli._heard import alerts, detections, watch
from soundhash.cli._monitor_names import MonitorArgument, MonitorArguments, find
from soundhash.cli._monitor_view import print_line, print_monitor, print_table
from soundhash.cli._times import parse_span_s

if TYPE_CHECKING:
    from soundhash import Monitor

monitors = typer.Typer(
    help="Listen to live sources for as long as they exist, and see what was on them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

MinDurationOption = Annotated[
    str,
    typer.Option(metavar="LENGTH", help="Shortest detection: 3s at first.", show_default=False),
]
SilenceOption = Annotated[
    str,
    typer.Option(
        metavar="LENGTH", help="Silence before there is an alert: 30s at first.", show_default=False
    ),
]
LossOption = Annotated[
    str,
    typer.Option(
        metavar="LENGTH",
        help="Time without audio before there is an alert: 60s at first.",
        show_default=False,
    ),
]
KeepAirOption = Annotated[
    str,
    typer.Option(
        metavar="LENGTH",
        help="How long what it hears stays in the index, such as 24h or 7d; 0: not at all.",
        show_default=False,
    ),
]


@monitors.command()
def add(
    context: typer.Context,
    urls: Annotated[
        list[str],
        typer.Argument(
            metavar="URL",
            help="Streams (http, HLS, rtmp, rtsp) or pages that yt-dlp knows; - reads them from "
            "stdin, a line each, so that nobody sees a password in them.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str, typer.Option(metavar="TEXT", help="Its name. Else the URL's host.", show_default=False)
    ] = "",
    min_confidence: ConfidenceOption = 0.0,
    min_duration: MinDurationOption = "",
    silence_after: SilenceOption = "",
    loss_after: LossOption = "",
    keep_air: KeepAirOption = "",
    paused: Annotated[bool, typer.Option("--paused", help="Do not listen yet.")] = False,
    cookies: CookiesOption = "",
    cookies_from_browser: BrowserOption = "",
    proxy: ProxyOption = "",
    player_client: PlayerClientOption = "",
    user_agent: UserAgentOption = "",
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Have the workers listen to live sources. One that is monitored already is an error."""
    asked = _config(
        min_confidence=min_confidence or None,
        min_duration_s=min_duration,
        silence_after_s=silence_after,
        loss_after_s=loss_after,
        keep_air_s=keep_air,
    )
    options = fetch_options(
        cookies=cookies,
        cookies_from_browser=cookies_from_browser,
        proxy=proxy,
        player_client=player_client,
        user_agent=user_agent,
    )
    wanted = _read_urls(urls)
    if name and len(wanted) > 1:
        raise typer.BadParameter("one name cannot be for several sources", param_hint="--name")
    all_well = True
    with connect(context, address) as client:
        for url in wanted:
            made = _add(client, url, as_json, name=name, options=options, paused=paused, **asked)
            all_well = all_well and made
    if not all_well:
        raise typer.Exit(1)


def _read_urls(urls: list[str]) -> list[str]:
    """The URLs, with those of stdin in the place of "-"."""
    found: list[str] = []
    for url in urls:
        found += [line.strip() for line in sys.stdin if line.strip()] if url == "-" else [url]
    if not found:
        raise typer.BadParameter("there is no URL on stdin", param_hint="URL")
    return found


def _add(client: Any, url: str, as_json: bool, **asked: Any) -> bool:
    """Whether it went well. The URL itself is not repeated: it may hold a password."""
    from soundhash import SoundHashError, Unavailable  # noqa: PLC0415 - loads gRPC

    try:
        made: Monitor = client.create_monitor(url, **asked)
    except Unavailable:
        raise
    except SoundHashError as error:
        if not as_json:
            output.print_error(str(error))
            return False
        failure = {"reason": error.reason, "message": error.explanation, "remedy": error.remedy}
        output.print_json({"id": None, "failure": failure})
        return False
    print_line(made, as_json)
    return True


@monitors.command("list")
def list_all(
    context: typer.Context,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            metavar="S",
            help="Only those that are waiting, connecting, listening, retrying or paused; may be "
            "repeated.",
            show_default=False,
        ),
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """List monitors, newest first."""
    with connect(context, address) as client:
        try:
            found = list(client.monitors(states=state or (), limit=limit))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--state") from None
    print_table(found, as_json)


@monitors.command()
def show(
    context: typer.Context,
    monitor: MonitorArgument,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Show one monitor."""
    with connect(context, address) as client:
        print_monitor(find(client, monitor), as_json)


@monitors.command()
def pause(
    context: typer.Context,
    names: MonitorArguments,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Stop listening until `resume`; what has been heard stays."""
    with connect(context, address) as client:
        for name in names:
            print_line(client.pause_monitor(find(client, name).id), as_json)


@monitors.command()
def resume(
    context: typer.Context,
    names: MonitorArguments,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Listen again; one that waits to connect again does so at once."""
    with connect(context, address) as client:
        for name in names:
            print_line(client.resume_monitor(find(client, name).id), as_json)


@monitors.command()
def update(
    context: typer.Context,
    monitor: MonitorArgument,
    name: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Its name.", show_default=False)
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="P",
            help="Least confidence of a detection; 0: the server's.",
            show_default=False,
        ),
    ] = None,
    min_duration: MinDurationOption = "",
    silence_after: SilenceOption = "",
    loss_after: LossOption = "",
    keep_air: KeepAirOption = "",
    cookies: CookiesOption = "",
    cookies_from_browser: BrowserOption = "",
    proxy: ProxyOption = "",
    player_client: PlayerClientOption = "",
    user_agent: UserAgentOption = "",
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Change what is given, while it goes on. How it is fetched changes as a whole."""
    asked = _config(
        name=name,
        min_confidence=min_confidence,
        min_duration_s=min_duration,
        silence_after_s=silence_after,
        loss_after_s=loss_after,
        keep_air_s=keep_air,
        options=fetch_options(
            cookies=cookies,
            cookies_from_browser=cookies_from_browser,
            proxy=proxy,
            player_client=player_client,
            user_agent=user_agent,
        ),
    )
    if all(value is None for value in asked.values()):
        raise typer.BadParameter("there is nothing to change")
    with connect(context, address) as client:
        print_monitor(client.update_monitor(find(client, monitor).id, **asked), as_json)


@monitors.command()
def delete(
    context: typer.Context,
    names: MonitorArguments,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Remove monitors with all that they have heard."""
    with connect(context, address) as client:
        for name in names:
            found = find(client, name)
            # Months of what was on the air take a while.
            client.delete_monitor(found.id, timeout_s=600.0)
            if as_json:
                output.print_json({"monitor_id": found.id, "deleted": True})
            else:
                text = f"deleted {output.escape(found.config.name)}"
                output.console().print(text, soft_wrap=True)


def _config(**given: Any) -> dict[str, Any]:
    """Options as they are sent; lengths are texts until here. None: not given."""
    return {
        name: (parse_span_s(value, _option(name)) if value else None)
        if name.endswith("_s")
        else value
        for name, value in given.items()
    }


def _option(name: str) -> str:
    return "--" + re.sub("_", "-", name.removesuffix("_s"))


monitors.command()(detections)
monitors.command()(alerts)
monitors.command()(watch)
