"""ChannelService."""

from __future__ import annotations

from uuid import UUID

from google.protobuf import empty_pb2

from soundhash.v1 import channels_pb2, channels_pb2_grpc, ingest_pb2
from soundhash_server.model import Channel, ChannelVideo, Quota
from soundhash_server.rpc.convert import fetch_options, fetch_options_message, timestamp
from soundhash_server.rpc.interceptors import Context
from soundhash_server.services.channels import ChannelAdmin


class ChannelServicer(channels_pb2_grpc.ChannelServiceServicer):
    def __init__(self, channels: ChannelAdmin) -> None:
        self._channels = channels

    async def GetChannel(
        self, request: channels_pb2.GetChannelRequest, context: Context
    ) -> channels_pb2.Channel:
        return _channel(await self._channels.get(UUID(request.id)))

    async def ListChannels(
        self, request: channels_pb2.ListChannelsRequest, context: Context
    ) -> channels_pb2.ListChannelsResponse:
        page = await self._channels.list(request.page_size, request.page_token)
        return channels_pb2.ListChannelsResponse(
            channels=[_channel(channel) for channel in page.items],
            next_page_token=page.next_page_token,
        )

    async def UpdateChannel(
        self, request: channels_pb2.UpdateChannelRequest, context: Context
    ) -> channels_pb2.Channel:
        paths = request.update_mask.paths
        channel = await self._channels.update(
            UUID(request.id),
            schedule=request.schedule if "schedule" in paths else None,
            options=fetch_options(request.options) if "options" in paths else None,
        )
        return _channel(channel)

    async def DeleteChannel(
        self, request: channels_pb2.DeleteChannelRequest, context: Context
    ) -> empty_pb2.Empty:
        await self._channels.delete(UUID(request.id))
        return empty_pb2.Empty()

    async def ListChannelVideos(
        self, request: channels_pb2.ListChannelVideosRequest, context: Context
    ) -> channels_pb2.ListChannelVideosResponse:
        page = await self._channels.videos(UUID(request.id), request.page_size, request.page_token)
        return channels_pb2.ListChannelVideosResponse(
            videos=[_video(video) for video in page.items], next_page_token=page.next_page_token
        )

    async def GetQuota(
        self, request: channels_pb2.GetQuotaRequest, context: Context
    ) -> channels_pb2.Quota:
        return _quota(await self._channels.quota())


def _channel(channel: Channel) -> channels_pb2.Channel:
    return channels_pb2.Channel(
        id=str(channel.id),
        service=channel.service,
        service_id=channel.service_id,
        title=channel.title,
        url=channel.url,
        thumbnail_url=channel.thumbnail_url,
        schedule=channel.schedule,
        next_run_time=timestamp(channel.next_run_time),
        list_time=timestamp(channel.list_time),
        listed=channel.listed,
        indexed=channel.indexed,
        failed=channel.failed,
        job_id="" if channel.job_id is None else str(channel.job_id),
        options=fetch_options_message(channel.options),
        create_time=timestamp(channel.create_time),
    )


def _video(video: ChannelVideo) -> channels_pb2.ChannelVideo:
    return channels_pb2.ChannelVideo(
        media_id=video.media_id,
        title=video.title,
        url=video.url,
        publish_time=timestamp(video.publish_time),
        duration_seconds=video.duration_s or 0.0,
        job_id="" if video.job_id is None else str(video.job_id),
        state=ingest_pb2.JobState.Value(
            f"JOB_STATE_{video.state.value if video.state else 'UNSPECIFIED'}"
        ),
        video_id="" if video.video_id is None else str(video.video_id),
        skip_reason=video.skip_reason,
    )


def _quota(quota: Quota) -> channels_pb2.Quota:
    return channels_pb2.Quota(
        daily_units=quota.daily_units,
        used_units=quota.used_units,
        reset_time=timestamp(quota.reset_time),
        configured=quota.configured,
    )
