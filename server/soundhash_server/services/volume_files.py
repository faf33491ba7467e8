"""The index volumes of one data directory: which lie there, who may write them."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import structlog

from soundhash_engine import EngineError
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.sealing import Merge
from soundhash_engine.volume import INDEX_ARRAYS, SMALL_ARRAYS, Volume
from soundhash_server.store import volumes

log = structlog.get_logger(__name__)

_IDENTITY_KEY = "catalogue"
_CHECKED = (*SMALL_ARRAYS, *INDEX_ARRAYS)
"""Compared with their checksums before a volume is used: 70 kB an hour of audio. Damage elsewhere
may hide a recording, and is found by `check`, but leads no search astray."""
_SCATTERED = ("post", "check", "descriptor")
_COLD = ("descriptor",)
_SCANS = 10
_TICK_NS = 100_000_000


@dataclass(frozen=True, slots=True, eq=False)
class _OnDisk:
    volume: Volume
    path: Path
    size_bytes: int


class DamagedVolume(Exception):  # noqa: N818 - a condition of the volume
    """A volume in use is damaged on disk."""

    def __init__(self, volume: Volume, why: str) -> None:
        super().__init__(why)
        self.volume = volume


class VolumeFiles:
    """Volumes on disk, memory-mapped.

    One thread at a time opens or saves; anybody may ask. One process a directory writes; the
    others map what it has written, so that all of them share one copy in memory.

    may_write: without, this process never is that one.
    """

    def __init__(self, directory: Path, params: Params = PARAMS, *, may_write: bool = True) -> None:
        self._may_write = may_write
        self._directory = directory
        self._params = params
        self._lock: volumes.WriterLock | None = None
        self._held: tuple[_OnDisk, ...] = ()
        self._verified: set[str] = set()
        self._refused: set[str] = set()
        self._seen_ns = -1

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

        The writer removes damaged ones and those of other catalogues, formats or fingerprints:
        everything in them comes back from the database.
        """
        self.become_writer()
        self._held, self._refused, self._seen_ns = (), set(), -1
        return self.follow(identity) or []

    def follow(self, identity: UUID) -> list[Volume] | None:
        """What lies in the directory now, oldest first; None if that is what was there before."""
        changed_ns = self._changed_ns()
        if changed_ns == self._seen_ns:
            return None
        for _ in range(_SCANS):
            known = {one.path: one for one in self._held}
            found: list[_OnDisk] = []
            vanished = False
            for path in sorted(self._directory.glob("v*")):
                try:
                    if path in known:
                        found.append(known[path])
                    elif path.name not in self._refused:
                        found.append(self._open_one(path, identity))
                except (volumes.VolumeDamaged, EngineError, _Foreign) as error:
                    # The writer puts a merged volume there before it removes what went into it.
                    vanished |= not path.exists()
                    if path.exists():
                        self._refuse(path, str(error))
            if not vanished:
                break
        self._held = tuple(found)
        # What changes within the same tick of the clock would go unnoticed.
        self._seen_ns = changed_ns if time.time_ns() - changed_ns > _TICK_NS else -1
        return [one.volume for one in found]

    def become_writer(self) -> bool:
        """Takes the right to write, if nobody else has it; whether this process has it now."""
        if self._lock is None and self._may_write:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = volumes.try_writer_lock(self._directory)
            if self._lock is not None:
                # Look again, now that nobody else changes anything.
                self._seen_ns, self._refused = -1, set()
        return self._lock is not None

    def write(self, merge: Merge, identity: UUID) -> Volume:
        """Merges volumes into a new one on disk, and returns it memory-mapped.

        Raises DamagedVolume when a source that was there at the start turns out to be damaged,
        OSError.
        """
        sources = []
        for source in merge.volumes:
            on_disk = next((one for one in self._held if one.volume is source), None)
            if on_disk is not None:
                self._verify(on_disk)
                # A mapping of its own, read from front to back and let go of at the end.
                meta, arrays = volumes.open(on_disk.path)
                source = Volume.from_arrays(meta, arrays, self._params)  # noqa: PLW2901
            sources.append(source)
        merge = dataclasses.replace(merge, volumes=tuple(sources))
        number = 1 + max((int(one.path.name[1:9]) for one in self._held), default=0)
        path = self._directory / f"v{number:08d}-{uuid.uuid4().hex[:8]}"
        with volumes.VolumeWriter(path, _COLD) as writer:
            writer.finish(merge.into(writer) | {_IDENTITY_KEY: str(identity)})
        opened = self._open_one(path, identity)
        self._verified.add(path.name)
        self._held = (*self._held, opened)
        return opened.volume

    def keep_only(self, used: tuple[Volume, ...]) -> None:
        """Removes the files of volumes that are no longer used."""
        unused = [one for one in self._held if not any(one.volume is v for v in used)]
        self._held = tuple(one for one in self._held if one not in unused)
        if self.writable:
            for one in unused:
                volumes.remove(one.path)

    def check(self, bytes_per_s: float, stop: threading.Event) -> Iterator[DamagedVolume]:
        """Compares all of what was there at the start with its checksums, no faster than that.

        Yields what is damaged. Reads on until ``stop``.
        """
        for one in self._held:
            try:
                self._verify(one, bytes_per_s, stop)
            except DamagedVolume as error:
                yield error

    def close(self) -> None:
        """Lets another process write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _verify(
        self, one: _OnDisk, bytes_per_s: float = math.inf, stop: threading.Event | None = None
    ) -> None:
        if one.path.name in self._verified:
            return
        try:
            for _ in volumes.verify(one.path, bytes_per_s=bytes_per_s):
                if stop is not None and stop.is_set():
                    return
        except volumes.VolumeDamaged as error:
            if one in self._held:
                raise DamagedVolume(one.volume, str(error)) from error
            return
        self._verified.add(one.path.name)

    def _refuse(self, path: Path, why: str) -> None:
        log.warning("index volume is not used", volume=path.name, why=why)
        self._refused.add(path.name)
        if self.writable:
            volumes.remove(path)

    def _changed_ns(self) -> int:
        try:
            return self._directory.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _open_one(self, path: Path, identity: UUID) -> _OnDisk:
        meta, arrays = volumes.open(path, checked=_CHECKED, scattered=_SCATTERED)
        if meta.get(_IDENTITY_KEY) != str(identity):
            raise _Foreign("it was made from another database")
        volume = Volume.from_arrays(meta, arrays, self._params)
        return _OnDisk(volume, path, volume.nbytes)


class _Foreign(Exception):  # noqa: N818 - a condition, not a mistake
    """A volume of another catalogue."""
