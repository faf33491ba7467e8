"""What every call goes through: admission, validation, error mapping, one log line."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias, cast

import grpc
import structlog
from google.protobuf.message import Message

from soundhash_server.errors import ErrorKind, PlatformError, draining
from soundhash_server.rpc.errors import to_platform_error, to_status, unforeseen
from soundhash_server.rpc.validation import parse
from soundhash_server.services.readiness import Readiness

log = structlog.get_logger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

OUR_PREFIX = "/soundhash.v1."
ENDLESS_METHODS = frozenset(
    (
        "/soundhash.v1.IngestService/WatchJob",
        "/soundhash.v1.ClipService/ProcessClips",
        "/soundhash.v1.MonitorService/WatchDetections",
    )
)
"""Calls that a draining server ends at once: they may last for ever and can be made again."""

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_LET_FINISH_S = 0.5
_ABORT_PATIENCE_S = 5.0
"""A caller that reads nothing also holds up the status; it is left queued after this."""


@dataclass(slots=True, eq=False)
class _Call:
    """One call while it runs."""

    method: str
    request_id: str
    task: asyncio.Task[Any]
    begun: float = field(default_factory=time.monotonic)
    stopped_by_server: bool = False


class _Inbox:
    """What the caller of a streaming method sends."""

    def __init__(self, context: Context, read: Callable[[bytes], Message], idle_s: float) -> None:
        self._context = context
        self._read = read
        self._idle_s = idle_s
        self._over = False
        self._reading: asyncio.Future[Any] | None = None

    async def messages(self) -> AsyncIterator[Any]:
        """The messages, each checked. Raises STREAM_IDLE."""
        while not self._over:
            try:
                async with asyncio.timeout(self._idle_s):
                    data = await self._next()
            except TimeoutError:
                self._over = True
                raise _idle(f"nothing was sent for {self._idle_s:g} s") from None
            if data is grpc.aio.EOF:
                self._over = True
                return
            yield parse(self._read, data)

    async def let_finish(self) -> None:
        """Drops what the caller still sends, for a moment. Some gRPC clients lose the status of
        a call that ends while they are in the middle of sending."""
        try:
            async with asyncio.timeout(_LET_FINISH_S):
                while not self._over:
                    self._over = await self._next() is grpc.aio.EOF
        except Exception:
            # Too late: it was worth a try.
            self._over = True

    async def _next(self) -> Any:
        """What comes next. gRPC does not give up a read once it has begun: a reader that is
        cancelled leaves it to the next one."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._context.read())
            self._reading.add_done_callback(_looked_at)
        data = await asyncio.shield(self._reading)
        self._reading = None
        return data


def _looked_at(reading: asyncio.Future[Any]) -> None:
    """So that asyncio does not complain about a read that nobody waits for any more."""
    if not reading.cancelled():
        reading.exception()


