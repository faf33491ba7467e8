"""From the API's messages to the client's values, and back where values are sent."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2

from soundhash import _types as t
from soundhash.v1 import (
    admin_pb2,
    catalog_pb2,
    channels_pb2,
    clips_pb2,
    fingerprint_pb2,
    ingest_pb2,
    match_pb2,
)

_EnumT = TypeVar("_EnumT", bound=enum.StrEnum)


def seconds(duration: Duration) -> float:
    """A duration in seconds, to the nanosecond that it holds."""
    return duration.seconds + duration.nanos / 1e9


def to_duration(value_s: float) -> Duration:
    """Seconds as a duration, rounded to nanoseconds."""
    out = Duration()
    out.FromNanoseconds(round(value_s * 1e9))
    return out


def _time(owner: Message, field: str) -> datetime | None:
    if not owner.HasField(field):
        return None
    stamp: Timestamp = getattr(owner, field)
    return stamp.ToDatetime(tzinfo=UTC)


def _members(kind: type[_EnumT], numbers: list[tuple[str, int]], prefix: str) -> dict[int, _EnumT]:
    named = {number: kind.__members__.get(name.removeprefix(prefix)) for name, number in numbers}
    return {number: member for number, member in named.items() if member is not None}


# Numbers that are missing here are what a newer server has invented: UNKNOWN.
_KINDS = _members(t.JobKind, list(ingest_pb2.JobKind.items()), "JOB_KIND_")
_STATES = _members(t.JobState, list(ingest_pb2.JobState.items()), "JOB_STATE_")
_STEPS = _members(t.JobStep, list(ingest_pb2.JobStep.items()), "JOB_STEP_")
_DUPLICATES = _members(t.DuplicateKind, list(catalog_pb2.DuplicateKind.items()), "DUPLICATE_KIND_")
_WARNINGS = _members(t.StreamWarning, list(match_pb2.StreamWarning.items()), "STREAM_WARNING_")


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
    if name not in _STATES.values():
        raise ValueError(f"{str(state)!r} is not one of {', '.join(_STATES.values())}")
    return ingest_pb2.JobState.Value(f"JOB_STATE_{name}")


def duplicate_kind_number(kind: str) -> catalog_pb2.DuplicateKind.ValueType:
    """The API's number of a way to be alike, given as a member or by its name in any case.

    Raises ValueError for what is none that one can ask for.
    """
    name = kind.upper()
    if name not in _DUPLICATES.values():
        raise ValueError(f"{str(kind)!r} is not one of {', '.join(_DUPLICATES.values())}")
    return catalog_pb2.DuplicateKind.Value(f"DUPLICATE_KIND_{name}")


def duplicate_pair(m: catalog_pb2.DuplicatePair) -> t.DuplicatePair:
    return t.DuplicatePair(
        kind=_DUPLICATES.get(m.kind, t.DuplicateKind.UNKNOWN),
        first=video(m.first),
        second=video(m.second),
        ranges=tuple(
            t.SharedRange(
                first_start_s=seconds(one.first_start),
                first_end_s=seconds(one.first_end),
                second_start_s=seconds(one.second_start),
                second_end_s=seconds(one.second_end),
                speed=one.speed,
                pitch=one.pitch,
                confidence=one.confidence,
            )
            for one in m.ranges
        ),
        first_share=m.first_share,
        second_share=m.second_share,
    )


def _duplicates_result(m: ingest_pb2.DuplicatesResult) -> t.DuplicatesResult:
    return t.DuplicatesResult(m.videos, seconds(m.duration), m.full, m.contains, m.partial)


def video(m: catalog_pb2.Video) -> t.Video:
    return t.Video(
        id=m.id,
        title=m.title,
        source_url=m.source_url,
        external_id=m.external_id,
        channel=m.channel,
        duration_s=seconds(m.duration),
        content_sha256=m.content_sha256,
        segment_count=m.segment_count,
        landmark_count=m.landmark_count,
        params_digest=m.params_digest,
        create_time=_time(m, "create_time"),
        update_time=_time(m, "update_time"),
        service=m.service,
        media_id=m.media_id,
        description=m.description,
        publish_time=_time(m, "publish_time"),
        thumbnail_url=m.thumbnail_url,
        monitor_id=m.monitor_id,
        air_time=_time(m, "air_time"),
    )


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
    return t.UploadStatus(m.received_bytes, _time(m, "expire_time"))


def _failure(m: ingest_pb2.JobFailure) -> t.JobFailure:
    return t.JobFailure(reason=m.reason, message=m.message, remedy=m.remedy, transient=m.transient)


def job(m: ingest_pb2.Job) -> t.Job:
    failure = parameters = result = None
    if m.HasField("failure"):
        failure = _failure(m.failure)
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
        state=_STATES.get(m.state, t.JobState.UNKNOWN),
        progress=_progress(m.progress),
        failure=failure,
        attempt=m.attempt,
        max_attempts=m.max_attempts,
        next_attempt_time=_time(m, "next_attempt_time"),
        create_time=_time(m, "create_time"),
        update_time=_time(m, "update_time"),
        start_time=_time(m, "start_time"),
        finish_time=_time(m, "finish_time"),
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
        since=_time(m, "since"),
        dry_run=m.dry_run,
        only_process=m.only_process,
    )


def score_parts(m: match_pb2.ScoreParts) -> t.ScoreParts:
    return t.ScoreParts(
        score=m.score,
        landmark_votes=m.landmark_votes,
        landmark_contrast=m.landmark_contrast,
        rectified_correlation=m.rectified_correlation,
        correlation=m.correlation,
        distance=m.distance,
        overlap=m.overlap,
        coverage=m.coverage,
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
                latest_time=_time(group, "latest_time"),
            )
            for group in m.groups
        ),
        paused_hosts=tuple(
            t.PausedHost(
                host=paused.host,
                until=_time(paused, "until"),
                reason=paused.reason,
                refusals=paused.refusals,
            )
            for paused in m.paused_hosts
        ),
    )


def retried_jobs(m: ingest_pb2.RetryJobsResponse) -> t.RetriedJobs:
    return t.RetriedJobs(m.queued, m.not_retryable)


def match(m: match_pb2.Match) -> t.Match:
    return t.Match(
        id=m.id,
        query_id=m.query_id,
        video_id=m.video_id,
        title=m.title,
        source_url=m.source_url,
        external_id=m.external_id,
        clip_start_s=seconds(m.clip_start),
        clip_end_s=seconds(m.clip_end),
        video_start_s=seconds(m.video_start),
        video_end_s=seconds(m.video_end),
        speed=m.speed,
        pitch=m.pitch,
        confidence=m.confidence,
        parts=score_parts(m.parts),
        also_at_s=tuple(seconds(place) for place in m.also_at),
        create_time=_time(m, "create_time"),
        on_air=_on_air(m.on_air) if m.HasField("on_air") else None,
    )


def _on_air(m: match_pb2.OnAir) -> t.OnAir:
    return t.OnAir(
        monitor_id=m.monitor_id,
        monitor_name=m.monitor_name,
        start_time=m.start_time.ToDatetime(tzinfo=UTC),
        end_time=m.end_time.ToDatetime(tzinfo=UTC),
    )


def match_result(m: match_pb2.MatchClipResponse) -> t.MatchResult:
    return t.MatchResult(
        query_id=m.query_id,
        matches=tuple(match(found) for found in m.matches),
        clip_duration_s=seconds(m.clip_duration),
        elapsed_s=seconds(m.elapsed),
        missing=_missing(m.missing),
    )


def _missing(parts: Iterable[match_pb2.MissingPart]) -> tuple[t.MissingPart, ...]:
    return tuple(t.MissingPart(m.part, m.share, m.reason) for m in parts)


def stream_event(m: match_pb2.MatchStreamResponse) -> t.StreamEvent | None:
    """The event, or None for a kind that this client does not know."""
    heard_s = seconds(m.heard)
    match m.WhichOneof("event"):
        case "opened":
            return t.StreamOpened(
                heard_s=heard_s,
                resume_token=m.opened.resume_token,
                received_bytes=m.opened.received_bytes,
                resume_within_s=seconds(m.opened.resume_within),
                resumed=m.opened.resumed,
            )
        case "heard_so_far":
            heard = m.heard_so_far
            warnings = tuple(
                _WARNINGS.get(number, t.StreamWarning.UNKNOWN) for number in heard.warnings
            )
            return t.Heard(heard_s, heard.level_db, heard.peak_db, warnings)
        case "gap":
            return t.Gap(heard_s, seconds(m.gap.start), seconds(m.gap.end))
        case "provisional":
            return t.ProvisionalMatch(heard_s, match(m.provisional.match), m.provisional.stability)
        case "final":
            return t.FinalMatch(heard_s, match(m.final))
        case "summary":
            return t.StreamSummary(
                heard_s, m.summary.query_id, m.summary.match_count, _missing(m.summary.missing)
            )
        case _:
            return None


def url_event(m: match_pb2.MatchUrlResponse) -> t.UrlEvent | None:
    """The event, or None for a kind that this client does not know."""
    match m.WhichOneof("event"):
        case "progress":
            return t.UrlProgress(m.progress.bytes_done, seconds(m.progress.audio_done))
        case "match":
            return t.UrlMatch(match(m.match))
        case "end":
            return t.UrlEnd(
                query_id=m.end.query_id,
                match_count=m.end.matches,
                title=m.end.title,
                clip_duration_s=seconds(m.end.clip_duration),
                elapsed_s=seconds(m.end.elapsed),
                missing=_missing(m.end.missing),
            )
        case _:
            return None


def url_result(events: Iterable[t.UrlEvent]) -> t.MatchResult:
    """All events of an answer as one."""
    matches = []
    end = t.UrlEnd("", 0, "", 0.0, 0.0)
    for event in events:
        if isinstance(event, t.UrlMatch):
            matches.append(event.match)
        elif isinstance(event, t.UrlEnd):
            end = event
    return t.MatchResult(
        end.query_id, tuple(matches), end.clip_duration_s, end.elapsed_s, end.missing, end.title
    )


def kept_object(m: clips_pb2.KeptObject) -> t.KeptObject:
    return t.KeptObject(
        key=m.key,
        size_bytes=m.size_bytes,
        sha256=m.sha256,
        content_type=m.content_type,
        download_url=m.download_url,
        expire_time=_time(m, "expire_time"),
    )


def clip(m: clips_pb2.Clip) -> t.Clip:
    return t.Clip(
        id=m.id,
        job_id=m.job_id,
        state=_STATES.get(m.state, t.JobState.UNKNOWN),
        failure=_failure(m.failure) if m.HasField("failure") else None,
        video_id=m.video_id,
        title=m.title,
        duration_s=seconds(m.duration) if m.HasField("duration") else None,
        objects=tuple(kept_object(one) for one in m.objects),
        create_time=_time(m, "create_time"),
    )


def channel(m: channels_pb2.Channel) -> t.Channel:
    return t.Channel(
        id=m.id,
        service=m.service,
        service_id=m.service_id,
        title=m.title,
        url=m.url,
        thumbnail_url=m.thumbnail_url,
        schedule=m.schedule,
        next_run_time=_time(m, "next_run_time"),
        list_time=_time(m, "list_time"),
        listed=m.listed,
        indexed=m.indexed,
        failed=m.failed,
        job_id=m.job_id,
        options=fetch_options(m.options),
        create_time=_time(m, "create_time"),
    )


def channel_video(m: channels_pb2.ChannelVideo) -> t.ChannelVideo:
    return t.ChannelVideo(
        media_id=m.media_id,
        title=m.title,
        url=m.url,
        publish_time=_time(m, "publish_time"),
        duration_s=m.duration_seconds,
        job_id=m.job_id,
        state=_STATES.get(m.state, t.JobState.UNKNOWN) if m.state else None,
        video_id=m.video_id,
        skip_reason=m.skip_reason,
    )


def quota(m: channels_pb2.Quota) -> t.Quota:
    return t.Quota(
        daily_units=m.daily_units,
        used_units=m.used_units,
        reset_time=_time(m, "reset_time"),
        configured=m.configured,
    )


def to_timestamp(value: datetime) -> Timestamp:
    """A moment as a timestamp; one without a time zone is local, as Python takes it."""
    out = Timestamp()
    out.FromDatetime(value.astimezone(UTC))
    return out


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


def pcm_format(value: t.PcmFormat) -> match_pb2.PcmFormat:
    return match_pb2.PcmFormat(
        encoding=match_pb2.PcmEncoding.Value(f"PCM_ENCODING_{value.encoding.name}"),
        sample_rate_hz=value.sample_rate_hz,
        channels=value.channels,
    )


def fingerprint(m: fingerprint_pb2.Fingerprint) -> t.Fingerprint:
    return t.Fingerprint(
        video_id=m.video_id,
        params_digest=m.params_digest,
        duration_s=seconds(m.duration),
        landmark_count=m.landmark_count,
        segment_count=m.segment_count,
        segments=tuple(
            t.Segment(
                index=s.index,
                start_s=seconds(s.start),
                duration_s=seconds(s.duration),
                landmark_count=s.landmark_count,
                landmarks=s.landmarks,
                descriptor=s.descriptor,
                vector=s.vector,
                md5=s.md5,
            )
            for s in m.segments
        ),
    )


def to_fingerprint(value: t.Fingerprint) -> fingerprint_pb2.Fingerprint:
    return fingerprint_pb2.Fingerprint(
        video_id=value.video_id,
        params_digest=value.params_digest,
        duration=to_duration(value.duration_s),
        landmark_count=value.landmark_count,
        segment_count=value.segment_count,
        segments=[
            fingerprint_pb2.Segment(
                index=s.index,
                start=to_duration(s.start_s),
                duration=to_duration(s.duration_s),
                landmark_count=s.landmark_count,
                landmarks=s.landmarks,
                descriptor=s.descriptor,
                vector=s.vector,
                md5=s.md5,
            )
            for s in value.segments
        ],
    )


def comparison(m: fingerprint_pb2.CompareResponse) -> t.Comparison:
    return t.Comparison(
        same_audio=m.same_audio,
        confidence=m.confidence,
        offset_s=seconds(m.offset),
        speed=m.speed,
        pitch=m.pitch,
        correlation=m.correlation,
        distance=m.distance,
        vector_similarity=m.vector_similarity,
        passages=tuple(_shared_passage(one) for one in m.passages),
    )


def _shared_passage(m: fingerprint_pb2.SharedPassage) -> t.SharedPassage:
    return t.SharedPassage(
        first_start_s=seconds(m.first_start),
        first_end_s=seconds(m.first_end),
        second_start_s=seconds(m.second_start),
        second_end_s=seconds(m.second_end),
        speed=m.speed,
        pitch=m.pitch,
        confidence=m.confidence,
        parts=score_parts(m.parts),
        also_at_s=tuple(seconds(place) for place in m.also_at),
    )


def index_status(m: admin_pb2.IndexStatus) -> t.IndexStatus:
    return t.IndexStatus(
        video_count=m.video_count,
        audio_duration_s=seconds(m.audio_duration),
        volume_count=m.volume_count,
        tail_video_count=m.tail_video_count,
        dead_video_count=m.dead_video_count,
        triple_count=m.triple_count,
        disk_bytes=m.disk_bytes,
        tail_bytes=m.tail_bytes,
        applied_revision=m.applied_revision,
        catalogue_revision=m.catalogue_revision,
        compacting=m.compacting,
        params_digest=m.params_digest,
        outdated_video_count=m.outdated_video_count,
        unusable_video_count=m.unusable_video_count,
        posting_shards=tuple(
            t.PostingShard(s.name, s.address, s.reason, s.volume_count, s.posting_count)
            for s in m.posting_shards
        ),
    )


def stats(m: admin_pb2.GetStatsResponse) -> t.Stats:
    return t.Stats(
        server_version=m.server_version,
        params_digest=m.params_digest,
        video_count=m.video_count,
        audio_duration_s=seconds(m.audio_duration),
        segment_count=m.segment_count,
        landmark_count=m.landmark_count,
        match_count=m.match_count,
        jobs={_STATES.get(c.state, t.JobState.UNKNOWN): c.count for c in m.jobs},
        start_time=_time(m, "start_time"),
        index=index_status(m.index),
    )


def health(m: health_pb2.HealthCheckResponse) -> t.Health:
    if m.status == health_pb2.HealthCheckResponse.SERVING:
        return t.Health.SERVING
    if m.status == health_pb2.HealthCheckResponse.NOT_SERVING:
        return t.Health.NOT_SERVING
    return t.Health.UNKNOWN
