"""CatalogService."""

from __future__ import annotations

from uuid import UUID

from google.protobuf import empty_pb2

from soundhash.v1 import catalog_pb2, catalog_pb2_grpc, ingest_pb2
from soundhash_server.rpc.convert import job_message, seconds, uuid_or_none, video_message
from soundhash_server.rpc.duplicates import duplicate_kinds, duplicates_message
from soundhash_server.rpc.interceptors import Context
from soundhash_server.services.catalog import Catalog
from soundhash_server.services.duplicates import DuplicateSearches


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    def __init__(self, catalog: Catalog, duplicates: DuplicateSearches) -> None:
        self._catalog = catalog
        self._duplicates = duplicates

    async def GetVideo(
        self, request: catalog_pb2.GetVideoRequest, context: Context
    ) -> catalog_pb2.Video:
        return video_message(await self._catalog.get(UUID(request.id)))

    async def ListVideos(
        self, request: catalog_pb2.ListVideosRequest, context: Context
    ) -> catalog_pb2.ListVideosResponse:
        page = await self._catalog.list(
            request.page_size,
            request.page_token,
            channel=request.channel,
            external_id=request.external_id,
            monitor_id=uuid_or_none(request.monitor_id),
        )
        return catalog_pb2.ListVideosResponse(
            videos=[video_message(video) for video in page.items],
            next_page_token=page.next_page_token,
        )

    async def SearchVideos(
        self, request: catalog_pb2.SearchVideosRequest, context: Context
    ) -> catalog_pb2.SearchVideosResponse:
        page = await self._catalog.search(request.query, request.page_size, request.page_token)
        return catalog_pb2.SearchVideosResponse(
            videos=[video_message(video) for video in page.items],
            next_page_token=page.next_page_token,
        )

    async def UpdateVideo(
        self, request: catalog_pb2.UpdateVideoRequest, context: Context
    ) -> catalog_pb2.Video:
        changes = {path: getattr(request, path) for path in request.update_mask.paths}
        return video_message(await self._catalog.update(UUID(request.id), changes))

    async def DeleteVideo(
        self, request: catalog_pb2.DeleteVideoRequest, context: Context
    ) -> empty_pb2.Empty:
        await self._catalog.delete(UUID(request.id))
        return empty_pb2.Empty()

    async def FindDuplicates(
        self, request: catalog_pb2.FindDuplicatesRequest, context: Context
    ) -> ingest_pb2.Job:
        job = await self._duplicates.find(
            [UUID(video_id) for video_id in request.video_ids], seconds(request.min_shared)
        )
        return job_message(job)

    async def ListDuplicates(
        self, request: catalog_pb2.ListDuplicatesRequest, context: Context
    ) -> catalog_pb2.ListDuplicatesResponse:
        return duplicates_message(
            await self._duplicates.list(
                uuid_or_none(request.job_id),
                request.page_size,
                request.page_token,
                video_id=uuid_or_none(request.video_id),
                kinds=duplicate_kinds(request.kinds),
            )
        )
