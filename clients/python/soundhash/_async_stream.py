"""Live audio through the client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

from soundhash import _types as t
from soundhash._async_writing import CallEnded, done_writing, write
from soundhash._config import ClientConfig
from soundhash._course import MESSAGE_BYTES, Course
from soundhash._errors import from_rpc_error
from soundhash._stubs import AsyncStubs
from soundhash.v1 import match_pb2


async def run(
    stubs: Callable[[], AsyncStubs],
    config: ClientConfig,
    course: Course,
    chunks: AsyncIterable[bytes] | Iterable[bytes],
) -> AsyncGenerator[t.StreamEvent, None]:
    """The events of a stream, over as many calls as it takes."""
    audio = _Audio(course, chunks)
    try:
        while True:
            call = stubs().match.MatchStream(timeout=course.remaining_s, metadata=config.metadata)
            audio.cancels(call.cancel)
            sender = asyncio.create_task(audio.send(call))
            try:
                async for message in call:
                    event = course.take(message)
                    audio.notify()
                    if event is not None:
                        yield event
                return
            except grpc.RpcError as error:
                audio.check()
                interrupted = course.broken(from_rpc_error(error, config.address))
                audio.notify()
            except asyncio.CancelledError:
                # Of this task, or of the call for which there is no audio any more.
                audio.check()
                raise
            finally:
                sender.cancel()
                call.cancel()
                await asyncio.wait([sender])
            yield interrupted
            await audio.pause(interrupted.retry_in_s)
    finally:
        await audio.stop()


class _Audio:
    """Takes audio in, in a task of its own, and sends it.

    That task outlives the calls: a source that is waiting for its next chunk when the connection
    breaks cannot be asked a second time.
    """

    def __init__(self, course: Course, chunks: AsyncIterable[bytes] | Iterable[bytes]) -> None:
        self._course = course
        self._changed = asyncio.Event()
        self._error: BaseException | None = None
        self._cancel: Callable[[], object] = lambda: None
        self._task: asyncio.Task[None] | None = None
        self._chunks = chunks

    async def stop(self) -> None:
        """Takes no more audio in."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def notify(self) -> None:
        """The course has moved on."""
        self._changed.set()

    def check(self) -> None:
        """Raises what the source of the audio has raised."""
        if self._error is not None:
            raise self._error from None

    async def pause(self, delay_s: float | None) -> None:
        """Waits for so long, or until there is more audio; not longer than the source works."""

        def over() -> bool:
            more = delay_s is None and not self._course.is_idle
            return self._error is not None or more

        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._until(over)
        self.check()

    def cancels(self, cancel: Callable[[], object]) -> None:
        """Names what ends the call when the source fails."""
        self._cancel = cancel
        if self._error is not None:
            cancel()

    async def send(self, call: grpc.aio.StreamStreamCall[Any, Any]) -> None:
        """Sends the messages of one call, as fast as the server takes them."""
        with suppress(CallEnded):
            await write(call, self._course.first_message())
            if self._task is None:
                self._task = asyncio.create_task(self._take_in())
            while (piece := self._course.next_audio()) is not None:
                if self._error is not None:
                    return
                self._changed.set()
                if piece:
                    await write(call, match_pb2.MatchStreamRequest(audio=piece))
                else:
                    self._changed.clear()
                    await self._changed.wait()
            await done_writing(call)

    async def _take_in(self) -> None:
        try:
            async for chunk in _asynchronous(self._chunks):
                with memoryview(chunk).cast("B") as view:
                    for start in range(0, len(view), MESSAGE_BYTES):
                        self._course.add(view[start : start + MESSAGE_BYTES])
                        self._changed.set()
                        await self._until(lambda: self._course.has_room)
            self._course.end()
        except Exception as error:
            # The server must never take a part for the whole.
            self._error = error
            self._cancel()
        finally:
            self._changed.set()

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._changed.clear()
            await self._changed.wait()


async def _asynchronous(chunks: AsyncIterable[bytes] | Iterable[bytes]) -> AsyncIterator[bytes]:
    """Chunks of either kind; plain iterators may block, so they run in a thread."""
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
        return
    iterator = iter(chunks)
    while (piece := await asyncio.to_thread(next, iterator, None)) is not None:
        yield piece
