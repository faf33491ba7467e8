"""The program `soundhash`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the program: exit status 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C."""
    # What a command needs is loaded by it alone: `soundhash --help` has to be quick.
    from soundhash.cli._app import app  # noqa: PLC0415

    try:
        app(prog_name="soundhash")
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        _fail(f"{named}{error.strerror or error}")
    except Exception as error:
        from soundhash import SoundHashError  # noqa: PLC0415

        if not isinstance(error, SoundHashError):
            raise
        _fail(str(error))


def _fail(text: str) -> None:
    sys.stderr.write(f"error: {text}\n")
    sys.exit(1)
