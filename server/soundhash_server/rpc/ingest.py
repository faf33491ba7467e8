"""IngestService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC
from uuid import UUID

from soundhash.v1 import ingest_pb2, ingest_pb2_grpc
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.model import FolderParameters
from soundhash_server.rpc.convert import (
    failures_message,
    fetch_options,
    job_message,
    kinds,
    states,
    timestamp,
    uuid_or_none,
)
from soundhash_server.rpc.interceptors import Context
from soundhash_server.services.channels import ChannelAdmin, ChannelSpec
from soundhash_server.services.failures import Failures
from soundhash_server.services.folders import FolderScans
from soundhash_server.services.ingest import Ingest, UploadSpec, UrlSpec


class IngestServicer(ingest_pb2_grpc.IngestServiceServicer):
    def __init__(
        self, ingest: Ingest, channels: ChannelAdmin, folders: FolderScans, failures: Failures
    ) -> None:
        self._ingest = ingest
        self._channels = channels
        self._folders = folders
        self._failures = failures

    async def Upload(
        self, request_iterator: AsyncIterator[ingest_pb2.UploadRequest], context: Context
    ) -> ingest_pb2.Job:
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("config"):
            raise _config_missing()
        config = first.config
        spec = UploadSpec(
            file_name=config.file_name,
            title=config.title,
            external_id=config.external_id,
            channel=config.channel,
            source_url=config.source_url,
            content_sha256=config.content_sha256,
            size_bytes=config.size_bytes,
            request_id=config.request_id,
            offset=config.offset,
        )
        return job_message(await self._ingest.upload(spec, _chunks(request_iterator)))

    async def GetUpload(
        self, request: ingest_pb2.GetUploadRequest, context: Context
    ) -> ingest_pb2.UploadStatus:
        status = await self._ingest.upload_status(request.content_sha256)
        return ingest_pb2.UploadStatus(
            received_bytes=status.received_bytes, expire_time=timestamp(status.expire_time)
        )

    async def SubmitUrl(
        self, request: ingest_pb2.SubmitUrlRequest, context: Context
    ) -> ingest_pb2.Job:
        spec = UrlSpec(
            url=request.url,
            title=request.title,
            external_id=request.external_id,
            channel=request.channel,
            request_id=request.request_id,
            search=request.search,
            options=fetch_options(request.options),
        )
        return job_message(await self._ingest.submit_url(spec))

    async def SubmitChannel(
        self, request: ingest_pb2.SubmitChannelRequest, context: Context
    ) -> ingest_pb2.Job:
        since = request.since.ToDatetime(UTC) if request.HasField("since") else None
        spec = ChannelSpec(
            channel=request.channel,
            max_videos=request.max_videos,
            since=since,
            dry_run=request.dry_run,
            only_process=request.only_process,
            options=fetch_options(request.options) if request.HasField("options") else None,
        )
        return job_message(await self._channels.submit(spec))

    async def ScanFolder(
        self, request: ingest_pb2.ScanFolderRequest, context: Context
    ) -> ingest_pb2.Job:
        asked = FolderParameters(request.path, request.channel, request.dry_run, request.watch)
        return job_message(await self._folders.submit(asked))

    async def GetJob(self, request: ingest_pb2.GetJobRequest, context: Context) -> ingest_pb2.Job:
        return job_message(await self._ingest.get(UUID(request.id)))

    async def ListJobs(
        self, request: ingest_pb2.ListJobsRequest, context: Context
    ) -> ingest_pb2.ListJobsResponse:
        page = await self._ingest.list(
            request.page_size,
            request.page_token,
            states(request.states),
            request.failure_reason,
            parent_id=uuid_or_none(request.parent_id),
            kinds=kinds(request.kinds),
        )
        return ingest_pb2.ListJobsResponse(
            jobs=[job_message(job) for job in page.items], next_page_token=page.next_page_token
        )

    async def WatchJob(
        self, request: ingest_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[ingest_pb2.Job]:
        async for job in self._ingest.watch(UUID(request.id)):
            yield job_message(job)

    async def CancelJob(
        self, request: ingest_pb2.CancelJobRequest, context: Context
    ) -> ingest_pb2.Job:
        return job_message(await self._ingest.cancel(UUID(request.id)))

    async def RetryJob(
        self, request: ingest_pb2.RetryJobRequest, context: Context
    ) -> ingest_pb2.Job:
        return job_message(await self._ingest.retry(UUID(request.id)))

    async def RetryJobs(
        self, request: ingest_pb2.RetryJobsRequest, context: Context
    ) -> ingest_pb2.RetryJobsResponse:
        done = await self._failures.retry(request.failure_reason, uuid_or_none(request.channel_id))
        return ingest_pb2.RetryJobsResponse(queued=done.queued, not_retryable=done.not_retryable)

    async def SummarizeFailures(
        self, request: ingest_pb2.SummarizeFailuresRequest, context: Context
    ) -> ingest_pb2.SummarizeFailuresResponse:
        return failures_message(await self._failures.summarize(uuid_or_none(request.channel_id)))


async def _chunks(requests: AsyncIterator[ingest_pb2.UploadRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if not request.HasField("chunk"):
            raise PlatformError(
                ErrorKind.INVALID_ARGUMENT,
                "UPLOAD_CONFIG_REPEATED",
                "A second config came after the first message.",
                "Send one config, then chunks only.",
            )
        yield request.chunk


def _config_missing() -> PlatformError:
    return PlatformError(
        ErrorKind.INVALID_ARGUMENT,
        "UPLOAD_CONFIG_MISSING",
        "The first message of an upload has no config.",
        "Send a message with config first, then the chunks.",
    )
