"""Videos, channels, clips, and videos that are alike."""

from __future__ import annotations

from soundhash import _types as t
from soundhash._convert.jobs import STATES, fetch_options, job_failure
from soundhash._convert.values import members, seconds, time_of
from soundhash.v1 import (
    catalog_pb2,
    channels_pb2,
    clips_pb2,
)

_DUPLICATES = members(t.DuplicateKind, list(catalog_pb2.DuplicateKind.items()), "DUPLICATE_KIND_")


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
        create_time=time_of(m, "create_time"),
        update_time=time_of(m, "update_time"),
        service=m.service,
        media_id=m.media_id,
        description=m.description,
        publish_time=time_of(m, "publish_time"),
        thumbnail_url=m.thumbnail_url,
        monitor_id=m.monitor_id,
        air_time=time_of(m, "air_time"),
    )


def kept_object(m: clips_pb2.KeptObject) -> t.KeptObject:
    return t.KeptObject(
        key=m.key,
        size_bytes=m.size_bytes,
        sha256=m.sha256,
        content_type=m.content_type,
        download_url=m.download_url,
        expire_time=time_of(m, "expire_time"),
    )


def clip(m: clips_pb2.Clip) -> t.Clip:
    return t.Clip(
        id=m.id,
        job_id=m.job_id,
        state=STATES.get(m.state, t.JobState.UNKNOWN),
        failure=job_failure(m.failure) if m.HasField("failure") else None,
        video_id=m.video_id,
        title=m.title,
        duration_s=seconds(m.duration) if m.HasField("duration") else None,
        objects=tuple(kept_object(one) for one in m.objects),
        create_time=time_of(m, "create_time"),
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
        next_run_time=time_of(m, "next_run_time"),
        list_time=time_of(m, "list_time"),
        listed=m.listed,
        indexed=m.indexed,
        failed=m.failed,
        job_id=m.job_id,
        options=fetch_options(m.options),
        create_time=time_of(m, "create_time"),
    )


def channel_video(m: channels_pb2.ChannelVideo) -> t.ChannelVideo:
    return t.ChannelVideo(
        media_id=m.media_id,
        title=m.title,
        url=m.url,
        publish_time=time_of(m, "publish_time"),
        duration_s=m.duration_seconds,
        job_id=m.job_id,
        state=STATES.get(m.state, t.JobState.UNKNOWN) if m.state else None,
        video_id=m.video_id,
        skip_reason=m.skip_reason,
    )


def quota(m: channels_pb2.Quota) -> t.Quota:
    return t.Quota(
        daily_units=m.daily_units,
        used_units=m.used_units,
        reset_time=time_of(m, "reset_time"),
        configured=m.configured,
    )
