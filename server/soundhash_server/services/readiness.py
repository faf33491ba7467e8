"""What of the platform works at the moment, and whether this server takes calls."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Mapping

import structlog

from soundhash_server.tasks import end

log = structlog.get_logger(__name__)

_AGAIN_S = 0.5

Probe = Callable[[], Awaitable[object]]
"""Answers; raises or returns False when its part does not work."""


class Part(enum.Enum):
    """What a server stands on."""

    DATABASE = "database"
    QUEUE = "queue"
    INDEX = "index"


class Readiness:
    """Watches the parts by asking each of them every ``period_s``.

    ``started`` turns true once all of them have answered; until then no call is taken.
    Afterwards a part that fails takes down the health of the services that need it.
    """

    def __init__(
        self, probes: Mapping[Part, Probe], *, period_s: float = 1.0, patience_s: float = 3.0
    ) -> None:
        self._probes = dict(probes)
        self._period_s = period_s
        self._patience_s = patience_s
        self._works = dict.fromkeys(self._probes, False)
        self._changed = asyncio.Condition()
        self._version = 0
        self.started = False
        self.draining = False

    def works(self, *parts: Part) -> bool:
        """Whether calls that need these parts can be answered now."""
        return (
            self.started
            and not self.draining
            and all(self._works[part] for part in parts if part in self._works)
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the parts that do not answer."""
        return tuple(part.value for part, works in self._works.items() if not works)

    async def run(self) -> None:
        """Asks for ever."""
        watches = [
            asyncio.create_task(self._watch(part, probe), name=f"probe-{part.value}")
            for part, probe in self._probes.items()
        ]
        try:
            await asyncio.gather(*watches)
        finally:
            # No group of tasks: it cancels once only, and a probe may lose that (see `end`).
            await end(*watches, again_s=_AGAIN_S)

    async def drain(self) -> None:
        """From now on nothing works any more."""
        await self._update(draining=True)

    async def wait_change(self, seen: int) -> int:
        """Waits until something has changed since ``seen`` (0 at first); returns the newest."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._version != seen)
            return self._version

    async def wait_started(self) -> None:
        """Waits until everything has worked once."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.started)

    async def _watch(self, part: Part, probe: Probe) -> None:
        while True:
            try:
                async with asyncio.timeout(self._patience_s):
                    works = await probe() is not False
            except Exception as error:
                works = False
                if self._works[part]:
                    log.warning("part is gone", part=part.value, error=str(error) or repr(error))
            if works and not self._works[part]:
                log.info("part is there", part=part.value)
            if works != self._works[part]:
                self._works[part] = works
                await self._update()
            await asyncio.sleep(self._period_s if self.started else self._period_s / 20)

    async def _update(self, *, draining: bool = False) -> None:
        async with self._changed:
            self.draining = self.draining or draining
            self.started = self.started or all(self._works.values())
            self._version += 1
            self._changed.notify_all()
