"""The command that measures: it gives way to the platform's own, as `up` does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from soundhash.cli._connection import JsonOption
from soundhash.cli._platform import SERVER_NEEDS, DataDirOption, become_server


def bench(
    media: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="MEDIA",
            help="Recordings, or folders of them. Without any, made-up songs.",
            show_default=False,
        ),
    ] = None,
    hours: Annotated[
        list[float] | None,
        typer.Option(
            "--hours",
            metavar="H",
            help="Size of the catalogue, filled up with made-up music; may be given several "
            "times. Default: 8 and 100. An hour takes 3 MB of disk, twice that for a while.",
            show_default=False,
        ),
    ] = None,
    catalogue: Annotated[
        bool,
        typer.Option(
            "--catalogue",
            help="Begin with what the platform of --data-dir has indexed; it is only read.",
        ),
    ] = False,
    data_dir: DataDirOption = None,
    clips: Annotated[
        int, typer.Option("--clips", min=1, metavar="N", help="Clips of each condition.")
    ] = 40,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1.0, max=60.0, metavar="S", help="Length of a clip.")
    ] = 5.0,
    recordings: Annotated[
        int,
        typer.Option(
            "--recordings", min=5, metavar="N", help="Most recordings to read, evenly chosen."
        ),
    ] = 60,
    callers: Annotated[
        int | None,
        typer.Option(
            "--callers",
            min=1,
            metavar="N",
            help="Callers at once, for the throughput. Default: the machine's cores.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path, typer.Option("--plot", metavar="FILE", help="Where the picture (SVG) goes.")
    ] = Path("soundhash-bench.svg"),
    as_json: JsonOption = False,
) -> None:
    """Measure latency, recall and speed on this machine, with your recordings.

    Needs no server and changes nothing: it makes an index of its own and throws it away.
    """
    options = ["--clips", str(clips), "--seconds", str(seconds), "--recordings", str(recordings)]
    options += ["--plot", str(plot), "--hours", *map(str, hours or (8.0, 100.0))]
    if catalogue:
        options.append("--catalogue")
    if data_dir is not None:
        options += ["--data-dir", str(data_dir)]
    if callers is not None:
        options += ["--callers", str(callers)]
    if as_json:
        options.append("--json")
    become_server(["bench", *options, "--", *map(str, media or ())], SERVER_NEEDS)
