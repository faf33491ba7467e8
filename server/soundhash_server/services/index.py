"""The match index of this server: a cache of the database that follows its changes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import threading
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
from soundhash_engine.sealing import DEAD_SHARE, SEAL_RATIO, Merge
from soundhash_engine.volume import Volume
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.lean import give_back_memory
from soundhash_server.services.volume_files import DamagedVolume, VolumeFiles
from soundhash_server.store.changes import Changes
from soundhash_server.store.listener import CATALOGUE, Listener, Subscription

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
search; it takes about a second."""
QUIET_RATIO = 8.0
"""Beyond it, to merge more than while much is ingested: three or four volumes are left."""
LEAST_DEAD = 12
"""Where everything rolls out again, so many recordings that are gone are worth a merge that frees
their room: an hour of one source."""
RENEWED_HOURS = 20.0
"""So much of what was made with earlier search parameters is made anew at a time."""
CHECKED_BYTES_PER_S = 100e6
"""No faster than this are volumes compared with their checksums after the start."""
FAILED_REST_S = 30.0
SEALER_NICENESS = 10
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
    unusable_recordings: int
    """In the database with fingerprints of other parameters, or damaged ones: they cannot be
    matched before they are fingerprinted again."""
    applied_revision: int
    catalogue_revision: int
    compacting: bool
    params_digest: str


