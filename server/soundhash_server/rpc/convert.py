"""Between messages of soundhash.v1 and the platform's own data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from soundhash.v1 import (
    admin_pb2,
    catalog_pb2,
    fingerprint_pb2,
    ingest_pb2,
    match_pb2,
)
from soundhash_engine import Comparison, PcmFormat, Segment
from soundhash_engine.postings import Missing
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
    MatchRecord,
    OnAir,
    ScoreParts,
    Video,
)
from soundhash_server.services.admin import IndexReport, Stats
from soundhash_server.services.failures import FailureSummary
from soundhash_server.services.fingerprints import (
    GivenSource,
    MediaSource,
    Print,
    Source,
    StoredSource,
)
from soundhash_server.services.live import (
    FinalMatch,
    Gap,
    Heard,
    Opened,
    ProvisionalMatch,
    StreamWarning,
    Summary,
    Told,
)
from soundhash_server.services.matching import score_parts
from soundhash_server.services.url_matching import UrlEvent, UrlMatch, UrlProgress

_NANOS = 10**9
_PCM_ENCODINGS = {
    match_pb2.PCM_ENCODING_S16LE: "s16le",
    match_pb2.PCM_ENCODING_S32LE: "s32le",
    match_pb2.PCM_ENCODING_F32LE: "f32le",
    match_pb2.PCM_ENCODING_U8: "u8",
}
_STREAM_WARNINGS = {
    StreamWarning.SILENCE: match_pb2.STREAM_WARNING_SILENCE,
    StreamWarning.CLIPPING: match_pb2.STREAM_WARNING_CLIPPING,
    StreamWarning.LATE: match_pb2.STREAM_WARNING_LATE,
}


def duration(seconds: float) -> Duration:
    """Seconds, rounded to nanoseconds."""
    whole, nanos = divmod(abs(round(seconds * _NANOS)), _NANOS)
    sign = -1 if seconds < 0 else 1
    return Duration(seconds=sign * whole, nanos=sign * nanos)


def seconds(value: Duration) -> float:
    """A duration in seconds."""
    return value.seconds + value.nanos / _NANOS


def timestamp(moment: datetime | None) -> Timestamp | None:
    """None stays unset."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def uuid_or_none(text: str) -> UUID | None:
    """Empty means none."""
    return UUID(text) if text else None


def _text(value: UUID | None) -> str:
    return "" if value is None else str(value)


def video_message(video: Video) -> catalog_pb2.Video:
    return catalog_pb2.Video(
        id=str(video.id),
        title=video.title,
        source_url=video.source_url,
        external_id=video.external_id,
        channel=video.channel,
        duration=duration(video.duration_s),
        content_sha256=video.content_sha256,
        segment_count=video.segment_count,
        landmark_count=video.landmark_count,
        params_digest=video.params_digest,
        create_time=timestamp(video.create_time),
        update_time=timestamp(video.update_time),
        service=video.service,
        media_id=video.media_id,
        description=video.description,
        publish_time=timestamp(video.publish_time),
        thumbnail_url=video.thumbnail_url,
        monitor_id=_text(video.monitor_id),
        air_time=timestamp(video.air_time),
    )


def _state_number(state: JobState) -> ingest_pb2.JobState.ValueType:
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
        state=_state_number(job.state),
        progress=_progress(job.progress),
        failure=None if job.failure is None else failure_message(job.failure),
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        next_attempt_time=timestamp(job.next_attempt_time),
        create_time=timestamp(job.create_time),
        update_time=timestamp(job.update_time),
        start_time=timestamp(job.start_time),
        finish_time=timestamp(job.finish_time),
        parent_id=_text(job.parent_id),
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


def _parts(parts: ScoreParts) -> match_pb2.ScoreParts:
    return match_pb2.ScoreParts(
        score=parts.score,
        landmark_votes=parts.landmark_votes,
        landmark_contrast=parts.landmark_contrast,
        rectified_correlation=parts.rectified_correlation,
        correlation=parts.correlation,
        distance=parts.distance,
        overlap=parts.overlap,
        coverage=parts.coverage,
    )


