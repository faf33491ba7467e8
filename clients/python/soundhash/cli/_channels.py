"""`soundhash channels`: channels whose videos are indexed, now and by a schedule."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from datetime import datetime
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
from soundhash.cli._fetching import (
    BrowserOption,
    CookiesOption,
    LimitRateOption,
    MaxBytesOption,
    MaxDurationOption,
    PlayerClientOption,
    ProxyOption,
    UserAgentOption,
    fetch_options,
)

if TYPE_CHECKING:
    from soundhash import AsyncClient, BatchProgress, Channel, ChannelVideo, Client, Job
    from soundhash.cli._channel_bars import ChannelDisplay

_PATIENT_RETRIES = 9
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SHOWN_NEW = 20
_COUNTS = (
    "listed",
    "known",
    "skipped",
    "queued",
    "running",
    "retrying",
    "indexed",
    "failed",
)

channels = typer.Typer(
    help="Index channels, playlists and feeds, and keep them current.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ChannelArgument = Annotated[
    str,
    typer.Argument(metavar="CHANNEL", help="Its UUID, title, id or URL.", show_default=False),
]


@channels.command()
def add(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="CHANNEL",
            help="Channel ids (UC...), @handles, or URLs of channels, playlists, feeds.",
            show_default=False,
        ),
    ],
    max_videos: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Most new videos of each, the newest. 0: all."),
    ] = 0,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
            metavar="DATE",
            help="Only videos that are known to be published at or after it: 2026-01-31.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list, and say what would be done.")
    ] = False,
    only_process: Annotated[
        bool, typer.Option("--only-process", help="Do not list; index what was listed before.")
    ] = False,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="CRON", help='List again by it (UTC), such as "0 4 * * *".', show_default=False
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until all of it is done.")
    ] = False,
    cookies: CookiesOption = "",
    cookies_from_browser: BrowserOption = "",
    proxy: ProxyOption = "",
    player_client: PlayerClientOption = "",
    user_agent: UserAgentOption = "",
    max_bytes: MaxBytesOption = "",
    max_duration: MaxDurationOption = "",
    limit_rate: LimitRateOption = "",
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Index what is new of channels, playlists and feeds; later again, only what came since.

    With --wait or --dry-run it is followed to the end, and the exit status is 1 when a channel
    or one of its videos has failed. How videos are fetched is kept with the channel.
    """
    if dry_run and only_process:
        raise typer.BadParameter("--dry-run lists and --only-process does not: choose one")
    options = fetch_options(
        cookies,
        cookies_from_browser,
        proxy,
        player_client,
        user_agent,
        max_bytes,
        max_duration,
        limit_rate,
    )
    asked: dict[str, Any] = {
        "max_videos": max_videos,
        "since": since,
        "dry_run": dry_run,
        "only_process": only_process,
        "options": options,
    }
    follow = wait or dry_run
    if not asyncio.run(_add_all(context, address, names, asked, schedule, follow, as_json)):
        raise typer.Exit(1)


