"""The command that tells why a match is a match."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soundhash.cli import _output as output
from soundhash.cli._connection import AddressOption, JsonOption, connect

if TYPE_CHECKING:
    from soundhash import Explanation

_ENDINGS = (".png", ".svg", ".html")
_MAX_STDIN_BYTES = (32 << 20) + 1


def explain(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="MATCH|CLIP",
            help="The id of a match, or a clip, whose best match is explained; - is standard "
            "input.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Draw it: .html and .svg need nothing, .png needs soundhash\\[draw].",
            show_default=False,
        ),
    ] = None,
    clip: Annotated[
        Path | None,
        typer.Option(
            "--clip",
            metavar="FILE",
            help="The clip of the match, when the server has kept nothing of it.",
            show_default=False,
        ),
    ] = None,
    video: Annotated[
        str,
        typer.Option("--video", metavar="ID", help="Look for the clip in this video alone."),
    ] = "",
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Tell why a match is a match: what lies on what, and what speaks for another place.

    A match's id alone is enough for some days (SOUNDHASH_EXPLAIN_DAYS of the server); `soundhash
    matches` lists ids. With --video a clip is also explained that is not answered.
    """
    from soundhash._media import is_uuid  # noqa: PLC0415 - loads gRPC

    if out is not None and out.suffix.lower() not in _ENDINGS:
        raise typer.BadParameter(f"{out} must end in {', '.join(_ENDINGS)}.", param_hint="-o")
    a_match = is_uuid(what)
    if a_match and video:
        raise typer.BadParameter("--video goes with a clip, not with a match.")
    if clip is not None and not a_match:
        raise typer.BadParameter("--clip goes with a match's id.")
    with connect(context, address) as client:
        if a_match:
            why = client.explain(what, clip=clip)
        else:
            source = sys.stdin.buffer.read(_MAX_STDIN_BYTES) if what == "-" else Path(what)
            why = client.explain(clip=source, video_id=video)
    if out is not None:
        _write(why, out)
    if as_json:
        output.print_json(why)
    elif out is None:
        from soundhash.cli._explaining import print_explanation  # noqa: PLC0415 - not for help

        print_explanation(why)


def _write(why: Explanation, path: Path) -> None:
    from soundhash.cli._drawing import png, svg  # noqa: PLC0415 - not for help
    from soundhash.cli._drawing.explained import draw  # noqa: PLC0415

    scene = draw(why)
    ending = path.suffix.lower()
    try:
        if ending == ".png":
            png.write(scene, path)
        else:
            text = svg.page(scene) if ending == ".html" else svg.svg(scene)
            path.write_text(text, encoding="utf-8")
    except ImportError:
        output.print_error(
            "PNG files need matplotlib: pip install 'soundhash[draw]'; or write .html or .svg."
        )
        raise typer.Exit(1) from None
    except OSError as error:
        output.print_error(f"{path} cannot be written: {error.strerror or error}.")
        raise typer.Exit(1) from None
