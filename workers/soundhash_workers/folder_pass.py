"""One look through a folder, and what follows from it for the catalogue.

A pass lists the folder, compares it with what was there before (`store.folders`), looks into
what is new or changed, submits jobs for bytes that are not indexed, and deletes videos whose
last file is gone. Every step can be done twice without harm, so a pass that was interrupted is
simply done again: files are remembered before their jobs are submitted, and videos deleted
before their files are forgotten.
"""

from __future__ import annotations

import asyncio
import functools
import os
import stat
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from uuid import UUID

from soundhash_engine import PARAMS
from soundhash_server.folder_roots import (
    folder_empty,
    folder_not_found,
    resolve_folder,
    resolve_roots,
)
from soundhash_server.model import (
    BatchProgress,
    BatchResult,
    FolderParameters,
    IngestParameters,
    JobKind,
    JobProgress,
    JobState,
    JobStep,
    NewJob,
)
from soundhash_server.paths import path_to_text, text_to_path
from soundhash_server.queue import JobQueue
from soundhash_server.settings import Settings
from soundhash_server.sources import clean_text, sha256_key
from soundhash_server.store.folders import ContentState, FolderFile, FolderFiles
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.videos import Videos
from soundhash_workers.folder_files import NOT_MEDIA, FileMoves, digest_of, sort_out
from soundhash_workers.folder_walk import Found, Problem, Walk, walk
from soundhash_workers.pipeline import Report

SETTLE_S = 2.0
"""A file that was written this lately may still be written."""
_BATCH_FILES = 50
_QUERY_CONTENTS = 2000
_THREADS = 2
_MAX_ITEMS = 100
_MAX_NAME_CHARS = 255
_PENDING = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.RETRYING})

T = TypeVar("T")
Held = Mapping[str, Sequence[Found]]
"""Files by the SHA-256 of their bytes."""


@dataclass(slots=True)
class _Pass:
    """What one pass has found out so far."""

    held: defaultdict[str, list[Found]] = field(default_factory=lambda: defaultdict(list))
    problems: list[Problem] = field(default_factory=list)
    moving: list[Found] = field(default_factory=list)
    """Files that are still being written."""
    ensured: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    """What the catalogue has of files that cannot be looked into now: it stays."""
    skipped: int = 0
    known: int = 0
    to_queue: int = 0
    updated: int = 0
    deleted: int = 0
    looked_at: int = 0
    total: int = 0

    def sort(self, file: Found, digest: str) -> None:
        """A file whose bytes are known; empty: it is no media."""
        if digest:
            self.held[digest].append(file)
        else:
            self.skipped += 1


