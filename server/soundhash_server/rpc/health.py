"""grpc.health.v1 for the whole server and for each service."""

from __future__ import annotations

from collections.abc import Mapping

from grpc_health.v1 import health, health_pb2

from soundhash_server.services.readiness import Part, Readiness

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

NEEDS: Mapping[str, tuple[Part, ...]] = {
    "": (Part.DATABASE, Part.QUEUE, Part.INDEX),
    "soundhash.v1.IngestService": (Part.DATABASE, Part.QUEUE),
    "soundhash.v1.ChannelService": (Part.DATABASE,),
    "soundhash.v1.ClipService": (Part.DATABASE, Part.QUEUE),
    "soundhash.v1.MediaService": (Part.DATABASE,),
    "soundhash.v1.MatchService": (Part.DATABASE, Part.INDEX),
    "soundhash.v1.FingerprintService": (Part.DATABASE,),
    "soundhash.v1.CatalogService": (Part.DATABASE, Part.INDEX),
    "soundhash.v1.MonitorService": (Part.DATABASE,),
    "soundhash.v1.AdminService": (Part.DATABASE, Part.INDEX),
}
"""What each service needs to answer; "" is the server as a whole."""

LIVENESS = "liveness"
"""Health name that is SERVING from the first moment until draining, whatever else is away: for
probes that restart a process, which must not happen because the database is down."""


class Health:
    """Keeps a health servicer in step with the readiness of the platform."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self.servicer = health.aio.HealthServicer()
        self._shown: dict[str, bool] = {}

    async def start(self) -> None:
        """All but LIVENESS is NOT_SERVING until readiness says otherwise."""
        await self.servicer.set(LIVENESS, SERVING)
        await self._show()

    async def run(self) -> None:
        """Follows the readiness for ever."""
        seen = 0
        while True:
            seen = await self._readiness.wait_change(seen)
            await self._show()

    async def drain(self) -> None:
        """NOT_SERVING for good."""
        await self.servicer.enter_graceful_shutdown()

    async def _show(self) -> None:
        for service, parts in NEEDS.items():
            works = self._readiness.works(*parts)
            if self._shown.get(service) is not works:
                self._shown[service] = works
                await self.servicer.set(service, SERVING if works else NOT_SERVING)
