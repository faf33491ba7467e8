"""`soundhash clips`: Twitch clips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from soundhash.cli import _output as output
from soundhash.cli._connection import AddressOption, JsonOption, LimitOption, connect
from soundhash.cli._fetching import (
    BrowserOption,
    CookiesOption,
    LimitRateOption,
    MaxBytesOption,
    MaxDurationOption,
    ProxyOption,
    UserAgentOption,
    fetch_options,
)
from soundhash.cli._media import show_objects

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soundhash import Clip

clips = typer.Typer(
    help="Fetch, show and remove Twitch clips.", no_args_is_help=True, rich_markup_mode=None
)

ClipArgument = Annotated[
    str, typer.Argument(metavar="CLIP", help="Its id or address.", show_default=False)
]


@clips.command()
def add(
    context: typer.Context,
    ids: Annotated[
        list[str],
        typer.Argument(metavar="CLIP", help="Ids or addresses, at most 10.", show_default=False),
    ],
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until all are finished.")
    ] = False,
    cookies: CookiesOption = "",
    cookies_from_browser: BrowserOption = "",
    proxy: ProxyOption = "",
    user_agent: UserAgentOption = "",
    max_bytes: MaxBytesOption = "",
    max_duration: MaxDurationOption = "",
    limit_rate: LimitRateOption = "",
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Fetch and index clips in the background, or wait for them.

    With --wait each is shown when it is finished, and one that fails makes the exit status 1.
    """
    options = fetch_options(
        cookies=cookies,
        cookies_from_browser=cookies_from_browser,
        proxy=proxy,
        user_agent=user_agent,
        max_bytes=max_bytes,
        max_duration=max_duration,
        limit_rate=limit_rate,
    )
    with connect(context, address) as client:
        if not wait:
            _show(client.submit_clips(ids, options=options), as_json)
            return
        all_well = True
        for clip in client.process_clips(ids, options=options):
            all_well = all_well and clip.state == "SUCCEEDED"
            _tell(clip, as_json)
    if not all_well:
        raise typer.Exit(1)


@clips.command("list")
def list_(
    context: typer.Context,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """List clips, newest first."""
    with connect(context, address) as client:
        _show(client.clips(limit=limit), as_json)


@clips.command()
def show(
    context: typer.Context,
    clip_id: ClipArgument,
    sign: Annotated[
        bool, typer.Option("--sign", help="With addresses to download what is kept of it.")
    ] = False,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Show how a clip stands and what is kept of it."""
    with connect(context, address) as client:
        clip = client.get_clip(clip_id, download_urls=sign)
    if as_json:
        output.print_json(clip)
        return
    failure = clip.failure
    output.print_pairs(
        [
            ("clip", clip.id),
            ("title", clip.title),
            ("state", clip.state.lower()),
            *([("failed", f"{failure.reason}: {failure.message}")] if failure else []),
            *([("remedy", failure.remedy)] if failure else []),
            ("length", "" if clip.duration_s is None else output.clock(clip.duration_s)),
            ("added", output.moment(clip.create_time)),
            ("video", clip.video_id),
            ("job", clip.job_id),
        ]
    )
    if clip.objects:
        show_objects(clip.objects)


@clips.command()
def delete(
    context: typer.Context,
    ids: Annotated[
        list[str],
        typer.Argument(metavar="CLIP", help="Ids or addresses.", show_default=False),
    ],
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Remove clips: their jobs, what is kept of them, and their videos.

    One that cannot be removed is told, the others go on, and the exit status is 1.
    """
    from soundhash import SoundHashError, Unavailable  # noqa: PLC0415 - loads gRPC

    all_well = True
    with connect(context, address) as client:
        for one in ids:
            error: SoundHashError | None = None
            try:
                client.delete_clip(one)
            except Unavailable:
                raise
            except SoundHashError as failed:
                error, all_well = failed, False
            if as_json:
                failure = error and {"reason": error.reason, "message": error.explanation}
                output.print_json({"clip": one, "deleted": error is None, "error": failure})
            elif error is not None:
                output.print_error(str(error))
            else:
                output.console().print(f"deleted {output.escape(one)}")
    if not all_well:
        raise typer.Exit(1)


def _tell(clip: Clip, as_json: bool) -> None:
    """A clip that is finished."""
    if as_json:
        output.print_json(clip)
    elif clip.failure is not None:
        text = f"{clip.id}: {clip.failure.message} {clip.failure.remedy} ({clip.failure.reason})"
        output.print_error(text)
    elif clip.video_id:
        name, title = output.escape(clip.id), output.escape(clip.title)
        output.console().print(f"[green]indexed[/]  {name} → {title} [dim]video {clip.video_id}[/]")
    else:
        output.console().print(f"{clip.state.lower():<8} {output.escape(clip.id)}")


def _show(found: Iterable[Clip], as_json: bool) -> None:
    if as_json:
        for clip in found:
            output.print_json(clip)
        return
    rows = [
        [
            output.escape(clip.id),
            clip.state.lower(),
            output.escape(clip.title),
            "" if clip.duration_s is None else output.clock(clip.duration_s),
            output.moment(clip.create_time),
            clip.failure.reason if clip.failure else "",
            clip.video_id,
        ]
        for clip in found
    ]
    if not rows:
        output.console(stderr=True).print("no clips")
        return
    columns = ["clip", "state", "title", "length", "added", "failure", "video"]
    output.print_table(columns, rows, right=("length",), whole=("added", "video"))
