"""`soundhash auth`: consent to what the workers read for their operator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from soundhash.cli._connection import JsonOption
from soundhash.cli._platform import DataDirOption, become_worker

auth = typer.Typer(
    help="Let the workers use accounts.", no_args_is_help=True, rich_markup_mode=None
)


@auth.callback()
def common() -> None:
    # With a callback a single command keeps its name.
    pass


@auth.command()
def youtube(
    client_secrets: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON file of a desktop OAuth client, from the Google Cloud console.",
            show_default=False,
        ),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address instead of opening it.")
    ] = False,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="N", help="Loopback port that the browser comes back to."
        ),
    ] = 0,
    status: Annotated[bool, typer.Option("--status", help="Only show how it stands.")] = False,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the workers list YouTube channels by the YouTube Data API.

    Run it on the workers' machine, as their user: the token is kept there, refreshed by itself.
    A plain API key is set by SOUNDHASH_YOUTUBE_API_KEY instead.
    """
    if client_secrets is None and not status:
        raise typer.BadParameter("give --client-secrets FILE, or ask for --status")
    arguments = []
    if client_secrets is not None:
        arguments += ["--client-secrets", str(client_secrets)]
    if data_dir is not None:
        arguments += ["--data-dir", str(data_dir)]
    flags = {"--no-browser": no_browser, "--status": status, "--json": as_json}
    arguments += [name for name, given in flags.items() if given]
    become_worker("soundhash_workers.youtube_auth", [*arguments, "--port", str(port)])
