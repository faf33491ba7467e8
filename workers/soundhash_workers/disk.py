"""Whether the disk has room for new work: when it is full, jobs wait instead of failing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import structlog

_FULL_S = 15.0
"""A disk that was full is left alone for at least this long, whatever it says of itself: the
volume that was full may be another one."""
_LOOK_S = 1.0

log = structlog.get_logger(__name__)


class Disk:
    """The volume of a folder. floor_bytes: what has to stay free."""

    def __init__(self, folder: Path, floor_bytes: int) -> None:
        self._folder = folder
        self._floor_bytes = floor_bytes
        self._full = False
        self._look_at_s = 0.0

    def on_full(self) -> None:
        """A job has found no room."""
        if not self._full:
            log.warning("the disk is full: jobs wait", folder=str(self._folder))
        self._full = True
        self._look_at_s = time.monotonic() + _FULL_S

    def has_room(self) -> bool:
        """False from the first job that found none until there is room again."""
        if self._full and time.monotonic() >= self._look_at_s:
            self._look_at_s = time.monotonic() + _LOOK_S
            try:
                status = os.statvfs(self._folder)
            except OSError:
                return False
            if status.f_bavail * status.f_frsize >= self._floor_bytes:
                self._full = False
                log.info("the disk has room again")
        return not self._full
