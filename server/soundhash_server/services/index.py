"""The match index of this server: a cache of the database that follows its changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import structlog

from soundhash_engine import PARAMS, EngineError, Fingerprint, Params, Segment, join
from soundhash_engine.index import Index, IndexStatus, Snapshot
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.lean import give_back_memory
from soundhash_server.services.volume_files import VolumeFiles
from soundhash_server.store.changes import Changes
from soundhash_server.store.listener import CATALOGUE, Listener

log = structlog.get_logger(__name__)

T = TypeVar("T")

BATCH_HOURS = 5.0
"""Recordings are taken in by so much audio at a time: it bounds memory, and each batch builds
the live tail once."""
QUIET_S = 5.0
QUIET_SEAL_HOURS = 1.0
"""A tail of this size is also sealed when nothing has changed for a while, and at the end: the
next start reads it from disk."""
QUIET_MERGE_HOURS = 100.0
"""Up to this size the quiet is also used to merge everything into one volume, the fastest to
search; it takes some seconds."""
MOST_BUSY_SHARE = 0.33
LONGEST_REST_S = 1.5
"""While much is ingested, the index takes it in by fewer and larger steps, so that the workers
keep the processor for the most part; what is new still shows up after a few seconds."""
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class IndexState:
    """What the index holds and how far it has come."""

    status: IndexStatus
    disk_bytes: int
    memory_bytes: int
    """Of what is not on disk: the live tail."""
    applied_revision: int
    catalogue_revision: int
    compacting: bool
    params_digest: str


class IndexService:
    """Owns the engine's index.

    All changes go through one thread, sealing and compaction through another; searches take
    snapshots and wait for neither.
    """

    def __init__(
        self,
        changes: Changes,
        listener: Listener,
        directory: Path,
        *,
        poll_s: float,
        seal_hours: float,
        params: Params = PARAMS,
    ) -> None:
        self._changes = changes
        self._listener = listener
        self._poll_s = poll_s
        self._seal_hours = seal_hours
        self._params = params
        self._index = Index(params)
        self._files = VolumeFiles(directory, params)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="index-apply")
        self._sealer = ThreadPoolExecutor(1, thread_name_prefix="index-seal")
        self._sealing: asyncio.Task[None] | None = None
        self._identity: UUID | None = None
        self._applied = -1
        self._last_change_s = time.monotonic()
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether everything that was in the database at the start can be matched."""
        return self._ready

    @property
    def applied_revision(self) -> int:
        """Newest revision of the catalogue that answers take into account; -1 before any."""
        return self._applied

    def snapshot(self) -> Snapshot:
        """The index as it is now."""
        return self._index.snapshot()

    async def probe(self) -> bool:
        """For readiness."""
        return self._ready

    async def run(self) -> None:
        """Loads, then follows the catalogue for ever; what fails is tried again."""
        subscription = self._listener.subscribe(CATALOGUE)
        complaint = ""
        while True:
            try:
                subscription.clear()
                begun = time.perf_counter()
                await self._catch_up()
                busy_s = time.perf_counter() - begun
                if not self._ready:
                    self._ready, busy_s = True, 0.0
                    snapshot = self.snapshot()
                    log.info(
                        "index is ready",
                        recordings=snapshot.recordings,
                        hours=round(snapshot.hours, 2),
                        revision=self._applied,
                    )
                complaint = ""
                await self._seal_if_due()
            except Exception as error:
                # Whatever it is, the database can be asked again; answers stay as they are.
                if complaint != repr(error):
                    complaint = repr(error)
                    log.warning("index waits", error=complaint)
                await asyncio.sleep(RETRY_S if self._ready else RETRY_S / 10)
                continue
            rest_s = min(busy_s / MOST_BUSY_SHARE - busy_s, LONGEST_REST_S)
            await asyncio.sleep(rest_s)
            await subscription.wait(timeout_s=self._poll_s)

    async def hide(self, recording_id: int) -> None:
        """Leaves a recording out of every answer from now on."""
        await self._in_writer(lambda: self._index.remove([recording_id]))

    async def compact(self) -> IndexState:
        """Merges everything into one volume and drops what is no longer valid.

        Goes on when the caller leaves. Raises PlatformError ABORTED (COMPACTION_RUNNING).
        """
        if self._sealing is not None:
            raise PlatformError(
                ErrorKind.ABORTED,
                "COMPACTION_RUNNING",
                "The index is being compacted already.",
                "Try again after the given delay.",
                retry_after_s=2.0,
            )
        await asyncio.shield(self._start_sealing(full=True))
        return await self.state()

    async def state(self) -> IndexState:
        """Counts, sizes and progress."""
        newest = await self._changes.current_revision()
        status = await self._in_writer(self._index.status)
        volumes = self.snapshot().volumes
        return IndexState(
            status=status,
            disk_bytes=self._files.size_bytes,
            memory_bytes=sum(v.nbytes for v in volumes if not self._files.holds(v)),
            applied_revision=max(0, self._applied),
            catalogue_revision=newest,
            compacting=self._sealing is not None,
            params_digest=self._params.digest,
        )

    async def close(self) -> None:
        """Writes a tail that is worth it to disk and lets go of the directory."""
        if self._sealing is not None:
            await asyncio.wait([self._sealing])
        tail_hours = (await self._in_writer(self._index.status)).tail_hours
        if self._ready and self._files.writable and tail_hours >= QUIET_SEAL_HOURS:
            await self._start_sealing(full=False)
        self._writer.shutdown(wait=True, cancel_futures=True)
        self._sealer.shutdown(wait=True, cancel_futures=True)
        self._files.close()

    async def _catch_up(self) -> None:
        identity = await self._changes.identity()
        revision = await self._changes.current_revision()
        if identity != self._identity or revision < self._applied:
            await self._open(identity)
        elif revision > self._applied:
            since = await self._changes.since(self._applied)
            await self._take_in(dict(since.changed), since.deleted)
            self._applied = since.revision

    async def _open(self, identity: UUID) -> None:
        """Starts anew from the volumes on disk and what the database has beyond them."""
        volumes = await self._in_writer(lambda: self._files.open(identity))
        await self._in_writer(lambda: self._index.load(volumes))
        revision, wanted = await self._changes.all_revisions()
        held = {
            recording_id: held_revision
            for volume, alive in zip(self.snapshot().volumes, self.snapshot().alive, strict=True)
            for recording_id, held_revision in zip(
                volume.recording_id[alive].tolist(), volume.revision[alive].tolist(), strict=True
            )
        }
        stale = [key for key, value in held.items() if wanted.get(key) != value]
        missing = {key: value for key, value in wanted.items() if held.get(key) != value}
        await self._take_in(missing, stale)
        self._identity, self._applied = identity, revision

    async def _take_in(self, changed: Mapping[int, int], removed: Sequence[int]) -> None:
        """Hides what was removed, then loads what was changed, in batches."""
        if removed:
            await self._in_writer(lambda: self._index.remove(removed))
        if changed or removed:
            self._last_change_s = time.monotonic()
        batch: list[tuple[int, int, list[Segment]]] = []
        batch_s = 0.0
        async for recording_id, revision, segments in self._changes.load(list(changed)):
            batch.append((recording_id, revision, segments))
            batch_s += sum(segment.duration_s for segment in segments)
            if batch_s >= BATCH_HOURS * 3600.0:
                await self._apply(batch)
                batch, batch_s = [], 0.0
                if (await self._in_writer(self._index.status)).tail_hours >= self._seal_hours:
                    await (self._sealing or self._start_sealing(full=False))
        await self._apply(batch)

    async def _apply(self, batch: list[tuple[int, int, list[Segment]]]) -> None:
        if not batch:
            return

        def work() -> None:
            added: list[tuple[int, int, Fingerprint]] = []
            unusable: list[int] = []
            for recording_id, revision, segments in batch:
                try:
                    added.append((recording_id, revision, join(segments, self._params)))
                except EngineError as error:
                    # Made with other parameters, or damaged: it needs fingerprinting again.
                    unusable.append(recording_id)
                    log.warning(
                        "recording cannot be indexed",
                        recording_id=recording_id,
                        reason=error.reason,
                        why=error.message,
                    )
            # Removed first: a database that was restored may have lower revisions.
            removed = [*unusable, *(item[0] for item in added)]
            self._index.apply(added, removed)

        await self._in_writer(work)

    async def _seal_if_due(self) -> None:
        if self._sealing is not None:
            return
        status = await self._in_writer(self._index.status)
        if time.monotonic() - self._last_change_s < QUIET_S:
            if status.tail_hours >= self._seal_hours:
                self._start_sealing(full=False)
        elif status.hours <= QUIET_MERGE_HOURS:
            if status.tail_hours >= QUIET_SEAL_HOURS or status.volumes > 1:
                self._start_sealing(full=True)
        elif status.tail_hours >= QUIET_SEAL_HOURS:
            self._start_sealing(full=False)

    def _start_sealing(self, *, full: bool) -> asyncio.Task[None]:
        task = asyncio.create_task(self._seal(full), name="index-seal")
        self._sealing = task
        task.add_done_callback(self._sealed)
        return task

    def _sealed(self, task: asyncio.Task[None]) -> None:
        self._sealing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sealing failed", exc_info=error)

    async def _seal(self, full: bool) -> None:
        identity = self._identity

        def work() -> None:
            begun = time.perf_counter()
            sealed = self._index.seal(full=full)
            if sealed is None:
                return
            hours = sealed.hours
            if identity is not None and self._files.become_writer():
                mapped = self._files.save(sealed, identity)
                self._index.exchange(sealed, mapped)
            self._files.keep_only(self.snapshot().volumes)
            del sealed
            give_back_memory()
            log.info(
                "index was sealed",
                hours=round(hours, 2),
                full=full,
                elapsed_s=round(time.perf_counter() - begun, 2),
            )

        await asyncio.get_running_loop().run_in_executor(self._sealer, work)

    async def _in_writer(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)
