"""Jobs, and why they fail."""

from __future__ import annotations

from soundhash import _types as t
from soundhash._convert.values import members, seconds, time_of, to_duration
from soundhash.v1 import (
    ingest_pb2,
)

# Numbers that are missing here are what a newer server has invented: UNKNOWN.
_KINDS = members(t.JobKind, list(ingest_pb2.JobKind.items()), "JOB_KIND_")
STATES = members(t.JobState, list(ingest_pb2.JobState.items()), "JOB_STATE_")
_STEPS = members(t.JobStep, list(ingest_pb2.JobStep.items()), "JOB_STEP_")


def kind_number(kind: str) -> ingest_pb2.JobKind.ValueType:
    """The API's number of a kind of job, given as a member or by its name in any case.

    Raises ValueError for what is no kind that one can ask for.
    """
    name = kind.upper()
    if name not in _KINDS.values():
        raise ValueError(f"{str(kind)!r} is not one of {', '.join(_KINDS.values())}")
    return ingest_pb2.JobKind.Value(f"JOB_KIND_{name}")


def state_number(state: str) -> ingest_pb2.JobState.ValueType:
    """The API's number of a job state, given as a member or by its name in any case.

    Raises ValueError for what is no state that one can ask for.
    """
    name = state.upper()
    if name not in STATES.values():
        raise ValueError(f"{str(state)!r} is not one of {', '.join(STATES.values())}")
    return ingest_pb2.JobState.Value(f"JOB_STATE_{name}")


def _duplicates_result(m: ingest_pb2.DuplicatesResult) -> t.DuplicatesResult:
    return t.DuplicatesResult(m.videos, seconds(m.duration), m.full, m.contains, m.partial)


def _progress(m: ingest_pb2.JobProgress) -> t.JobProgress:
    return t.JobProgress(
        step=_STEPS.get(m.step, t.JobStep.UNKNOWN),
        fraction=m.fraction,
        audio_done_s=seconds(m.audio_done),
        audio_total_s=seconds(m.audio_total) if m.HasField("audio_total") else None,
        bytes_done=m.bytes_done,
        bytes_total=m.bytes_total,
        batch=_batch(m.batch) if m.HasField("batch") else None,
    )


def _batch(m: ingest_pb2.BatchProgress) -> t.BatchProgress:
    return t.BatchProgress(
        listed=m.listed,
        known=m.known,
        skipped=m.skipped,
        queued=m.queued,
        running=m.running,
        retrying=m.retrying,
        indexed=m.indexed,
        failed=m.failed,
        videos_per_minute=m.videos_per_minute,
        eta_s=seconds(m.eta) if m.HasField("eta") else None,
        running_items=tuple(
            t.BatchItem(
                one.job_id, one.title, _STEPS.get(one.step, t.JobStep.UNKNOWN), one.fraction
            )
            for one in m.running_items
        ),
        quota_units=m.quota_units,
        listing_done=m.listing_done,
        updated=m.updated,
        deleted=m.deleted,
        duplicates=m.duplicates,
        unreadable=m.unreadable,
    )


def _batch_result(m: ingest_pb2.BatchResult) -> t.BatchResult:
    return t.BatchResult(
        _batch(m.counts), m.quota_units, tuple(m.new_items), tuple(m.unreadable_items)
    )


def upload_status(m: ingest_pb2.UploadStatus) -> t.UploadStatus:
    return t.UploadStatus(m.received_bytes, time_of(m, "expire_time"))


def job_failure(m: ingest_pb2.JobFailure) -> t.JobFailure:
    return t.JobFailure(reason=m.reason, message=m.message, remedy=m.remedy, transient=m.transient)


