"""Commands that run the platform: this program gives way to it.

The client is installed without the platform's packages, so nothing of it is imported here.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from soundhash.cli._output import print_error

# A package of each extra that nothing else brings along.
SERVER_NEEDS = ("soundhash_server", "asyncpg", "numpy", "av", "arq")
_WORKER_NEEDS = (*SERVER_NEEDS, "soundhash_workers", "aiohttp", "yt_dlp")

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="D",
        help="Folder for everything that is kept. Default: SOUNDHASH_DATA_DIR, "
        "else the user's data folder.",
        show_default=False,
    ),
]
HostOption = Annotated[
    str | None,
    typer.Option(
        "--host", metavar="H", help="Address to listen on. Default: 127.0.0.1.", show_default=False
    ),
]
PortOption = Annotated[
    int | None,
    typer.Option(
        "--port",
        metavar="N",
        min=0,
        max=65535,
        help="Port to listen on; 0 picks a free one. Default: 50051.",
        show_default=False,
    ),
]
FolderOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--folder",
        metavar="DIR",
        help="Folder that `soundhash ingest DIR --sync` may scan, with all below it; may be "
        "repeated. Default: SOUNDHASH_FOLDERS.",
        show_default=False,
    ),
]


def up(
    context: typer.Context,
    data_dir: DataDirOption = None,
    port: PortOption = None,
    host: HostOption = None,
    folder: FolderOption = None,
) -> None:
    """Run the whole platform: database, queue, server and worker."""
    _run_server("up", context, data_dir, port, host, folder)


def serve(
    context: typer.Context,
    data_dir: DataDirOption = None,
    port: PortOption = None,
    host: HostOption = None,
    folder: FolderOption = None,
) -> None:
    """Run one server."""
    _run_server("serve", context, data_dir, port, host, folder)


def work(
    context: typer.Context, data_dir: DataDirOption = None, folder: FolderOption = None
) -> None:
    """Run one worker."""
    environment = dict(os.environ)
    if data_dir is not None:
        environment["SOUNDHASH_DATA_DIR"] = str(data_dir)
    if folder:
        environment["SOUNDHASH_FOLDERS"] = ":".join(str(one.absolute()) for one in folder)
    _become("soundhash_workers", context.args, _WORKER_NEEDS, environment)


def migrate(context: typer.Context, data_dir: DataDirOption = None) -> None:
    """Bring the database to this version's schema."""
    _run_server("migrate", context, data_dir)


def doctor(
    context: typer.Context,
    data_dir: DataDirOption = None,
    port: PortOption = None,
    host: HostOption = None,
) -> None:
    """Check everything that can be wrong, and say the fix."""
    _run_server("doctor", context, data_dir, port, host)


def _run_server(
    command: str,
    context: typer.Context,
    data_dir: Path | None,
    port: int | None = None,
    host: str | None = None,
    folders: list[Path] | None = None,
) -> NoReturn:
    given = {"--data-dir": data_dir, "--port": port, "--host": host}
    options = [
        text for name, value in given.items() if value is not None for text in (name, str(value))
    ]
    options += [text for folder in folders or () for text in ("--folder", str(folder))]
    needs = _WORKER_NEEDS if command == "up" else SERVER_NEEDS
    become_server([command, *options, *context.args], needs)


def become_server(arguments: list[str], needs: tuple[str, ...]) -> NoReturn:
    """Go on as a command of the server's package; ``needs``: packages that it cannot do without."""
    _become("soundhash_server", arguments, needs, dict(os.environ))


def become_worker(module: str, arguments: list[str]) -> NoReturn:
    """Go on as a module of the workers' package."""
    _become(module, arguments, (*_WORKER_NEEDS, "googleapiclient"), dict(os.environ))


def _become(
    module: str, arguments: list[str], needs: tuple[str, ...], environment: dict[str, str]
) -> NoReturn:
    missing = [name for name in needs if find_spec(name) is None]
    if missing:
        print_error(
            f"this needs packages that are not installed ({', '.join(missing)}): "
            "pip install 'soundhash[server,workers]'"
        )
        raise typer.Exit(1)
    sys.stdout.flush()
    # In place of this process, so that signals and the exit status are the platform's own.
    # -P: modules that lie in the current folder must not be taken for ours.
    os.execve(sys.executable, [sys.executable, "-P", "-m", module, *arguments], environment)  # noqa: S606