def match_message(match: MatchRecord) -> match_pb2.Match:
    return match_pb2.Match(
        id=_text(match.id),
        query_id=_text(match.query_id),
        video_id=str(match.video_id),
        title=match.title,
        source_url=match.source_url,
        external_id=match.external_id,
        clip_start=duration(match.clip_start_s),
        clip_end=duration(match.clip_end_s),
        video_start=duration(match.video_start_s),
        video_end=duration(match.video_end_s),
        speed=match.speed,
        pitch=match.pitch,
        confidence=match.confidence,
        parts=_parts(match.parts),
        also_at=[duration(at_s) for at_s in match.also_at_s],
        create_time=timestamp(match.create_time),
        on_air=_on_air(match.on_air) if match.on_air else None,
    )


def _on_air(on_air: OnAir) -> match_pb2.OnAir:
    return match_pb2.OnAir(
        monitor_id=str(on_air.monitor_id),
        monitor_name=on_air.monitor_name,
        start_time=timestamp(on_air.start_time),
        end_time=timestamp(on_air.end_time),
    )


def missing_message(part: Missing) -> match_pb2.MissingPart:
    return match_pb2.MissingPart(part=part.part, share=part.share, reason=part.reason)


def stream_message(told: Told) -> match_pb2.MatchStreamResponse:
    event = told.event
    message = match_pb2.MatchStreamResponse(
        heard=duration(event.heard_s),
        sequence=told.sequence,
        received_bytes=told.received_bytes,
    )
    match event:
        case Opened():
            message.opened.CopyFrom(
                match_pb2.StreamOpened(
                    resume_token=event.token,
                    received_bytes=event.received_bytes,
                    resume_within=duration(event.resume_within_s),
                    resumed=event.resumed,
                )
            )
        case Heard():
            message.heard_so_far.CopyFrom(
                match_pb2.HeardSoFar(
                    level_db=event.level_db,
                    peak_db=event.peak_db,
                    warnings=[_STREAM_WARNINGS[warning] for warning in event.warnings],
                )
            )
        case ProvisionalMatch():
            message.provisional.CopyFrom(
                match_pb2.ProvisionalMatch(
                    match=match_message(event.match), stability=event.stability
                )
            )
        case FinalMatch():
            message.final.CopyFrom(match_message(event.match))
        case Gap():
            message.gap.CopyFrom(
                match_pb2.StreamGap(start=duration(event.start_s), end=duration(event.end_s))
            )
        case Summary():
            message.summary.CopyFrom(
                match_pb2.StreamSummary(
                    query_id=str(event.query_id or ""),
                    match_count=event.match_count,
                    missing=[missing_message(part) for part in event.missing],
                )
            )
    return message


