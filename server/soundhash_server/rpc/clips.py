"""ClipService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf import empty_pb2

from soundhash.v1 import clips_pb2, clips_pb2_grpc
from soundhash_server.rpc.convert import duration, fetch_options, job_message, timestamp
from soundhash_server.rpc.interceptors import Context
from soundhash_server.rpc.media import kept_message
from soundhash_server.services.clips import Clip, TwitchClips


def clip_message(clip: Clip) -> clips_pb2.Clip:
    row = clip.row
    job = job_message(row.job)
    return clips_pb2.Clip(
        id=row.clip_id,
        job_id=job.id,
        state=job.state,
        failure=job.failure if job.HasField("failure") else None,
        video_id="" if row.video_id is None else str(row.video_id),
        title=row.title,
        duration=None if row.duration_s is None else duration(row.duration_s),
        objects=[kept_message(one) for one in clip.objects],
        create_time=timestamp(row.create_time),
    )


class ClipServicer(clips_pb2_grpc.ClipServiceServicer):
    def __init__(self, clips: TwitchClips) -> None:
        self._clips = clips

    async def SubmitClips(
        self, request: clips_pb2.SubmitClipsRequest, context: Context
    ) -> clips_pb2.SubmitClipsResponse:
        found = await self._clips.submit(request.clips, fetch_options(request.options))
        return clips_pb2.SubmitClipsResponse(clips=[clip_message(clip) for clip in found])

    async def ProcessClips(
        self, request: clips_pb2.ProcessClipsRequest, context: Context
    ) -> AsyncIterator[clips_pb2.Clip]:
        async for clip in self._clips.process(request.clips, fetch_options(request.options)):
            yield clip_message(clip)

    async def GetClip(self, request: clips_pb2.GetClipRequest, context: Context) -> clips_pb2.Clip:
        found = await self._clips.get(request.id, download_urls=request.download_urls)
        return clip_message(found)

    async def ListClips(
        self, request: clips_pb2.ListClipsRequest, context: Context
    ) -> clips_pb2.ListClipsResponse:
        page = await self._clips.list(request.page_size, request.page_token)
        return clips_pb2.ListClipsResponse(
            clips=[clip_message(clip) for clip in page.items],
            next_page_token=page.next_page_token,
        )

    async def DeleteClip(
        self, request: clips_pb2.DeleteClipRequest, context: Context
    ) -> empty_pb2.Empty:
        await self._clips.delete(request.id)
        return empty_pb2.Empty()
