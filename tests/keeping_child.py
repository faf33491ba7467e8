"""A worker's keeping in a process of its own that kills itself half-way (``python -m``, with the
database's URL, a folder, and how many objects it may write before)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from soundhash_server.fetching.http import open_session
from soundhash_server.fetching.scratch import Scratch
from soundhash_server.settings import Settings
from soundhash_server.storage import Storage, Stored
from soundhash_server.store.objects import Objects
from soundhash_server.store.pool import create_pool
from soundhash_workers.keeping import Keeper


class _Deadly(Storage):
    """Kills the process as soon as so many objects are written, before anybody hears of it."""

    def __init__(self, url: str, left: int) -> None:
        super().__init__(url)
        self._left = left

    async def put(self, *arguments: Any, **options: Any) -> Stored:
        stored = await super().put(*arguments, **options)
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return stored


async def main(database_url: str, folder: Path, count: int) -> None:
    settings = Settings.from_env(
        {}, data_dir=folder, keep="media audio", min_free_disk_bytes=0, keep_chunk_s=10.0
    )
    storage = _Deadly(f"file://{folder}/shelf", count)
    pool = await create_pool(database_url, 2, name="soundhash-test")
    async with open_session(allow_private=True, read_timeout_s=5.0) as session:
        scratch = Scratch(settings.scratch_dir)
        keeper = Keeper(settings, storage, Objects(pool, storage.name), scratch, session)
        await keeper.keep(folder / "song.flac", known=None, on_fraction=lambda _: None)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