def url_match_message(event: UrlEvent) -> match_pb2.MatchUrlResponse:
    match event:
        case UrlProgress():
            return match_pb2.MatchUrlResponse(
                progress=match_pb2.MatchUrlProgress(
                    bytes_done=event.bytes_done, audio_done=duration(event.audio_done_s)
                )
            )
        case UrlMatch():
            return match_pb2.MatchUrlResponse(match=match_message(event.match))
    answer = event.answer
    return match_pb2.MatchUrlResponse(
        end=match_pb2.MatchUrlEnd(
            matches=len(answer.matches),
            title=event.title,
            clip_duration=duration(answer.clip_duration_s),
            query_id=str(answer.query_id),
            elapsed=duration(event.elapsed_s),
            missing=[missing_message(part) for part in answer.missing],
        )
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


def pcm_format(message: match_pb2.PcmFormat) -> PcmFormat:
    return PcmFormat(
        sample_rate_hz=message.sample_rate_hz,
        channels=message.channels,
        encoding=_PCM_ENCODINGS[message.encoding],
    )


def segment_message(segment: Segment) -> fingerprint_pb2.Segment:
    return fingerprint_pb2.Segment(
        index=segment.index,
        start=duration(segment.start_s),
        duration=duration(segment.duration_s),
        landmark_count=segment.landmark_count,
        landmarks=segment.landmarks,
        descriptor=segment.descriptor,
        vector=segment.vector,
        md5=segment.md5,
    )


def segment_from(message: fingerprint_pb2.Segment, params_digest: str) -> Segment:
    return Segment(
        index=message.index,
        start_s=seconds(message.start),
        duration_s=seconds(message.duration),
        landmarks=message.landmarks,
        descriptor=message.descriptor,
        vector=message.vector,
        md5=message.md5,
        params_digest=params_digest,
        landmark_count=message.landmark_count,
    )


def fingerprint_message(found: Print) -> fingerprint_pb2.Fingerprint:
    return fingerprint_pb2.Fingerprint(
        video_id=_text(found.video_id),
        params_digest=found.params_digest,
        duration=duration(found.duration_s),
        landmark_count=found.landmark_count,
        segment_count=found.segment_count,
        segments=[segment_message(segment) for segment in found.segments],
    )


def source_from(message: fingerprint_pb2.FingerprintSource) -> Source:
    match message.WhichOneof("source"):
        case "video_id":
            return StoredSource(UUID(message.video_id))
        case "fingerprint":
            digest = message.fingerprint.params_digest
            return GivenSource(
                tuple(segment_from(one, digest) for one in message.fingerprint.segments)
            )
        case _:
            return MediaSource(message.content)


def comparison_message(found: Comparison) -> fingerprint_pb2.CompareResponse:
    return fingerprint_pb2.CompareResponse(
        same_audio=bool(found.passages),
        confidence=found.confidence,
        offset=duration(found.offset_s),
        speed=found.speed,
        pitch=found.pitch,
        correlation=found.correlation,
        distance=found.distance,
        vector_similarity=found.vector_cosine,
        passages=[
            fingerprint_pb2.SharedPassage(
                first_start=duration(one.video_start_s),
                first_end=duration(one.video_end_s),
                second_start=duration(one.clip_start_s),
                second_end=duration(one.clip_end_s),
                speed=one.speed,
                pitch=one.pitch,
                confidence=one.confidence,
                parts=_parts(score_parts(one)),
                also_at=[duration(at_s) for at_s in one.also_at_s],
            )
            for one in found.passages
        ],
    )


def index_message(report: IndexReport) -> admin_pb2.IndexStatus:
    state = report.state
    status = state.status
    return admin_pb2.IndexStatus(
        video_count=status.recordings,
        audio_duration=duration(status.hours * 3600.0),
        volume_count=status.volumes,
        tail_video_count=status.tail_recordings,
        dead_video_count=status.dead_recordings,
        triple_count=status.triples,
        disk_bytes=state.disk_bytes,
        tail_bytes=state.memory_bytes,
        applied_revision=state.applied_revision,
        catalogue_revision=state.catalogue_revision,
        compacting=state.compacting,
        params_digest=state.params_digest,
        outdated_video_count=status.outdated_recordings,
        unusable_video_count=state.unusable_recordings,
        posting_shards=[
            admin_pb2.PostingShard(
                name=shard.name,
                address=shard.address,
                reason=shard.reason,
                volume_count=shard.volumes,
                posting_count=shard.postings,
            )
            for shard in report.shards
        ],
    )


def stats_message(stats: Stats) -> admin_pb2.GetStatsResponse:
    totals = stats.totals
    return admin_pb2.GetStatsResponse(
        server_version=stats.server_version,
        params_digest=stats.index.state.params_digest,
        video_count=totals.videos,
        audio_duration=duration(totals.audio_s),
        segment_count=totals.segments,
        landmark_count=totals.landmarks,
        match_count=totals.matches,
        jobs=_job_counts(totals.jobs.items()),
        start_time=timestamp(stats.start_time),
        index=index_message(stats.index),
    )


def _job_counts(counts: Iterable[tuple[JobState, int]]) -> Sequence[admin_pb2.JobCount]:
    return [
        admin_pb2.JobCount(state=_state_number(state), count=count)
        for state, count in counts
        if count
    ]