class FolderScan:
    """The passes of one job; a context manager, for it has threads."""

    def __init__(
        self,
        job_id: UUID,
        asked: FolderParameters,
        report: Report,
        *,
        settings: Settings,
        jobs: Jobs,
        queue: JobQueue,
        files: FolderFiles,
        videos: Videos,
    ) -> None:
        self._job_id = job_id
        self._asked = asked
        self._report = report
        self._settings = settings
        self._jobs = jobs
        self._queue = queue
        self._files = files
        self._videos = videos
        self._cancel = threading.Event()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="folder")
        self._submitted: set[str] = set()
        """Bytes for which a job was submitted; when it fails that is not done again."""
        self._new: dict[str, None] = {}
        self._seen: dict[Found, str | Problem] = {}
        """What was found out about files: the digest, or why there is none."""
        self._updated = 0
        self._deleted = 0
        self._pass = _Pass()
        self.listing_s = 0.0
        """How long it took to list the folder the last time."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cancel.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def outcome(self) -> tuple[BatchProgress, BatchResult]:
        """What the job has to say at its end."""
        self._pass.problems += [
            Problem(file.name, "FILE_CHANGED", "It is still being written.")
            for file in self._pass.moving
        ]
        batch = self._batch(done=True)
        return batch, BatchResult(
            counts=batch,
            new_items=tuple(self._new),
            unreadable_items=tuple(
                f"{one.name}: {one.reason}: {one.message}"
                for one in self._pass.problems[:_MAX_ITEMS]
            ),
        )

    async def make_pass(self) -> bool:
        """Looks through the folder once. True: some files are still being written.

        Raises as `FolderScanner.run`.
        """
        roots = await self._thread(lambda: resolve_roots(self._settings.folder_roots))
        root = await self._thread(lambda: resolve_folder(self._asked.path, roots))
        folder = path_to_text(str(root))
        identity = await self._thread(lambda: _identity(root))
        before = await self._files.of(folder)
        begun_s = time.monotonic()
        found = await self._thread(lambda: _walk(self._asked.path, root, roots, self._cancel))
        self.listing_s = time.monotonic() - begun_s
        here = found.files or found.problems or found.others
        if before and not here and not found.empty_on_purpose:
            raise folder_empty(self._asked.path)
        this = self._pass = _Pass(
            problems=list(found.problems), skipped=found.others, total=len(found.files)
        )
        here_now = set(found.files)
        self._seen = {file: seen for file, seen in self._seen.items() if file in here_now}
        fresh = self._compare(found, before)
        await self._ensure(this.held)
        changed = await self._look_into_all(folder, fresh, before)
        # Only now is it known which bytes are nowhere in the folder any more.
        gone = await self._thread(lambda: self._gone(root, found, before))
        if await self._thread(lambda: _identity(root)) != identity:
            raise folder_not_found(self._asked.path)
        await self._let_go(folder, gone, changed, before)
        self._updated += this.updated
        self._deleted += this.deleted
        this.updated = this.deleted = 0
        this.looked_at = this.total
        self._tell(done=True)
        return bool(this.moving)

    def _compare(self, found: Walk, before: Mapping[str, FolderFile]) -> list[Found]:
        """Sorts what is as it was; gives what has to be looked into."""
        this, now_s = self._pass, time.time()
        fresh = []
        for problem in found.problems:
            if problem.name in before:
                this.kept.add(before[problem.name].content_sha256)
        for file in found.files:
            old = before.get(file.name)
            if old is not None and file.is_as(old.size_bytes, old.mtime_ns):
                this.sort(file, old.content_sha256)
                this.looked_at += 1
            elif abs(now_s - file.change_s) < SETTLE_S:
                # A clock that is wrong the other way must not keep a file out for ever.
                self._moves(file, before)
            else:
                fresh.append(file)
        return fresh

    def _moves(self, file: Found, before: Mapping[str, FolderFile]) -> None:
        self._pass.moving.append(file)
        if file.name in before:
            self._pass.kept.add(before[file.name].content_sha256)

    async def _look_into_all(
        self, folder: str, fresh: Sequence[Found], before: Mapping[str, FolderFile]
    ) -> list[tuple[Found, str]]:
        """Takes in what is new; gives the files, with their digests, that have other bytes than
        before."""
        changed: list[tuple[Found, str]] = []
        for start in range(0, len(fresh), _BATCH_FILES):
            batch = fresh[start : start + _BATCH_FILES]
            new: list[tuple[Found, str]] = []
            for file, seen in zip(batch, await self._look_into(batch), strict=True):
                old = before.get(file.name)
                if seen is None:
                    self._moves(file, before)
                elif isinstance(seen, Problem):
                    self._pass.problems.append(seen)
                    if old is not None:
                        self._pass.kept.add(old.content_sha256)
                else:
                    self._pass.sort(file, seen)
                    kind = new if old is None or old.content_sha256 in ("", seen) else changed
                    kind.append((file, seen))
            await self._take_in(folder, new)
            self._pass.looked_at += len(batch)
            self._tell()
        return changed

    async def _look_into(self, batch: Sequence[Found]) -> list[str | Problem | None]:
        """The digest of each file (empty: no media), why it cannot be read, or None when it is
        being written."""
        unseen = [file for file in batch if file not in self._seen]
        sorts = await self._thread(lambda: sort_out(unseen, self._cancel))
        media = []
        for file, (reason, message) in zip(unseen, sorts, strict=True):
            if reason == NOT_MEDIA and not message:
                self._seen[file] = ""
            elif reason:
                self._seen[file] = Problem(file.name, reason, message)
            else:
                media.append(file)
        digests = await asyncio.gather(
            *(self._thread(functools.partial(_digest, file, self._cancel)) for file in media)
        )
        self._seen |= {
            file: digest for file, digest in zip(media, digests, strict=True) if digest is not None
        }
        return [self._seen.get(file) for file in batch]

    async def _take_in(self, folder: str, files: Sequence[tuple[Found, str]]) -> None:
        """Remembers files, and submits what is not indexed of them."""
        if not files:
            return
        if not self._asked.dry_run:
            records = [
                FolderFile(file.name, file.size_bytes, file.mtime_ns, digest)
                for file, digest in files
            ]
            await self._files.put(folder, records)
        digests = dict.fromkeys(digest for _, digest in files if digest)
        await self._ensure({digest: self._pass.held[digest] for digest in digests})

    async def _ensure(self, held: Held) -> None:
        """Submits jobs for bytes that are not indexed and for which none is under way."""
        digests = [digest for digest in held if digest not in self._pass.ensured]
        self._pass.ensured.update(digests)
        for start in range(0, len(digests), _QUERY_CONTENTS):
            part = digests[start : start + _QUERY_CONTENTS]
            states = await self._files.states(part, PARAMS.digest)
            wanted = [one for one in part if await self._is_wanted(one, states[one], held[one])]
            for begin in range(0, len(wanted), _BATCH_FILES):
                await self._submit(held, wanted[begin : begin + _BATCH_FILES])

    async def _is_wanted(self, digest: str, state: ContentState, files: Sequence[Found]) -> bool:
        ours = digest in self._submitted
        if state.indexed:
            self._pass.known += not ours
            return False
        at_its_place = state.job_path in {"", *(path_to_text(file.path) for file in files)}
        if state.job_state in _PENDING and state.job_id is not None:
            if at_its_place or state.job_state is JobState.RUNNING:
                return not ours
            if await self._thread(lambda: os.path.lexists(text_to_path(state.job_path))):
                return not ours
            # It waits for a file that was moved since.
            if not self._asked.dry_run:
                await self._jobs.cancel(state.job_id)
            return True
        return not (ours and at_its_place)

    async def _submit(self, held: Held, digests: Sequence[str]) -> None:
        for digest in digests:
            if digest not in self._submitted:
                self._pass.to_queue += 1
            if len(self._new) < _MAX_ITEMS:
                self._new[held[digest][0].name] = None
        if self._asked.dry_run:
            return
        jobs = await self._jobs.submit_many(
            [self._job(digest, held[digest][0]) for digest in digests],
            max_attempts=self._settings.job_max_attempts,
            params_digest=PARAMS.digest,
        )
        self._submitted.update(digests)
        for job in jobs:
            if job.state is JobState.QUEUED and not await self._queue.wake(job.id):
                break  # the workers look for themselves

    def _job(self, digest: str, file: Found) -> NewJob:
        name = text_to_path(file.name.rsplit("/", 1)[-1])
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return NewJob(
            JobKind.INGEST,
            sha256_key(digest),
            IngestParameters(
                path=path_to_text(file.path),
                file_name=clean_text(shown)[-_MAX_NAME_CHARS:],
                channel=self._asked.channel,
                content_sha256=digest,
                size_bytes=file.size_bytes,
            ),
            parent_id=self._job_id,
        )

    def _gone(self, root: Path, found: Walk, before: Mapping[str, FolderFile]) -> list[FolderFile]:
        """What was there before and is not any more. Blocks."""
        here = {file.name for file in found.files} | {one.name for one in found.problems}
        gone = []
        for name, old in before.items():
            if name in here:
                continue
            if found.is_unread(name) or _is_there(root / text_to_path(name)):
                self._pass.kept.add(old.content_sha256)
            else:
                gone.append(old)
        return gone

    async def _let_go(
        self,
        folder: str,
        gone: Sequence[FolderFile],
        changed: Sequence[tuple[Found, str]],
        before: Mapping[str, FolderFile],
    ) -> None:
        """Deletes what no file has any more, forgets files, and takes in those that changed."""
        this = self._pass
        leaving: defaultdict[str, list[str]] = defaultdict(list)
        for old in (*gone, *(before[file.name] for file, _ in changed)):
            digest = old.content_sha256
            if digest and digest not in this.kept and not this.held.get(digest):
                leaving[digest].append(old.path)
        replaced = {before[file.name].content_sha256 for file, digest in changed if digest}
        for digest, paths in leaving.items():
            left = await self._files.leftover(folder, paths, digest)
            if left is None:
                continue
            if left.video_id is not None and digest not in replaced:
                this.deleted += 1
            if self._asked.dry_run:
                continue
            if left.job_id is not None:
                await self._jobs.cancel(left.job_id)
            if left.video_id is not None:
                await self._videos.delete(left.video_id)
            # The same bytes may come back, and are then new.
            self._submitted.discard(digest)
        if gone and not self._asked.dry_run:
            await self._files.drop(folder, [old.path for old in gone])
        this.updated = sum(1 for _, digest in changed if digest)
        await self._take_in(folder, changed)

    def _batch(self, *, done: bool = False) -> BatchProgress:
        this = self._pass
        files = sum(len(files) for files in this.held.values())
        unique = sum(1 for files in this.held.values() if files)
        return BatchProgress(
            listed=files,
            known=this.known,
            skipped=this.skipped,
            updated=self._updated + this.updated,
            deleted=self._deleted + this.deleted,
            duplicates=files - unique,
            unreadable=len(this.problems),
            queued=this.to_queue if self._asked.dry_run else 0,
            listing_done=done,
        )

    def _tell(self, *, done: bool = False) -> None:
        this = self._pass
        self._report.progress = JobProgress(
            step=JobStep.LIST,
            fraction=this.looked_at / this.total if this.total else float(done),
            batch=self._batch(done=done),
        )

    async def _thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _walk(asked: str, root: Path, roots: Sequence[Path], cancel: threading.Event) -> Walk:
    try:
        return walk(root, roots, cancel)
    except (FileNotFoundError, NotADirectoryError):
        raise folder_not_found(asked) from None


def _digest(file: Found, cancel: threading.Event) -> str | Problem | None:
    try:
        return digest_of(file, cancel)
    except FileMoves:
        return None
    except OSError as error:
        why = error.strerror or type(error).__name__
        return Problem(file.name, "FILE_UNREADABLE", f"It cannot be read: {why}.")


def _identity(root: Path) -> tuple[int, int]:
    """Tells the folder from what else may be mounted at its place."""
    try:
        status = root.stat()
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def _is_there(path: Path) -> bool:
    """Whether a file is there after all: it came back after the folder was listed."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