class CallGuard(grpc.aio.ServerInterceptor):
    """Stands around every method of soundhash.v1; health and reflection pass untouched.

    Takes calls only between readiness and draining. A caller that neither sends nor reads for
    ``idle_s`` is sent away with STREAM_IDLE. Whatever a method raises becomes a rich status.
    """

    def __init__(self, readiness: Readiness, *, idle_s: float) -> None:
        self._readiness = readiness
        self._idle_s = idle_s
        self._calls: set[_Call] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(OUR_PREFIX):
            return handler
        return self._wrap(method, handler)

    async def drain(self, patience_s: float) -> None:
        """Lets calls finish; what still runs after ``patience_s`` ends with SERVER_DRAINING."""
        self._stop([call for call in self._calls if call.method in ENDLESS_METHODS])
        try:
            async with asyncio.timeout(patience_s):
                await self._none_left.wait()
        except TimeoutError:
            log.warning("calls were cut short", calls=len(self._calls))
            left = list(self._calls)
            self._stop(left)
            await asyncio.wait({call.task for call in left}, timeout=_ABORT_PATIENCE_S)

    def _stop(self, calls: Iterable[_Call]) -> None:
        for call in calls:
            call.stopped_by_server = True
            call.task.cancel()

    def _wrap(self, method: str, handler: Handler) -> Handler:
        """The same method over raw request bytes: reading them is part of what may fail."""
        inner: Any
        read = cast("Callable[[bytes], Message]", handler.request_deserializer)
        if not handler.request_streaming and not handler.response_streaming:
            inner = handler.unary_unary

            async def unary_unary(data: bytes, context: Context) -> Any:
                async def act() -> Any:
                    return await inner(parse(read, data), context)

                return await self._guard(method, context, act)

            return grpc.unary_unary_rpc_method_handler(
                unary_unary, response_serializer=handler.response_serializer
            )
        if not handler.request_streaming:
            inner = handler.unary_stream

            async def unary_stream(data: bytes, context: Context) -> None:
                async def act() -> None:
                    request = parse(read, data)
                    await self._write_all(inner(request, context), context)

                await self._guard(method, context, act)

            return grpc.unary_stream_rpc_method_handler(
                unary_stream, response_serializer=handler.response_serializer
            )
        if not handler.response_streaming:
            inner = handler.stream_unary

            async def stream_unary(_: object, context: Context) -> Any:
                inbox = _Inbox(context, read, self._idle_s)

                async def act() -> Any:
                    return await inner(inbox.messages(), context)

                return await self._guard(method, context, act, inbox)

            return grpc.stream_unary_rpc_method_handler(
                stream_unary, response_serializer=handler.response_serializer
            )
        inner = handler.stream_stream

        async def stream_stream(_: object, context: Context) -> None:
            inbox = _Inbox(context, read, self._idle_s)

            async def act() -> None:
                await self._write_all(inner(inbox.messages(), context), context)

            await self._guard(method, context, act, inbox)

        return grpc.stream_stream_rpc_method_handler(
            stream_stream, response_serializer=handler.response_serializer
        )

    async def _guard(
        self,
        method: str,
        context: Context,
        act: Callable[[], Awaitable[Any]],
        inbox: _Inbox | None = None,
    ) -> Any:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - gRPC runs every handler in a task
        call = _Call(method, _request_id(context), task)
        self._calls.add(call)
        self._none_left.clear()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=call.request_id)
        code, reason = "OK", ""
        try:
            self._admit()
            answer = await act()
            if inbox is not None:
                await inbox.let_finish()
            return answer
        except asyncio.CancelledError:
            if not call.stopped_by_server:
                code = "CANCELLED"
                raise
            task.uncancel()
            error = draining()
            code, reason = error.kind.value, error.reason
            await self._abort(context, error, call)
        except Exception as raised:
            error = self._translate(raised, call)
            code, reason = error.kind.value, error.reason
            try:
                if inbox is not None:
                    await inbox.let_finish()
            except asyncio.CancelledError:
                if not call.stopped_by_server:
                    raise
                # The caller is told what it was all the same.
                task.uncancel()
            await self._abort(context, error, call)
        finally:
            self._calls.discard(call)
            if not self._calls:
                self._none_left.set()
            log.info(
                "call",
                method=method.removeprefix("/"),
                code=code,
                **({"reason": reason} if reason else {}),
                elapsed_ms=round(1000 * (time.monotonic() - call.begun), 1),
                peer=context.peer(),
            )

    def _admit(self) -> None:
        if self._readiness.draining:
            raise draining()
        if not self._readiness.started:
            waiting_for = ", ".join(self._readiness.missing)
            raise PlatformError(
                ErrorKind.UNAVAILABLE,
                "SERVER_NOT_READY",
                f"The server is starting; it waits for: {waiting_for or 'itself'}.",
                "Try again in a moment.",
                retry_after_s=0.5,
                metadata={"waiting_for": waiting_for},
            )

    def _translate(self, raised: Exception, call: _Call) -> PlatformError:
        error = to_platform_error(raised)
        if error is None:
            error_id = uuid.uuid4().hex
            log.exception("unforeseen failure", error_id=error_id, method=call.method)
            return unforeseen(error_id)
        if error.kind is ErrorKind.INTERNAL:
            log.error("internal failure", reason=error.reason, exc_info=raised)
        return error

    async def _abort(self, context: Context, error: PlatformError, call: _Call) -> NoReturn:
        try:
            async with asyncio.timeout(_ABORT_PATIENCE_S):
                await context.abort_with_status(to_status(error, call.request_id))
        except TimeoutError:
            # The status is queued behind answers that the caller does not read.
            raise asyncio.CancelledError from None

    async def _write_all(self, responses: AsyncIterator[Any], context: Context) -> None:
        """Sends what comes, no faster than the caller reads. Raises STREAM_IDLE."""
        try:
            async for response in responses:
                try:
                    async with asyncio.timeout(self._idle_s):
                        await context.write(response)
                except TimeoutError:
                    raise _idle(f"no answer was read for {self._idle_s:g} s") from None
        finally:
            close = getattr(responses, "aclose", None)
            if close is not None:
                await close()


def _request_id(context: Context) -> str:
    """The caller's ``x-request-id`` if it is printable, else a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return uuid.uuid4().hex


def _idle(what: str) -> PlatformError:
    return PlatformError(
        ErrorKind.DEADLINE_EXCEEDED,
        "STREAM_IDLE",
        f"The stream was ended because {what}.",
        "Keep sending and reading, or end the stream.",
    )
