"""How the server stands."""

from __future__ import annotations

from grpc_health.v1 import health_pb2

from soundhash import _types as t
from soundhash._convert.jobs import STATES
from soundhash._convert.values import seconds, time_of
from soundhash.v1 import (
    admin_pb2,
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
        jobs={STATES.get(c.state, t.JobState.UNKNOWN): c.count for c in m.jobs},
        start_time=time_of(m, "start_time"),
        index=index_status(m.index),
    )


def health(m: health_pb2.HealthCheckResponse) -> t.Health:
    if m.status == health_pb2.HealthCheckResponse.SERVING:
        return t.Health.SERVING
    if m.status == health_pb2.HealthCheckResponse.NOT_SERVING:
        return t.Health.NOT_SERVING
    return t.Health.UNKNOWN
