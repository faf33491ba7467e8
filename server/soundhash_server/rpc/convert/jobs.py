"""Jobs, what they were asked, and why they fail."""

from __future__ import annotations

from collections.abc import Iterable

from soundhash.v1 import (
    ingest_pb2,
)
from soundhash_server.model import (
    BatchItem,
    BatchProgress,
    BatchResult,
    ChannelParameters,
    DuplicatesParameters,
    DuplicatesResult,
    Failure,
    FetchOptions,
    FolderParameters,
    IngestParameters,
    IngestResult,
    Job,
    JobKind,
    JobProgress,
    JobState,
    JobStep,
)
from soundhash_server.rpc.convert.values import duration, id_text, seconds, timestamp
from soundhash_server.services.failures import FailureSummary


def state_number(state: JobState) -> ingest_pb2.JobState.ValueType:
    return ingest_pb2.JobState.Value(f"JOB_STATE_{state.value}")


def states(numbers: Iterable[ingest_pb2.JobState.ValueType]) -> tuple[JobState, ...]:
    """States of a request, whose numbers have been checked."""
    names = (ingest_pb2.JobState.Name(number) for number in numbers)
    return tuple(JobState(name.removeprefix("JOB_STATE_")) for name in names)


def _step_number(step: JobStep | None) -> ingest_pb2.JobStep.ValueType:
    return ingest_pb2.JobStep.Value(f"JOB_STEP_{step.value if step else 'UNSPECIFIED'}")


def _progress(progress: JobProgress) -> ingest_pb2.JobProgress:
    total_s = progress.audio_total_s
    return ingest_pb2.JobProgress(
        step=_step_number(progress.step),
        fraction=progress.fraction,
        audio_done=duration(progress.audio_done_s),
        audio_total=None if total_s is None else duration(total_s),
        bytes_done=progress.bytes_done,
        bytes_total=progress.bytes_total,
        batch=None if progress.batch is None else _batch(progress.batch),
    )


def _batch(batch: BatchProgress) -> ingest_pb2.BatchProgress:
    return ingest_pb2.BatchProgress(
        listed=batch.listed,
        known=batch.known,
        skipped=batch.skipped,
        queued=batch.queued,
        running=batch.running,
        retrying=batch.retrying,
        indexed=batch.indexed,
        failed=batch.failed,
        videos_per_minute=batch.videos_per_minute,
        eta=None if batch.eta_s is None else duration(batch.eta_s),
        running_items=[_batch_item(item) for item in batch.running_items],
        quota_units=batch.quota_units,
        listing_done=batch.listing_done,
        updated=batch.updated,
        deleted=batch.deleted,
        duplicates=batch.duplicates,
        unreadable=batch.unreadable,
    )


def _batch_item(item: BatchItem) -> ingest_pb2.BatchItem:
    return ingest_pb2.BatchItem(
        job_id=str(item.job_id),
        title=item.title,
        step=_step_number(item.step),
        fraction=item.fraction,
    )


def failure_message(failure: Failure) -> ingest_pb2.JobFailure:
    return ingest_pb2.JobFailure(
        reason=failure.reason,
        message=failure.message,
        remedy=failure.remedy,
        transient=failure.transient,
    )


def _ingest_parameters(parameters: IngestParameters) -> ingest_pb2.IngestParameters:
    """Without the options of fetching: a proxy's address may hold a password."""
    return ingest_pb2.IngestParameters(
        url=parameters.url,
        file_name=parameters.file_name,
        title=parameters.title,
        external_id=parameters.external_id,
        channel=parameters.channel,
        source_url=parameters.source_url,
        content_sha256=parameters.content_sha256,
        size_bytes=parameters.size_bytes,
        search=parameters.search,
        path=parameters.path,
    )


def _channel_parameters(parameters: ChannelParameters) -> ingest_pb2.ChannelParameters:
    return ingest_pb2.ChannelParameters(
        channel_id=str(parameters.channel_id),
        channel=parameters.channel,
        max_videos=parameters.max_videos,
        since=timestamp(parameters.since),
        dry_run=parameters.dry_run,
        only_process=parameters.only_process,
    )


def _folder_parameters(parameters: FolderParameters) -> ingest_pb2.FolderParameters:
    return ingest_pb2.FolderParameters(
        path=parameters.path,
        channel=parameters.channel,
        dry_run=parameters.dry_run,
        watch=parameters.watch,
    )


