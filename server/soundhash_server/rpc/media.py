"""MediaService."""

from __future__ import annotations

from uuid import UUID

from soundhash.v1 import clips_pb2, media_pb2, media_pb2_grpc
from soundhash_server.rpc.convert import seconds, timestamp
from soundhash_server.rpc.interceptors import Context
from soundhash_server.services.media import Kept, Media


def kept_message(one: Kept) -> clips_pb2.KeptObject:
    return clips_pb2.KeptObject(
        key=one.kept.key,
        size_bytes=one.kept.size_bytes,
        sha256=one.kept.content_sha256,
        content_type=one.kept.content_type,
        download_url=one.download_url,
        expire_time=timestamp(one.kept.expire_time),
    )


class MediaServicer(media_pb2_grpc.MediaServiceServicer):
    def __init__(self, media: Media) -> None:
        self._media = media

    async def ListObjects(
        self, request: media_pb2.ListObjectsRequest, context: Context
    ) -> media_pb2.ListObjectsResponse:
        sign_for_s = seconds(request.sign_for) if request.HasField("sign_for") else None
        found = await self._media.list(UUID(request.video_id), sign_for_s)
        return media_pb2.ListObjectsResponse(objects=[kept_message(one) for one in found])

    async def DeleteObjects(
        self, request: media_pb2.DeleteObjectsRequest, context: Context
    ) -> media_pb2.DeleteObjectsResponse:
        deleted = await self._media.delete(UUID(request.video_id))
        return media_pb2.DeleteObjectsResponse(deleted=deleted)
