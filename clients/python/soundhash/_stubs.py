"""The generated stubs of all services on one channel: the way past this client."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc

from soundhash.v1 import (
    admin_pb2_grpc,
    catalog_pb2_grpc,
    channels_pb2_grpc,
    clips_pb2_grpc,
    fingerprint_pb2_grpc,
    ingest_pb2_grpc,
    match_pb2_grpc,
    media_pb2_grpc,
    monitors_pb2_grpc,
)


@dataclass(frozen=True, slots=True)
class Stubs:
    """Generated stubs for plain calls; errors are grpc.RpcError."""

    ingest: ingest_pb2_grpc.IngestServiceStub
    match: match_pb2_grpc.MatchServiceStub
    fingerprint: fingerprint_pb2_grpc.FingerprintServiceStub
    catalog: catalog_pb2_grpc.CatalogServiceStub
    channels: channels_pb2_grpc.ChannelServiceStub
    admin: admin_pb2_grpc.AdminServiceStub
    clips: clips_pb2_grpc.ClipServiceStub
    media: media_pb2_grpc.MediaServiceStub
    monitors: monitors_pb2_grpc.MonitorServiceStub
    health: health_pb2_grpc.HealthStub

    @classmethod
    def on(cls, channel: grpc.Channel) -> Stubs:
        return cls(
            ingest_pb2_grpc.IngestServiceStub(channel),
            match_pb2_grpc.MatchServiceStub(channel),
            fingerprint_pb2_grpc.FingerprintServiceStub(channel),
            catalog_pb2_grpc.CatalogServiceStub(channel),
            channels_pb2_grpc.ChannelServiceStub(channel),
            admin_pb2_grpc.AdminServiceStub(channel),
            clips_pb2_grpc.ClipServiceStub(channel),
            media_pb2_grpc.MediaServiceStub(channel),
            monitors_pb2_grpc.MonitorServiceStub(channel),
            health_pb2_grpc.HealthStub(channel),
        )


@dataclass(frozen=True, slots=True)
class AsyncStubs:
    """Generated stubs for asyncio; errors are grpc.aio.AioRpcError."""

    ingest: ingest_pb2_grpc.IngestServiceAsyncStub
    match: match_pb2_grpc.MatchServiceAsyncStub
    fingerprint: fingerprint_pb2_grpc.FingerprintServiceAsyncStub
    catalog: catalog_pb2_grpc.CatalogServiceAsyncStub
    channels: channels_pb2_grpc.ChannelServiceAsyncStub
    admin: admin_pb2_grpc.AdminServiceAsyncStub
    clips: clips_pb2_grpc.ClipServiceAsyncStub
    media: media_pb2_grpc.MediaServiceAsyncStub
    monitors: monitors_pb2_grpc.MonitorServiceAsyncStub
    health: health_pb2_grpc.HealthStub

    @classmethod
    def on(cls, channel: grpc.aio.Channel) -> AsyncStubs:
        return cls(
            ingest_pb2_grpc.IngestServiceStub(channel),
            match_pb2_grpc.MatchServiceStub(channel),
            fingerprint_pb2_grpc.FingerprintServiceStub(channel),
            catalog_pb2_grpc.CatalogServiceStub(channel),
            channels_pb2_grpc.ChannelServiceStub(channel),
            admin_pb2_grpc.AdminServiceStub(channel),
            clips_pb2_grpc.ClipServiceStub(channel),
            media_pb2_grpc.MediaServiceStub(channel),
            monitors_pb2_grpc.MonitorServiceStub(channel),
            health_pb2_grpc.HealthStub(channel),
        )