def _ingest_result(result: IngestResult) -> ingest_pb2.IngestResult:
    return ingest_pb2.IngestResult(
        video_id=str(result.video_id), already_indexed=result.already_indexed
    )


def _batch_result(result: BatchResult) -> ingest_pb2.BatchResult:
    return ingest_pb2.BatchResult(
        counts=_batch(result.counts),
        quota_units=result.quota_units,
        new_items=result.new_items,
        unreadable_items=result.unreadable_items,
    )


def kinds(numbers: Iterable[ingest_pb2.JobKind.ValueType]) -> tuple[JobKind, ...]:
    """Kinds of a request, whose numbers have been checked."""
    names = (ingest_pb2.JobKind.Name(number) for number in numbers)
    return tuple(JobKind(name.removeprefix("JOB_KIND_")) for name in names)


def job_message(job: Job) -> ingest_pb2.Job:
    message = ingest_pb2.Job(
        id=str(job.id),
        kind=ingest_pb2.JobKind.Value(f"JOB_KIND_{job.kind.value}"),
        state=state_number(job.state),
        progress=_progress(job.progress),
        failure=None if job.failure is None else failure_message(job.failure),
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        next_attempt_time=timestamp(job.next_attempt_time),
        create_time=timestamp(job.create_time),
        update_time=timestamp(job.update_time),
        start_time=timestamp(job.start_time),
        finish_time=timestamp(job.finish_time),
        parent_id=id_text(job.parent_id),
        source_host=job.source_host,
    )
    match job.parameters:
        case IngestParameters():
            message.ingest.CopyFrom(_ingest_parameters(job.parameters))
        case ChannelParameters():
            message.channel.CopyFrom(_channel_parameters(job.parameters))
        case FolderParameters():
            message.folder.CopyFrom(_folder_parameters(job.parameters))
        case DuplicatesParameters():
            message.duplicates.CopyFrom(
                ingest_pb2.DuplicatesParameters(
                    video_ids=[str(video_id) for video_id in job.parameters.video_ids],
                    min_shared=duration(job.parameters.min_shared_s),
                )
            )
    match job.result:
        case IngestResult():
            message.ingest_result.CopyFrom(_ingest_result(job.result))
        case BatchResult():
            message.batch_result.CopyFrom(_batch_result(job.result))
        case DuplicatesResult():
            message.duplicates_result.CopyFrom(
                ingest_pb2.DuplicatesResult(
                    videos=job.result.videos,
                    duration=duration(job.result.audio_s),
                    full=job.result.full,
                    contains=job.result.contains,
                    partial=job.result.partial,
                )
            )
    return message


def failures_message(summary: FailureSummary) -> ingest_pb2.SummarizeFailuresResponse:
    return ingest_pb2.SummarizeFailuresResponse(
        groups=[
            ingest_pb2.FailureGroup(
                reason=group.reason,
                remedy=group.remedy,
                failed=group.failed,
                retrying=group.retrying,
                example=group.example,
                example_job_id=str(group.example_job_id),
                latest_time=timestamp(group.latest_time),
            )
            for group in summary.groups
        ],
        paused_hosts=[
            ingest_pb2.PausedHost(
                host=paused.host,
                until=timestamp(paused.until),
                reason=paused.reason,
                refusals=paused.refusals,
            )
            for paused in summary.paused_hosts
        ],
    )


def fetch_options(message: ingest_pb2.FetchOptions) -> FetchOptions:
    """How to fetch, as a caller asks for it."""
    return FetchOptions(
        cookies=message.cookies,
        cookies_from_browser=message.cookies_from_browser,
        proxy=message.proxy,
        player_client=message.player_client,
        user_agent=message.user_agent,
        max_bytes=message.max_bytes,
        max_duration_s=seconds(message.max_duration),
        max_bytes_per_s=message.max_bytes_per_second,
    )


def fetch_options_message(options: FetchOptions) -> ingest_pb2.FetchOptions:
    """Without the proxy: it may hold a password."""
    return ingest_pb2.FetchOptions(
        cookies=options.cookies,
        cookies_from_browser=options.cookies_from_browser,
        player_client=options.player_client,
        user_agent=options.user_agent,
        max_bytes=options.max_bytes,
        max_duration=duration(options.max_duration_s) if options.max_duration_s else None,
        max_bytes_per_second=options.max_bytes_per_s,
    )
