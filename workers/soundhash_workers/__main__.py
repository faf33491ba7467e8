"""``python -m soundhash_workers``: one worker process, with settings from SOUNDHASH_* variables."""

from __future__ import annotations

import sys

from soundhash_server.compiled import keep_compiled
from soundhash_server.settings import Settings, SettingsError


def main() -> int:
    """Runs a worker until it is told to stop; returns the exit status."""
    try:
        settings = Settings.from_env()
        keep_compiled(settings)
        # Loading the engine for the children overlaps with loading the worker.
        from soundhash_workers.forks import prepare  # noqa: PLC0415

        prepare()
        import uvloop  # noqa: PLC0415

        from soundhash_server.embedded_platform import attach  # noqa: PLC0415
        from soundhash_server.log import set_up_logging  # noqa: PLC0415
        from soundhash_workers.worker import work  # noqa: PLC0415

        set_up_logging(settings)
        uvloop.run(work(attach(settings)))
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"soundhash work: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
