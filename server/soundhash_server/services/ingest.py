"""Audio in: uploads and URLs become jobs that workers carry out."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from soundhash_engine import PARAMS
from soundhash_server.errors import ErrorKind, PlatformError, not_found
from soundhash_server.fetching.ways import check_options
from soundhash_server.model import (
    FetchOptions,
    IngestParameters,
    Job,
    JobKind,
    JobState,
    Page,
    Video,
)
from soundhash_server.queue import JobQueue
from soundhash_server.services.partial_uploads import PartialStatus, PartialUploads
from soundhash_server.services.uploads import Received, Receiver, Spool
from soundhash_server.sources import search_key, sha256_key, source_host, url_key
from soundhash_server.store.folders import FolderFiles
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.listener import JOBS, Listener
from soundhash_server.store.videos import Videos, external_id_taken
from soundhash_server.url_guard import check_url

SEARCH_HOST = "youtube.com"
"""Where searches go."""
WATCH_POLL_S = 1.0
"""Watchers look again after this even if nothing was announced: announcements can be lost."""


@dataclass(frozen=True, slots=True)
class UploadSpec:
    """What the caller says about a file; empty or 0 means not said."""

    file_name: str
    title: str
    external_id: str
    channel: str
    source_url: str
    content_sha256: str
    size_bytes: int
    request_id: str
    offset: int = 0
    """Where the chunks begin in the file."""

    @property
    def resumable(self) -> bool:
        """Whether what arrives of it can be told from other files, and so be kept."""
        return bool(self.content_sha256 and self.size_bytes)


@dataclass(frozen=True, slots=True)
class UrlSpec:
    """What the caller says about a URL, or words to search for; empty means not said."""

    url: str
    title: str
    external_id: str
    channel: str
    request_id: str
    search: str = ""
    options: FetchOptions = field(default_factory=FetchOptions)


class Ingest:
    """Submits, shows and steers jobs."""

    def __init__(
        self,
        jobs: Jobs,
        videos: Videos,
        queue: JobQueue,
        spool: Spool,
        partials: PartialUploads,
        folders: FolderFiles,
        listener: Listener,
        *,
        uploads_dir: Path,
        max_upload_bytes: int,
        max_attempts: int,
        allow_private_urls: bool,
    ) -> None:
        self._jobs = jobs
        self._videos = videos
        self._queue = queue
        self._spool = spool
        self._partials = partials
        self._folders = folders
        self._listener = listener
        self._uploads_dir = uploads_dir
        self._max_upload_bytes = max_upload_bytes
        self._max_attempts = max_attempts
        self._allow_private_urls = allow_private_urls

    async def upload(self, spec: UploadSpec, chunks: AsyncIterator[bytes]) -> Job:
        """Receives a whole file and submits its job. Whatever fails leaves nothing behind, but
        for what has arrived of a resumable file.

        Raises PlatformError INVALID_ARGUMENT: EMPTY_MEDIA, CHECKSUM_MISMATCH,
        UPLOAD_SIZE_MISMATCH, INVALID_REQUEST; RESOURCE_EXHAUSTED: UPLOAD_TOO_LARGE,
        TOO_MANY_UPLOADS, DISK_FULL; ALREADY_EXISTS: EXTERNAL_ID_TAKEN; FAILED_PRECONDITION:
        UPLOAD_OFFSET_MISMATCH; ABORTED: UPLOAD_IN_PROGRESS.
        """
        if spec.offset and not spec.resumable:
            raise _offset_without_identity()
        if spec.content_sha256:
            # Before the bytes are sent, where that can be known.
            await self._check_external_id(spec.external_id, _same_content(spec.content_sha256))
        if spec.resumable and spec.offset == spec.size_bytes:
            whole = self._uploads_dir / spec.content_sha256
            if await asyncio.to_thread(whole.exists) or await self._is_indexed(spec):
                # It arrived, and only the answer got lost.
                async for chunk in chunks:
                    if chunk:
                        raise _size_mismatch(spec.size_bytes, spec.size_bytes + len(chunk))
                return await self._submit_upload(spec, whole, spec.content_sha256, spec.size_bytes)
        async with self._receiving(spec) as receiver:
            async for chunk in chunks:
                await receiver.write(chunk)
                if spec.size_bytes and receiver.size_bytes > spec.size_bytes:
                    raise _size_mismatch(spec.size_bytes, receiver.size_bytes)
            received = await receiver.finish()
            _check_received(spec, received)
            await self._check_external_id(spec.external_id, _same_content(received.content_sha256))
            path = self._uploads_dir / received.content_sha256
            await self._spool.in_thread(lambda: _publish(received.path, path))
        return await self._submit_upload(spec, path, received.content_sha256, received.size_bytes)

    async def upload_status(self, content_sha256: str) -> PartialStatus:
        """How much of a file has arrived."""
        whole = self._uploads_dir / content_sha256
        with contextlib.suppress(FileNotFoundError):
            return PartialStatus((await asyncio.to_thread(whole.stat)).st_size, None)
        return await self._partials.status(content_sha256)

    async def _is_indexed(self, spec: UploadSpec) -> bool:
        video = await self._videos.by_sha256(spec.content_sha256)
        return video is not None and video.params_digest == PARAMS.digest

    def _receiving(self, spec: UploadSpec) -> AbstractAsyncContextManager[Receiver]:
        if spec.resumable:
            return self._partials.receive(spec.content_sha256, spec.size_bytes, spec.offset)
        return self._spool.receive(self._max_upload_bytes, spec.size_bytes)

    async def _submit_upload(
        self, spec: UploadSpec, path: Path, content_sha256: str, size_bytes: int
    ) -> Job:
        """Submits the file that lies at ``path``."""
        await self._folders.share(content_sha256)
        job = await self._submit(
            sha256_key(content_sha256),
            IngestParameters(
                file_name=_base_name(spec.file_name),
                title=spec.title,
                external_id=spec.external_id,
                channel=spec.channel,
                source_url=spec.source_url,
                content_sha256=content_sha256,
                size_bytes=size_bytes,
            ),
            spec.request_id,
        )
        same = getattr(job.parameters, "content_sha256", "") == content_sha256
        if job.state.finished and same:
            # Done long ago: nobody will read these bytes.
            await self._spool.in_thread(lambda: path.unlink(missing_ok=True))
        return job

    async def submit_url(self, spec: UrlSpec) -> Job:
        """Submits what is behind a URL, or the first result of a search.

        A job that waits to be tried again, and is submitted with other options, uses them at
        once. Raises PlatformError INVALID_ARGUMENT (URL_NOT_ALLOWED and others of url_guard,
        SEARCH_EMPTY, FETCH_OPTIONS_INVALID, PROXY_NOT_ALLOWED), ALREADY_EXISTS
        (EXTERNAL_ID_TAKEN).
        """
        await check_options(spec.options, self._allow_private_urls)
        if spec.search:
            if not spec.search.split():
                raise _search_empty()
            key, host = search_key(spec.search), SEARCH_HOST
        else:
            await check_url(spec.url, self._allow_private_urls)
            key, host = url_key(spec.url), source_host(spec.url)
        known = await self._videos.by_source_key(key)
        await self._check_external_id(
            spec.external_id, lambda video: known is not None and video.id == known.id
        )
        return await self._submit(
            key,
            IngestParameters(
                url=spec.url,
                search=spec.search,
                title=spec.title,
                external_id=spec.external_id,
                channel=spec.channel,
                options=spec.options,
            ),
            spec.request_id,
            source_host=host,
        )

    async def get(self, job_id: UUID) -> Job:
        """Raises PlatformError NOT_FOUND (JOB_NOT_FOUND)."""
        job = await self._jobs.get(job_id)
        if job is None:
            raise not_found("job", str(job_id))
        return job

    async def list(
        self,
        page_size: int,
        page_token: str,
        states: Sequence[JobState],
        failure_reason: str,
        *,
        parent_id: UUID | None = None,
        kinds: Sequence[JobKind] = (),
    ) -> Page[Job]:
        """Newest first."""
        return await self._jobs.list(
            page_size, page_token, states, failure_reason, parent_id=parent_id, kinds=kinds
        )

    async def watch(self, job_id: UUID) -> AsyncIterator[Job]:
        """The job as it is, then every change that is seen, and last the finished job.

        Raises PlatformError NOT_FOUND (JOB_NOT_FOUND).
        """
        shown: Job | None = None
        with self._listener.subscribe(JOBS, str(job_id)) as changes:
            while True:
                changes.clear()
                job = await self.get(job_id)
                if job != shown:
                    yield job
                    shown = job
                if job.state.finished:
                    return
                await changes.wait(WATCH_POLL_S)

    async def cancel(self, job_id: UUID) -> Job:
        """Raises PlatformError NOT_FOUND (JOB_NOT_FOUND)."""
        job = await self._jobs.cancel(job_id)
        if job is None:
            raise not_found("job", str(job_id))
        return job

    async def retry(self, job_id: UUID) -> Job:
        """Queues a failed or cancelled job again.

        Raises PlatformError NOT_FOUND (JOB_NOT_FOUND), FAILED_PRECONDITION (JOB_NOT_RETRYABLE).
        """
        job = await self.get(job_id)
        content = _uploaded(job)
        if (
            job.state in (JobState.FAILED, JobState.CANCELLED)
            and content
            and not await asyncio.to_thread((self._uploads_dir / content).exists)
        ):
            raise PlatformError(
                ErrorKind.FAILED_PRECONDITION,
                "JOB_NOT_RETRYABLE",
                f"The uploaded bytes of job {job_id} are gone.",
                "Upload the file again.",
                metadata={"job": str(job_id), "state": job.state.value},
            )
        queued = await self._jobs.retry(job_id)
        if queued is None:
            raise not_found("job", str(job_id))
        await self._queue.wake(job_id)
        return queued

    async def _submit(
        self, key: str, parameters: IngestParameters, request_id: str, *, source_host: str = ""
    ) -> Job:
        job, needs_wake = await self._jobs.submit(
            JobKind.INGEST,
            key,
            parameters,
            request_id=request_id,
            max_attempts=self._max_attempts,
            params_digest=PARAMS.digest,
            source_host=source_host,
        )
        if needs_wake:
            await self._queue.wake(job.id)
        return job

    async def _check_external_id(self, external_id: str, is_same: Callable[[Video], bool]) -> None:
        """Another recording must not have it; the same one may be sent again."""
        if not external_id:
            return
        page = await self._videos.list(1, "", external_id=external_id)
        if page.items and not is_same(page.items[0]):
            raise external_id_taken(external_id)


def _search_empty() -> PlatformError:
    return PlatformError(
        ErrorKind.INVALID_ARGUMENT,
        "SEARCH_EMPTY",
        "There are no words to search for.",
        "Give words, such as artist and title.",
        violations={"search": "must have words in it"},
    )


def _same_content(content_sha256: str) -> Callable[[Video], bool]:
    return lambda video: video.content_sha256 == content_sha256


def _uploaded(job: Job) -> str:
    """SHA-256 of the uploaded bytes that a job needs; empty when it needs none."""
    asked = job.parameters
    return asked.content_sha256 if isinstance(asked, IngestParameters) and not asked.path else ""


def _base_name(file_name: str) -> str:
    """The name without folders, whatever system it comes from."""
    return file_name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]


def _publish(source: Path, target: Path) -> None:
    """Moves a whole file to its place, also over the power going out."""
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_received(spec: UploadSpec, received: Received) -> None:
    if received.size_bytes == 0:
        raise PlatformError(
            ErrorKind.INVALID_ARGUMENT,
            "EMPTY_MEDIA",
            "The file has no bytes.",
            "Send the file's bytes in chunks after the config.",
        )
    if spec.size_bytes and received.size_bytes != spec.size_bytes:
        raise _size_mismatch(spec.size_bytes, received.size_bytes)
    if spec.content_sha256 and received.content_sha256 != spec.content_sha256:
        raise PlatformError(
            ErrorKind.INVALID_ARGUMENT,
            "CHECKSUM_MISMATCH",
            "The bytes that arrived do not have the SHA-256 that was announced.",
            "Send the file again; it may have changed while it was sent.",
            metadata={"expected": spec.content_sha256, "received": received.content_sha256},
        )


def _offset_without_identity() -> PlatformError:
    return PlatformError(
        ErrorKind.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "An upload that goes on needs content_sha256 and size_bytes.",
        "Set both, as in the upload that was cut.",
        violations={"config.offset": "needs content_sha256 and size_bytes"},
    )


def _size_mismatch(expected: int, received: int) -> PlatformError:
    return PlatformError(
        ErrorKind.INVALID_ARGUMENT,
        "UPLOAD_SIZE_MISMATCH",
        f"{expected} bytes were announced and {received} arrived.",
        "Send the whole file, and its true size.",
        metadata={"expected": str(expected), "received": str(received)},
    )
