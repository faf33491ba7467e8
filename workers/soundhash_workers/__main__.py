"""``python -m soundhash_workers [--data-dir D]``: one worker process, with settings from
SOUNDHASH_* variables."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from soundhash_server.compiled import keep_compiled
from soundhash_server.settings import Settings, SettingsError


def main() -> int:
    """Runs a worker until it is told to stop; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m soundhash_workers", description="run a worker")
    parser.add_argument("--data-dir", type=lambda text: Path(text).expanduser())
    options = parser.parse_args()
    try:
        settings = Settings.from_env(data_dir=options.data_dir)
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
