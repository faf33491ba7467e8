"""Commands on what is indexed."""

from __future__ import annotations

from typing import Annotated

import typer

from soundhash.cli import _output as output
from soundhash.cli._connection import AddressOption, JsonOption, LimitOption, connect


def videos(
    context: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Only these.", show_default=False)
    ] = None,
    query: Annotated[
        str, typer.Option("--query", "-q", help="Words of title, channel, external id or URL.")
    ] = "",
    channel: Annotated[str, typer.Option(help="Only of this channel (exact name).")] = "",
    external_id: Annotated[str, typer.Option(help="Only the one with this external id.")] = "",
    monitor: Annotated[
        str, typer.Option(metavar="ID", help="What this monitor has heard, and when.")
    ] = "",
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """List or search what is indexed, newest or best first."""
    if query and (channel or external_id or monitor or ids):
        raise typer.BadParameter("--query does not go together with other choices")
    with connect(context, address) as client:
        if ids:
            found = iter([client.get_video(one) for one in ids])
        elif query:
            found = client.search_videos(query, limit=limit)
        else:
            found = client.videos(
                channel=channel, external_id=external_id, monitor_id=monitor, limit=limit
            )
        if as_json:
            for video in found:
                output.print_json(video)
            return
        shown = list(found)
        fetched = any(video.service for video in shown)
        heard = any(video.monitor_id for video in shown)
        rows = [
            [
                output.linked(video.title, video.source_url),
                output.escape(video.channel),
                *([output.escape(video.service)] if fetched else []),
                *([output.moment(video.air_time)] if heard else []),
                output.clock(video.duration_s),
                output.moment(video.create_time),
                output.escape(video.external_id),
                video.id,
            ]
            for video in shown
        ]
        some = query or ids or monitor or len(rows) < limit
        more = None if some else client.stats().video_count
    if not rows:
        output.console(stderr=True).print("no videos")
        return
    source = ["source"] if fetched else []
    air = ["on the air"] if heard else []
    columns = ["title", "channel", *source, *air, "length", "added", "external id", "id"]
    output.print_table(columns, rows, right=("length",), whole=("on the air", "added", "id"))
    if more is not None and more > len(rows):
        output.console(stderr=True).print(
            f"[dim]the newest {len(rows)} of {more:,}; see --limit[/]"
        )


def update(
    context: typer.Context,
    video_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    title: Annotated[str | None, typer.Option(help="New title.", show_default=False)] = None,
    source_url: Annotated[
        str | None, typer.Option(help="New source URL; '' clears it.", show_default=False)
    ] = None,
    external_id: Annotated[
        str | None, typer.Option(help="New external id; '' clears it.", show_default=False)
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help="New channel; '' clears it.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Change what is known of a video."""
    if title is None and source_url is None and external_id is None and channel is None:
        raise typer.BadParameter("say what to change: --title, --source-url, ...")
    with connect(context, address) as client:
        video = client.update_video(
            video_id,
            title=title,
            source_url=source_url,
            external_id=external_id,
            channel=channel,
        )
    if as_json:
        output.print_json(video)
        return
    output.print_pairs(
        [
            ("title", video.title),
            ("channel", video.channel),
            ("source URL", video.source_url),
            ("external id", video.external_id),
            ("source", f"{video.service} {video.media_id}".strip()),
            ("published", output.moment(video.publish_time) if video.publish_time else ""),
            ("id", video.id),
        ]
    )


def delete(
    context: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID", show_default=False)],
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Remove videos; they are gone from answers at once.

    One that cannot be removed is told, the others go on, and the exit status is 1.
    """
    from soundhash import SoundHashError, Unavailable  # noqa: PLC0415 - loads gRPC

    all_well = True
    with connect(context, address) as client:
        for one in ids:
            error: SoundHashError | None = None
            try:
                client.delete_video(one)
            except Unavailable:
                raise
            except SoundHashError as failed:
                error, all_well = failed, False
            if as_json:
                failure = error and {"reason": error.reason, "message": error.explanation}
                output.print_json({"video_id": one, "deleted": error is None, "error": failure})
            elif error is not None:
                output.print_error(str(error))
            else:
                output.console().print(f"deleted {output.escape(one)}")
    if not all_well:
        raise typer.Exit(1)