def job(m: ingest_pb2.Job) -> t.Job:
    failure = parameters = result = None
    if m.HasField("failure"):
        failure = job_failure(m.failure)
    if m.HasField("ingest"):
        parameters = t.IngestParameters(
            url=m.ingest.url,
            file_name=m.ingest.file_name,
            title=m.ingest.title,
            external_id=m.ingest.external_id,
            channel=m.ingest.channel,
            source_url=m.ingest.source_url,
            content_sha256=m.ingest.content_sha256,
            size_bytes=m.ingest.size_bytes,
            search=m.ingest.search,
            path=m.ingest.path,
        )
    if m.HasField("ingest_result"):
        result = t.IngestResult(
            video_id=m.ingest_result.video_id,
            already_indexed=m.ingest_result.already_indexed,
        )
    return t.Job(
        id=m.id,
        kind=_KINDS.get(m.kind, t.JobKind.UNKNOWN),
        state=STATES.get(m.state, t.JobState.UNKNOWN),
        progress=_progress(m.progress),
        failure=failure,
        attempt=m.attempt,
        max_attempts=m.max_attempts,
        next_attempt_time=time_of(m, "next_attempt_time"),
        create_time=time_of(m, "create_time"),
        update_time=time_of(m, "update_time"),
        start_time=time_of(m, "start_time"),
        finish_time=time_of(m, "finish_time"),
        parameters=parameters,
        result=result,
        channel=_channel_parameters(m.channel) if m.HasField("channel") else None,
        folder=t.FolderParameters(
            path=m.folder.path,
            channel=m.folder.channel,
            dry_run=m.folder.dry_run,
            watch=m.folder.watch,
        )
        if m.HasField("folder")
        else None,
        batch_result=_batch_result(m.batch_result) if m.HasField("batch_result") else None,
        duplicates=t.DuplicatesParameters(
            tuple(m.duplicates.video_ids), seconds(m.duplicates.min_shared)
        )
        if m.HasField("duplicates")
        else None,
        duplicates_result=_duplicates_result(m.duplicates_result)
        if m.HasField("duplicates_result")
        else None,
        parent_id=m.parent_id,
        source_host=m.source_host,
    )


def _channel_parameters(m: ingest_pb2.ChannelParameters) -> t.ChannelParameters:
    return t.ChannelParameters(
        channel_id=m.channel_id,
        channel=m.channel,
        max_videos=m.max_videos,
        since=time_of(m, "since"),
        dry_run=m.dry_run,
        only_process=m.only_process,
    )


def failure_summary(m: ingest_pb2.SummarizeFailuresResponse) -> t.FailureSummary:
    return t.FailureSummary(
        groups=tuple(
            t.FailureGroup(
                reason=group.reason,
                remedy=group.remedy,
                failed=group.failed,
                retrying=group.retrying,
                example=group.example,
                example_job_id=group.example_job_id,
                latest_time=time_of(group, "latest_time"),
            )
            for group in m.groups
        ),
        paused_hosts=tuple(
            t.PausedHost(
                host=paused.host,
                until=time_of(paused, "until"),
                reason=paused.reason,
                refusals=paused.refusals,
            )
            for paused in m.paused_hosts
        ),
    )


def retried_jobs(m: ingest_pb2.RetryJobsResponse) -> t.RetriedJobs:
    return t.RetriedJobs(m.queued, m.not_retryable)


def to_fetch_options(value: t.FetchOptions) -> ingest_pb2.FetchOptions:
    return ingest_pb2.FetchOptions(
        cookies=value.cookies,
        cookies_from_browser=value.cookies_from_browser,
        proxy=value.proxy,
        player_client=value.player_client,
        user_agent=value.user_agent,
        max_bytes=value.max_bytes,
        max_duration=None if value.max_duration_s is None else to_duration(value.max_duration_s),
        max_bytes_per_second=value.max_bytes_per_s,
    )


def fetch_options(m: ingest_pb2.FetchOptions) -> t.FetchOptions:
    return t.FetchOptions(
        cookies=m.cookies,
        cookies_from_browser=m.cookies_from_browser,
        proxy=m.proxy,
        player_client=m.player_client,
        user_agent=m.user_agent,
        max_bytes=m.max_bytes,
        max_duration_s=seconds(m.max_duration) if m.HasField("max_duration") else None,
        max_bytes_per_s=m.max_bytes_per_second,
    )
