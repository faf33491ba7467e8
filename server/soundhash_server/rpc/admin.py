"""AdminService."""

from __future__ import annotations

from soundhash.v1 import admin_pb2, admin_pb2_grpc
from soundhash_server.rpc.convert import index_message, stats_message
from soundhash_server.rpc.interceptors import Context
from soundhash_server.services.admin import Admin


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    async def GetStats(
        self, request: admin_pb2.GetStatsRequest, context: Context
    ) -> admin_pb2.GetStatsResponse:
        return stats_message(await self._admin.stats())

    async def GetIndexStatus(
        self, request: admin_pb2.GetIndexStatusRequest, context: Context
    ) -> admin_pb2.IndexStatus:
        return index_message(await self._admin.index_state())

    async def CompactIndex(
        self, request: admin_pb2.CompactIndexRequest, context: Context
    ) -> admin_pb2.IndexStatus:
        return index_message(await self._admin.compact())
