"""Sending the messages of a call with asyncio, so that its status is not lost."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import Message

_STATUS_PATIENCE_S = 5.0


class CallEnded(Exception):  # noqa: N818 - not an error: the call itself says how it ended
    """The server has answered before everything was sent."""


async def write(call: Any, message: Message) -> None:
    """Sends a message, as `call.write` should.

    That one marks the whole call INTERNAL when a write fails, and so loses the status of a
    server that refuses before all is sent (https://github.com/grpc/grpc/issues/36066).
    """
    try:
        await call.wait_for_connection()
        if call.done():
            raise CallEnded
        await call._cython_call.send_serialized_message(message.SerializeToString())
    except (grpc.RpcError, grpc.aio.InternalError):
        await _ended(call)


async def done_writing(call: Any) -> None:
    """Says that no more messages come."""
    try:
        await call.done_writing()
    except (grpc.RpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
        await _ended(call)


async def _ended(call: Any) -> NoReturn:
    # The status follows at once, but for a call that gRPC itself could not begin.
    try:
        async with asyncio.timeout(_STATUS_PATIENCE_S):
            await call.code()
    except TimeoutError:
        call.cancel()
    raise CallEnded
