"""Videos, and what the platform holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from soundhash.v1 import (
    admin_pb2,
    catalog_pb2,
)
from soundhash_server.model import (
    JobState,
    Video,
)
from soundhash_server.rpc.convert.jobs import state_number
from soundhash_server.rpc.convert.values import duration, id_text, timestamp
from soundhash_server.services.admin import IndexReport, Stats


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
        monitor_id=id_text(video.monitor_id),
        air_time=timestamp(video.air_time),
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
        admin_pb2.JobCount(state=state_number(state), count=count)
        for state, count in counts
        if count
    ]
