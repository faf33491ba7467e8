"""`soundhash media`: what is kept of videos in object storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from soundhash.cli import _output as output
from soundhash.cli._connection import AddressOption, JsonOption, connect

if TYPE_CHECKING:
    from soundhash import KeptObject

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

media = typer.Typer(
    help="List or delete what is kept of videos in object storage.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

VideoArgument = Annotated[
    str, typer.Argument(metavar="VIDEO", help="The video's id.", show_default=False)
]


@media.command("list")
def list_(
    context: typer.Context,
    video_id: VideoArgument,
    sign: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Sign download addresses that hold for so long: 90s, 15m, 1h, 7d.",
        ),
    ] = "",
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """List what is kept of a video."""
    sign_for_s = parse_time_s(sign, "--sign") if sign else None
    with connect(context, address) as client:
        found = client.kept_objects(video_id, sign_for_s=sign_for_s)
    if as_json:
        for one in found:
            output.print_json(one)
        return
    show_objects(found)


@media.command("delete")
def delete(
    context: typer.Context,
    video_id: VideoArgument,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Delete what is kept of a video; the video stays."""
    with connect(context, address) as client:
        deleted = client.delete_kept_objects(video_id)
    if as_json:
        output.print_json({"video_id": video_id, "deleted": deleted})
        return
    output.console().print(f"deleted {deleted} object{'' if deleted == 1 else 's'}")


def show_objects(found: Sequence[KeptObject]) -> None:
    """A table of objects; addresses below it, whole, so that they can be copied."""
    if not found:
        output.console(stderr=True).print("nothing is kept")
        return
    rows = [
        [
            output.escape(one.key),
            output.size(one.size_bytes),
            output.escape(one.content_type),
            output.moment(one.expire_time),
            one.sha256,
        ]
        for one in found
    ]
    output.print_table(["key", "size", "type", "until", "sha256"], rows, right=("size",))
    for one in found:
        if one.download_url:
            typer.echo(one.download_url)


def parse_time_s(text: str, option: str) -> float:
    """Seconds of "90s", "15m", "1h" or "7d"; a plain number is seconds."""
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "s")
    try:
        value_s = float(number) * _UNITS_S[unit]
    except (ValueError, KeyError):
        value_s = 0.0
    if not 1 <= value_s <= 7 * 86_400:
        raise typer.BadParameter(
            f"{text!r} is not a time from 1s to 7d, such as 1h", param_hint=option
        )
    return value_s
