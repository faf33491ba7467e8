"""The index volumes of one data directory: which lie there, who may write them."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import structlog

from soundhash_engine import EngineError
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.volume import Volume
from soundhash_server.store import volumes

log = structlog.get_logger(__name__)

_IDENTITY_KEY = "catalogue"


@dataclass(frozen=True, slots=True, eq=False)
class _OnDisk:
    volume: Volume
    path: Path
    size_bytes: int


class VolumeFiles:
    """Volumes on disk, memory-mapped.

    One thread at a time opens or saves; anybody may ask. One process a directory writes; others
    read what is there and keep the rest in memory.
    """

    def __init__(self, directory: Path, params: Params = PARAMS) -> None:
        self._directory = directory
        self._params = params
        self._lock: volumes.WriterLock | None = None
        self._held: tuple[_OnDisk, ...] = ()

    @property
    def writable(self) -> bool:
        """Whether this process is the directory's writer."""
        return self._lock is not None

    @property
    def size_bytes(self) -> int:
        """Bytes of the volumes in use."""
        return sum(one.size_bytes for one in self._held)

    def holds(self, volume: Volume) -> bool:
        """Whether this very object lies on disk."""
        return any(one.volume is volume for one in self._held)

    def open(self, identity: UUID) -> list[Volume]:
        """Opens all volumes made from the catalogue ``identity``, oldest first.

        The writer removes damaged ones and those of other catalogues, formats or parameters:
        everything in them comes back from the database.
        """
        self.become_writer()
        held: list[_OnDisk] = []
        for path in sorted(self._directory.glob("v*")):
            try:
                held.append(self._open_one(path, identity))
            except (volumes.VolumeDamaged, EngineError, _Foreign) as error:
                log.warning("index volume is not used", volume=path.name, why=str(error))
                if self.writable:
                    shutil.rmtree(path, ignore_errors=True)
        self._held = tuple(held)
        return [one.volume for one in held]

    def become_writer(self) -> bool:
        """Takes the right to write, if nobody else has it; whether this process has it now."""
        if self._lock is None:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = volumes.try_writer_lock(self._directory)
        return self._lock is not None

    def save(self, volume: Volume, identity: UUID) -> Volume:
        """Writes a volume and returns it memory-mapped from the files."""
        number = 1 + max((int(one.path.name[1:9]) for one in self._held), default=0)
        path = self._directory / f"v{number:08d}-{uuid.uuid4().hex[:8]}"
        volumes.save(path, volume.meta() | {_IDENTITY_KEY: str(identity)}, volume.arrays())
        opened = self._open_one(path, identity)
        self._held = (*self._held, opened)
        return opened.volume

    def keep_only(self, used: tuple[Volume, ...]) -> None:
        """Removes the files of volumes that are no longer used."""
        unused = [one for one in self._held if not any(one.volume is v for v in used)]
        self._held = tuple(one for one in self._held if one not in unused)
        if self.writable:
            for one in unused:
                shutil.rmtree(one.path, ignore_errors=True)

    def close(self) -> None:
        """Lets another process write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _open_one(self, path: Path, identity: UUID) -> _OnDisk:
        meta, arrays = volumes.open(path)
        if meta.get(_IDENTITY_KEY) != str(identity):
            raise _Foreign("it was made from another database")
        volume = Volume.from_arrays(meta, arrays, self._params)
        size_bytes = sum(file.stat().st_size for file in path.iterdir())
        return _OnDisk(volume, path, size_bytes)


class _Foreign(Exception):  # noqa: N818 - a condition, not a mistake
    """A volume of another catalogue."""
