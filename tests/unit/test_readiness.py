"""Whether the watching of parts ends when it is told to."""

from __future__ import annotations

import asyncio

from soundhash_server.services.readiness import Part, Readiness
from soundhash_server.tasks import end


async def test_a_probe_that_loses_its_cancellation_does_not_keep_it_going() -> None:
    lost = asyncio.Event()

    async def probe() -> bool:
        # What some drivers do when an answer and a cancellation come together.
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if lost.is_set():
                raise
            lost.set()
        return True

    readiness = Readiness({Part.QUEUE: probe}, period_s=3600, patience_s=3600)
    watching = asyncio.create_task(readiness.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end(watching)
    assert lost.is_set()
    assert watching.cancelled()
