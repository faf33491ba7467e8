"""Ending asyncio tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any

_AGAIN_S = 2.0


async def end(*tasks: asyncio.Task[Any], again_s: float = _AGAIN_S) -> None:
    """Cancels tasks and waits for their end, whatever it is.

    again_s: who is still there after this long is cancelled once more: a cancellation that
    comes together with a result gets lost in `asyncio.wait_for` of Python 3.11, which drivers
    use, and a loop then goes on for ever.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_s)
    for task in tasks:
        if not task.cancelled():
            # Looked at, so that asyncio does not complain.
            task.exception()
