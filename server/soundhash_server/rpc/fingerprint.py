"""FingerprintService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from soundhash.v1 import fingerprint_pb2, fingerprint_pb2_grpc
from soundhash_server.rpc.convert import comparison_message, fingerprint_message, source_from
from soundhash_server.rpc.interceptors import Context
from soundhash_server.services.fingerprints import Fingerprinting


class FingerprintServicer(fingerprint_pb2_grpc.FingerprintServiceServicer):
    def __init__(self, fingerprinting: Fingerprinting) -> None:
        self._fingerprinting = fingerprinting

    async def Compute(
        self, request_iterator: AsyncIterator[fingerprint_pb2.ComputeRequest], context: Context
    ) -> fingerprint_pb2.Fingerprint:
        chunks = (request.chunk async for request in request_iterator)
        return fingerprint_message(await self._fingerprinting.compute(chunks))

    async def Compare(
        self, request: fingerprint_pb2.CompareRequest, context: Context
    ) -> fingerprint_pb2.CompareResponse:
        return comparison_message(
            await self._fingerprinting.compare(
                source_from(request.first), source_from(request.second)
            )
        )

    async def GetFingerprint(
        self, request: fingerprint_pb2.GetFingerprintRequest, context: Context
    ) -> fingerprint_pb2.Fingerprint:
        full = request.view == fingerprint_pb2.FINGERPRINT_VIEW_FULL
        return fingerprint_message(
            await self._fingerprinting.get(UUID(request.video_id), full=full)
        )

    async def ListFingerprints(
        self, request: fingerprint_pb2.ListFingerprintsRequest, context: Context
    ) -> fingerprint_pb2.ListFingerprintsResponse:
        page = await self._fingerprinting.list(request.page_size, request.page_token)
        return fingerprint_pb2.ListFingerprintsResponse(
            fingerprints=[fingerprint_message(one) for one in page.items],
            next_page_token=page.next_page_token,
        )