async def _add_all(
    context: typer.Context,
    address: str | None,
    names: list[str],
    asked: dict[str, Any],
    schedule: str | None,
    follow: bool,
    as_json: bool,
) -> bool:
    """Whether all went well."""
    from soundhash.cli._channel_bars import ChannelDisplay  # noqa: PLC0415 - loads gRPC

    with ChannelDisplay() as display:
        async with connect_async(context, address, max_retries=_PATIENT_RETRIES) as client:
            tasks = [
                asyncio.create_task(_add(client, display, name, asked, schedule, follow, as_json))
                for name in names
            ]
            try:
                return all(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def _add(
    client: AsyncClient,
    display: ChannelDisplay,
    name: str,
    asked: dict[str, Any],
    schedule: str | None,
    follow: bool,
    as_json: bool,
) -> bool:
    from soundhash import SoundHashError, Unavailable  # noqa: PLC0415 - loads gRPC

    try:
        job = await client.submit_channel(name, **asked)
        if schedule is not None and job.channel is not None:
            await client.update_channel(job.channel.channel_id, schedule=schedule)
        if follow:
            async with aclosing(client.watch_job(job.id)) as states:
                async for job in states:
                    display.show(job)
            display.finished(job.id)
    except Unavailable:
        raise
    except SoundHashError as error:
        _tell_refused(display, name, error, as_json)
        return False
    _tell(display, name, job, as_json)
    return _went_well(job)


def _went_well(job: Job) -> bool:
    if not job.state.finished:
        return True
    return job.state == "SUCCEEDED" and not (job.batch_result and job.batch_result.counts.failed)


def _tell(display: ChannelDisplay, name: str, job: Job, as_json: bool) -> None:
    from soundhash.cli._channel_bars import counts_of  # noqa: PLC0415 - loads gRPC

    found, result = counts_of(job), job.batch_result
    dry_run = job.channel is not None and job.channel.dry_run
    if as_json:
        failure = job.failure
        output.print_json(
            {
                "channel": name,
                "channel_id": job.channel.channel_id if job.channel else None,
                "job_id": job.id,
                "state": str(job.state),
                "dry_run": dry_run,
                "counts": {one: getattr(found, one) for one in _COUNTS},
                "quota_units": result.quota_units if result else found.quota_units,
                "new_items": list(result.new_items) if result else [],
                "failure": failure
                and {
                    "reason": failure.reason,
                    "message": failure.message,
                    "remedy": failure.remedy,
                },
            }
        )
        return
    shown = output.escape(name)
    if job.state in ("FAILED", "CANCELLED"):
        why, reason = "The job was cancelled.", ""
        if job.failure is not None and job.state == "FAILED":
            why = f"{job.failure.message} {job.failure.remedy}"
            reason = f" [dim]{job.failure.reason}[/]"
        display.print(f"[red]failed[/]   {shown}: {output.escape(why)}{reason}", stderr=True)
        return
    if not job.state.finished:
        display.print(f"{job.state.lower():<8} {shown} [dim]job {job.id}[/]")
        return
    if not dry_run:
        display.print(f"[green]done[/]     {shown}: {_summary(found)}")
        if found.failed:
            display.print("[dim]`soundhash jobs --failed` says why, and what to do[/]", stderr=True)
        return
    cost = f", at a cost of {result.quota_units} API units" if result and result.quota_units else ""
    display.print(f"[green]would be[/] {shown}: {_summary(found, dry_run=True)}{cost}")
    for one in (result.new_items if result else ())[:_SHOWN_NEW]:
        display.print(f"  [green]new[/]  {output.escape(one)}")
    if found.queued > _SHOWN_NEW:
        display.print(f"  [dim]and {found.queued - _SHOWN_NEW:,} more[/]")


def _summary(found: BatchProgress, dry_run: bool = False) -> str:
    under_way = found.queued + found.running + found.retrying
    counts = {
        "indexed": found.indexed,
        "to index" if dry_run else "under way": under_way,
        "known": found.known,
        "skipped": found.skipped,
        "failed": found.failed,
    }
    text = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
    return f"{found.listed:,} listed: {text or 'nothing to do'}"


def _tell_refused(display: ChannelDisplay, name: str, error: Any, as_json: bool) -> None:
    if not as_json:
        text = f"[red]failed[/]   {output.escape(name)}: {output.escape(str(error))}"
        display.print(text, stderr=True)
        return
    failure = {"reason": error.reason, "message": error.explanation, "remedy": error.remedy}
    output.print_json({"channel": name, "job_id": None, "state": "FAILED", "failure": failure})


@channels.command("list")
def list_all(
    context: typer.Context,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """List channels, newest first."""
    with connect(context, address) as client:
        found = list(client.channels(limit=limit))
    if as_json:
        for channel in found:
            output.print_json(channel)
        return
    if not found:
        output.console(stderr=True).print("no channels")
        return
    rows = [
        [
            output.linked(channel.title, channel.url),
            channel.service,
            f"{channel.listed:,}",
            f"{channel.indexed:,}",
            f"[red]{channel.failed:,}[/]" if channel.failed else "0",
            output.escape(channel.schedule),
            output.moment(channel.list_time)[:16] or ("[cyan]listing[/]" if channel.job_id else ""),
            channel.id,
        ]
        for channel in found
    ]
    output.print_table(
        ["title", "service", "listed", "indexed", "failed", "schedule", "listed at", "id"],
        rows,
        right=("listed", "indexed", "failed"),
        whole=("service", "schedule", "listed at", "id"),
    )


@channels.command()
def show(
    context: typer.Context,
    channel: ChannelArgument,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Show one channel."""
    with connect(context, address) as client:
        found = _find(client, channel)
    _show(found, as_json)


def _show(found: Channel, as_json: bool) -> None:
    if as_json:
        output.print_json(found)
        return
    pairs = [
        ("title", found.title),
        ("service", f"{found.service} {found.service_id}"),
        ("page", found.url),
        ("videos", f"{found.listed:,} listed, {found.indexed:,} indexed, {found.failed:,} failed"),
        ("listed", output.moment(found.list_time) or "not to its end yet"),
        ("schedule", found.schedule or "none"),
        ("next", output.moment(found.next_run_time)),
        ("job", found.job_id),
        ("id", found.id),
    ]
    output.print_pairs((name, value) for name, value in pairs if value)


@channels.command()
def videos(
    context: typer.Context,
    channel: ChannelArgument,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """List a channel's videos as its source does, and what became of them."""
    with connect(context, address) as client:
        found = list(client.channel_videos(_find(client, channel).id, limit=limit))
    if as_json:
        for video in found:
            output.print_json(video)
        return
    if not found:
        output.console(stderr=True).print("no videos")
        return
    rows = [
        [
            output.linked(video.title or video.url, video.url),
            output.moment(video.publish_time)[:10],
            output.clock(video.duration_s) if video.duration_s else "",
            _state(video),
            video.video_id or video.job_id,
        ]
        for video in found
    ]
    output.print_table(
        ["title", "published", "length", "", "video or job"],
        rows,
        right=("length",),
        whole=("published", "", "video or job"),
    )


_STYLES = {"failed": "red", "retrying": "yellow", "running": "cyan"}


def _state(video: ChannelVideo) -> str:
    if video.video_id:
        return "[green]indexed[/]"
    if video.skip_reason:
        return f"[dim]{output.escape(video.skip_reason)}[/]"
    if video.state is None:
        return "[dim]listed[/]"
    word = video.state.lower()
    return f"[{_STYLES[word]}]{word}[/]" if word in _STYLES else word


@channels.command()
def schedule(
    context: typer.Context,
    channel: ChannelArgument,
    cron: Annotated[
        str,
        typer.Argument(
            metavar="CRON",
            help='Five fields, UTC, such as "0 4 * * *"; "none" ends it.',
            show_default=False,
        ),
    ],
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Have a channel listed again by a schedule."""
    with connect(context, address) as client:
        found = client.update_channel(
            _find(client, channel).id, schedule="" if cron.lower() == "none" else cron
        )
    if as_json:
        output.print_json(found)
    elif found.schedule:
        text = f"{found.title} is listed next at {output.moment(found.next_run_time)}"
        output.console().print(output.escape(text), soft_wrap=True)
    else:
        output.console().print(output.escape(f"{found.title} has no schedule"), soft_wrap=True)


@channels.command()
def remove(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(metavar="CHANNEL", help="UUIDs, titles, ids or URLs.", show_default=False),
    ],
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Forget channels and cancel what is under way; their videos stay."""
    with connect(context, address) as client:
        for name in names:
            found = _find(client, name)
            client.delete_channel(found.id)
            if as_json:
                output.print_json({"channel_id": found.id, "removed": True})
            else:
                output.console().print(f"removed {output.escape(found.title)}", soft_wrap=True)


@channels.command()
def quota(
    context: typer.Context, as_json: JsonOption = False, address: AddressOption = None
) -> None:
    """Show how much of the YouTube Data API's daily quota is used."""
    with connect(context, address) as client:
        found = client.quota()
    if as_json:
        output.print_json(found)
        return
    api = "the YouTube Data API" if found.configured else "yt-dlp (no key, no token)"
    output.print_pairs(
        [
            ("YouTube channels are listed by", api),
            ("units used today", f"{found.used_units:,} of {found.daily_units:,}"),
            ("new day", output.moment(found.reset_time)),
        ]
    )


def _find(client: Client, name: str) -> Channel:
    """The channel by its UUID, title, service's id or URL. Raises typer.BadParameter."""
    if _UUID.fullmatch(name):
        return client.get_channel(name)
    wanted = name.casefold().rstrip("/")
    found = [
        channel
        for channel in client.channels()
        if wanted
        in (channel.title.casefold(), channel.service_id.casefold(), channel.url.casefold())
    ]
    if len(found) != 1:
        many = "several channels are" if found else "no channel is"
        raise typer.BadParameter(f"{many} called {name!r}; see `soundhash channels list`")
    return found[0]
