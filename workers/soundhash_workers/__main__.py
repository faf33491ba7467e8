"""``python -m soundhash_workers``: one worker process."""

# Processes forked for decoding load this file again: it imports nothing of ours by itself.
from __future__ import annotations

import sys


def main() -> int:
    """Runs a worker until it is told to stop; returns the exit status."""
    import uvloop  # noqa: PLC0415

    from soundhash_server.compiled import keep_compiled  # noqa: PLC0415
    from soundhash_server.log import set_up_logging  # noqa: PLC0415
    from soundhash_server.settings import Settings, SettingsError  # noqa: PLC0415

    try:
        settings = Settings.from_env()
        set_up_logging(settings)
        keep_compiled(settings)
        from soundhash_workers.worker import work  # noqa: PLC0415

        uvloop.run(work(settings))
    except (SettingsError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
