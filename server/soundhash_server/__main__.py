"""``python -m soundhash_server up|serve|migrate|doctor|bench``: the server's commands.

The program `soundhash` runs these; each takes its settings from SOUNDHASH_* variables, and the
options given here win over them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from soundhash_server.bench.command import add_options
from soundhash_server.compiled import keep_compiled
from soundhash_server.settings import Settings, SettingsError


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.from_env(
            data_dir=options.data_dir,
            port=getattr(options, "port", None),
            host=getattr(options, "host", None),
            folders=_joined(getattr(options, "folder", None)),
        )
    except SettingsError as error:
        sys.stderr.write(f"soundhash {options.command}: {error}\n")
        return 2
    keep_compiled(settings)
    if options.command == "bench":
        from soundhash_server.bench.command import bench  # noqa: PLC0415

        return bench(options, settings)
    return {"up": _up, "serve": _serve, "migrate": _migrate, "doctor": _doctor}[options.command](
        settings
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m soundhash_server", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("up", "run the whole platform: database, queue, server and worker"),
        ("serve", "run one server"),
        ("migrate", "bring the database to this version's schema"),
        ("doctor", "check everything that can be wrong"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--data-dir", type=lambda text: Path(text).expanduser())
        if name != "migrate":
            command.add_argument("--host")
            command.add_argument("--port", type=int)
        if name in ("up", "serve"):
            command.add_argument("--folder", action="append", type=Path)
    text = "measure the engine on this machine"
    measured = commands.add_parser("bench", help=text, description=text)
    measured.add_argument("--data-dir", type=lambda text: Path(text).expanduser())
    add_options(measured)
    return parser


def _joined(folders: list[Path] | None) -> str | None:
    """Folders as the setting SOUNDHASH_FOLDERS has them."""
    if not folders:
        return None
    if any(":" in str(folder) for folder in folders):
        raise SettingsError("--folder cannot have a colon in its path.")
    return ":".join(str(folder.expanduser().absolute()) for folder in folders)


# Each command imports what it needs alone: it has to start fast.


def _up(settings: Settings) -> int:
    from soundhash_server.up import up  # noqa: PLC0415

    return up(settings)


def _serve(settings: Settings) -> int:
    # Taken out of the environment: it is not for the processes that the server starts.
    ready_fd = os.environ.pop("SOUNDHASH_READY_FD", "")

    def tell(port: int) -> None:
        if ready_fd:
            with os.fdopen(int(ready_fd), "wb") as pipe:
                pipe.write(f"{port}\n".encode())

    from soundhash_server.lean import load_lean  # noqa: PLC0415

    load_lean()

    from soundhash_server import app  # noqa: PLC0415
    from soundhash_server.embedded_platform import attach  # noqa: PLC0415
    from soundhash_server.log import set_up_logging  # noqa: PLC0415

    try:
        set_up_logging(settings)
        settings = attach(settings)
    except SettingsError as error:
        sys.stderr.write(f"soundhash serve: {error}\n")
        return 2
    return app.main(settings, tell)


def _migrate(settings: Settings) -> int:
    from soundhash_server.embedded import EmbeddedError  # noqa: PLC0415
    from soundhash_server.embedded_platform import database  # noqa: PLC0415
    from soundhash_server.errors import PlatformError  # noqa: PLC0415
    from soundhash_server.store.migrate import migrate  # noqa: PLC0415

    try:
        with database(settings) as url:
            applied = asyncio.run(migrate(url))
    except PlatformError as error:
        sys.stderr.write(f"soundhash migrate: {error.message} {error.remedy}\n")
        return 1
    except (SettingsError, EmbeddedError) as error:
        sys.stderr.write(f"soundhash migrate: {error}\n")
        return 1
    sys.stdout.write(f"applied: {', '.join(applied)}\n" if applied else "nothing to do\n")
    return 0


def _doctor(settings: Settings) -> int:
    from soundhash_server.doctor import doctor  # noqa: PLC0415

    return doctor(settings)


if __name__ == "__main__":
    sys.exit(main())