class IndexService:
    """Owns the engine's index.

    All changes go through one thread, sealing and compaction through another, at low priority;
    searches take snapshots and wait for neither. Of several servers on one directory one writes
    volumes; the others map them as they appear and hold in memory only what is in none yet.

    may_write: without, it is never that one. rolling: what comes goes again after a while, and
    more comes all the time: volumes are merged when enough has come or gone, not when it is quiet.
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
        may_write: bool = True,
        rolling: bool = False,
    ) -> None:
        self._changes = changes
        self._listener = listener
        self._poll_s = poll_s
        self._seal_hours = seal_hours
        self._params = params
        self._rolling = rolling
        self._log = log.bind(folder=directory.name)
        self._index = Index(params)
        self._files = VolumeFiles(directory, params, may_write=may_write)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="index-apply")
        self._sealer = ThreadPoolExecutor(
            1, thread_name_prefix="index-seal", initializer=_step_back
        )
        self._checker = ThreadPoolExecutor(
            1, thread_name_prefix="index-check", initializer=_step_back
        )
        self._sealing: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._writing = False
        self._stopping = threading.Event()
        self._damaged: list[Volume] = []
        self._unusable: set[int] = set()
        self._settled = False
        self._seal_after_s = -math.inf
        self._identity: UUID | None = None
        self._applied = -1
        self._last_change_s = time.monotonic()
        self._ready = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether everything that was in the database at the start can be matched."""
        return self._ready.is_set()

    async def wait_ready(self) -> None:
        """Waits until it is ready."""
        await self._ready.wait()

    @property
    def applied_revision(self) -> int:
        """Newest revision of the catalogue that answers take into account; -1 before any."""
        return self._applied

    def snapshot(self) -> Snapshot:
        """The index as it is now."""
        return self._index.snapshot()

    async def probe(self) -> bool:
        """For readiness."""
        return self.ready

    async def run(self) -> None:
        """Loads, then follows the catalogue for ever; what fails is tried again."""
        with self._listener.subscribe(CATALOGUE) as subscription:
            await self._follow(subscription)

    async def _follow(self, subscription: Subscription) -> None:
        complaint = ""
        while True:
            try:
                subscription.clear()
                begun = time.perf_counter()
                await self._catch_up()
                busy_s = time.perf_counter() - begun
                if not self.ready:
                    self._ready.set()
                    busy_s = 0.0
                    snapshot = self.snapshot()
                    self._log.info(
                        "index is ready",
                        recordings=snapshot.recordings,
                        hours=round(snapshot.hours, 2),
                        revision=self._applied,
                    )
                    self._checking = asyncio.create_task(self._check(), name="index-check")
                complaint = ""
                await self._renew()
                await self._seal_if_due()
            except Exception as error:
                # Whatever it is, the database can be asked again; answers stay as they are.
                if complaint != repr(error):
                    complaint = repr(error)
                    self._log.warning("index waits", error=complaint)
                await asyncio.sleep(RETRY_S if self.ready else RETRY_S / 10)
                continue
            rest_s = min(busy_s / MOST_BUSY_SHARE - busy_s, LONGEST_REST_S)
            await asyncio.sleep(rest_s)
            await subscription.wait(timeout_s=self._poll_s)

    async def hide(self, *recording_ids: int) -> None:
        """Leaves recordings out of every answer from now on."""
        await self._in_writer(lambda: self._index.remove(recording_ids))

    async def compact(self) -> IndexState:
        """Merges everything into one volume and drops what is no longer valid.

        Where another server writes the volumes, that is its to do, and nothing happens. Goes on
        when the caller leaves. Raises PlatformError ABORTED (COMPACTION_RUNNING).
        """
        if self._sealing is not None:
            raise PlatformError(
                ErrorKind.ABORTED,
                "COMPACTION_RUNNING",
                "The index is being compacted already.",
                "Try again after the given delay.",
                retry_after_s=2.0,
            )
        await asyncio.shield(self._start_sealing(SEAL_RATIO, full=True))
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
            unusable_recordings=len(self._unusable),
            applied_revision=max(0, self._applied),
            catalogue_revision=newest,
            compacting=self._sealing is not None,
            params_digest=self._params.digest,
        )

    async def close(self) -> None:
        """Writes a tail that is worth it to disk and lets go of the directory."""
        if self._checking is not None:
            self._checking.cancel()
        if self._sealing is not None:
            await asyncio.wait([self._sealing])
        tail_hours = (await self._in_writer(self._index.status)).tail_hours
        if self.ready and self._writing and tail_hours >= QUIET_SEAL_HOURS:
            await self._start_sealing(SEAL_RATIO)
        for executor in (self._writer, self._sealer):
            executor.shutdown(wait=True, cancel_futures=True)
        self._stopping.set()
        self._checker.shutdown(wait=True, cancel_futures=True)
        self._files.close()

    async def _catch_up(self) -> None:
        identity = await self._changes.identity()
        revision = await self._changes.current_revision()
        if identity != self._identity or revision < self._applied:
            await self._open(identity)
            return
        await self._follow_files(identity)
        if revision > self._applied:
            since = await self._changes.since(self._applied)
            if since is None:
                await self._open(identity)
                return
            await self._take_in(dict(since.changed), since.deleted)
            self._applied = since.revision

    async def _follow_files(self, identity: UUID) -> None:
        """Takes over what another server has written, and does without what is damaged."""
        if self._damaged:
            damaged, self._damaged = self._damaged, []
            lost = await self._in_writer(lambda: self._index.drop(damaged))
            await self._in_sealer(lambda: self._files.keep_only(self._index.volumes()))
            await self._take_in(lost, [])
        if self._writing:
            return
        writing = await self._in_sealer(self._files.become_writer)
        found = await self._in_sealer(lambda: self._files.follow(identity))
        if found is not None:
            lost = await self._in_writer(lambda: self._index.adopt(found))
            self._writing = writing
            await self._take_in(lost, [])

    async def _open(self, identity: UUID) -> None:
        """Starts anew from the volumes on disk and what the database has beyond them."""
        volumes = await self._in_sealer(lambda: self._files.open(identity))
        await self._in_writer(lambda: self._index.load(volumes))
        self._writing = self._files.writable
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
        self._unusable &= wanted.keys()
        self._identity, self._applied = identity, revision

    async def _take_in(self, changed: Mapping[int, int], removed: Sequence[int]) -> None:
        """Hides what was removed, then loads what was changed and is in no volume, in batches."""
        if removed:
            await self._in_writer(lambda: self._index.remove(removed))
            self._unusable.difference_update(removed)
        if changed or removed:
            self._last_change_s = time.monotonic()
            self._settled = False
        if not changed:
            return
        there = await self._in_writer(lambda: self._index.revive(changed))
        changed = {key: value for key, value in changed.items() if key not in there}
        self._unusable.difference_update(changed)
        batch: list[tuple[int, int, list[Segment]]] = []
        batch_s = 0.0
        async for recording_id, revision, segments in self._changes.load(list(changed)):
            batch.append((recording_id, revision, segments))
            batch_s += sum(segment.duration_s for segment in segments)
            if batch_s >= BATCH_HOURS * 3600.0:
                await self._apply(batch)
                batch, batch_s = [], 0.0
                if (await self._in_writer(self._index.status)).tail_hours >= self._seal_hours:
                    await (self._sealing or self._start_sealing(SEAL_RATIO))
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
                    self._log.warning(
                        "recording cannot be indexed",
                        recording_id=recording_id,
                        reason=error.reason,
                        why=error.message,
                    )
            self._unusable.update(unusable)
            # Removed first: a database that was restored may have lower revisions.
            removed = [*unusable, *(item[0] for item in added)]
            self._index.apply(added, removed)

        await self._in_writer(work)

    async def _renew(self) -> None:
        """Makes some of what earlier search parameters have made anew; it answers meanwhile."""
        if self._writing and self._sealing is None:
            renewed = await self._in_writer(lambda: self._index.renew(RENEWED_HOURS))
            if renewed:
                self._log.info("volumes of earlier parameters are made anew", recordings=renewed)
                await self._start_sealing(SEAL_RATIO)

    async def _seal_if_due(self) -> None:
        if self._sealing is not None or time.monotonic() < self._seal_after_s:
            return
        status = await self._in_writer(self._index.status)
        if self._rolling:
            dead = status.dead_recordings
            gone = dead >= LEAST_DEAD and dead > DEAD_SHARE * (dead + status.recordings)
            if status.tail_hours >= self._seal_hours or gone:
                self._start_sealing(SEAL_RATIO)
        elif time.monotonic() - self._last_change_s < QUIET_S:
            if status.tail_hours >= self._seal_hours:
                self._start_sealing(SEAL_RATIO)
        elif status.hours <= QUIET_MERGE_HOURS:
            if status.tail_hours >= QUIET_SEAL_HOURS or status.volumes > 1:
                self._start_sealing(QUIET_RATIO, full=True)
        elif status.tail_hours >= QUIET_SEAL_HOURS or not self._settled:
            self._start_sealing(QUIET_RATIO)

    def _start_sealing(self, ratio: float, *, full: bool = False) -> asyncio.Task[None]:
        task = asyncio.create_task(self._seal(ratio, full), name="index-seal")
        self._sealing = task
        task.add_done_callback(self._sealed)
        return task

    def _sealed(self, task: asyncio.Task[None]) -> None:
        self._sealing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._seal_after_s = time.monotonic() + FAILED_REST_S
            self._log.error("sealing failed", exc_info=error)

    async def _seal(self, ratio: float, full: bool) -> None:
        identity = self._identity

        def work() -> None:
            begun = time.perf_counter()
            if identity is None or not self._writing:
                return

            def write(merge: Merge) -> Volume:
                return self._files.write(merge, identity)

            try:
                sealed = self._index.seal(write, ratio=ratio, full=full)
            except DamagedVolume as error:
                self._give_up(error)
                return
            self._settled = sealed is None
            self._files.keep_only(self._index.volumes())
            if sealed is None:
                return
            hours = sealed.hours
            del sealed
            give_back_memory()
            self._log.info(
                "index was sealed",
                hours=round(hours, 2),
                full=full,
                elapsed_s=round(time.perf_counter() - begun, 2),
            )

        await self._in_sealer(work)

    async def _check(self) -> None:
        """Compares what was on disk at the start with its checksums, in the writer's process."""

        def work() -> None:
            for error in self._files.check(CHECKED_BYTES_PER_S, self._stopping):
                self._give_up(error)

        if self._writing:
            await asyncio.get_running_loop().run_in_executor(self._checker, work)

    def _give_up(self, error: DamagedVolume) -> None:
        self._log.warning("index volume is damaged and is made anew", why=str(error))
        self._damaged.append(error.volume)

    async def _in_sealer(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._sealer, work)

    async def _in_writer(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)


def _step_back() -> None:
    """Leaves the processor to searches where the system schedules threads one by one."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), SEALER_NICENESS)
