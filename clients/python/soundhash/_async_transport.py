"""How the asyncio client makes its calls: connection, deadlines, retries, streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Any, TypeVar

import grpc
import grpc.aio

from soundhash import _async_stream
from soundhash import _calls as calls
from soundhash import _convert as convert
from soundhash import _types as t
from soundhash._async_writing import CallEnded, done_writing, write
from soundhash._config import ClientConfig
from soundhash._course import Course
from soundhash._errors import (
    DeadlineExceeded,
    Unimplemented,
    client_closed,
    from_rpc_error,
    job_not_finished,
)
from soundhash._media import MediaReader, Progress
from soundhash._monitor_calls import Watching
from soundhash._retry import Attempts, Position
from soundhash._stubs import AsyncStubs
from soundhash.v1 import clips_pb2, ingest_pb2, match_pb2

T = TypeVar("T")


class AsyncTransport:
    """One channel, opened by the first call in the running event loop, and the ways of
    calling over it. Cancelling a task cancels its call on the server."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self._channel: grpc.aio.Channel | None = None
        self._stubs: AsyncStubs | None = None
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether there is a channel that has to be closed."""
        return self._channel is not None

    @property
    def stubs(self) -> AsyncStubs:
        """The generated stubs. Raises FailedPrecondition (CLIENT_CLOSED) when closed."""
        if self._closed:
            raise client_closed()
        if self._stubs is None:
            options, credentials = self.config.channel_options(), self.config.credentials()
            if credentials is None:
                self._channel = grpc.aio.insecure_channel(self.config.address, options)
            else:
                self._channel = grpc.aio.secure_channel(self.config.address, credentials, options)
            self._stubs = AsyncStubs.on(self._channel)
        return self._stubs

    async def close(self) -> None:
        """Ends all calls and the connection; closing again does nothing."""
        self._closed = True
        channel, self._channel, self._stubs = self._channel, None, None
        if channel is not None:
            await channel.close()

    async def unary(self, call: calls.Call[T], timeout_s: float | None) -> T:
        """A call with one answer, tried again where that is safe."""
        method = getattr(getattr(self.stubs, call.service), call.method)
        attempts = Attempts(
            self.config.max_retries if call.idempotent else 0,
            self.config.timeout_s if timeout_s is None else timeout_s,
        )
        while True:
            try:
                return call.convert(await method(call.request, **self._call_options(attempts)))
            except grpc.RpcError as error:
                delay_s = attempts.next_delay_s(from_rpc_error(error, self.config.address))
            await asyncio.sleep(delay_s)

    async def pages(self, listing: calls.Listing[T], timeout_s: float | None) -> AsyncIterator[T]:
        """The items of all pages; a page is asked for when it is needed."""
        call: calls.Call[calls.Page[T]] | None = listing.first_page()
        n_seen = 0
        while call is not None:
            page = await self.unary(call, timeout_s)
            for item in page.items:
                yield item
            n_seen += len(page.items)
            call = listing.next_page(page, n_seen)

    async def send_media(
        self,
        upload: calls.MediaCall[T],
        reader: MediaReader,
        progress: Progress | None,
        timeout_s: float | None,
    ) -> T:
        """Sends media in chunks; again while the server is away: from the start, or from what
        has arrived where the server keeps that."""
        method = getattr(getattr(self.stubs, upload.service), upload.method)
        attempts = Attempts(self.config.max_retries if reader.rewindable else 0, timeout_s)
        position = Position()
        while True:
            try:
                if upload.arrived is not None:
                    position.found(await self._arrived(upload.arrived, attempts), attempts)
            except grpc.RpcError as error:
                delay_s = attempts.next_delay_s(from_rpc_error(error, self.config.address))
                await asyncio.sleep(delay_s)
                continue
            await asyncio.to_thread(reader.rewind, position.offset)
            call = method(**self._call_options(attempts))
            try:
                await self._send_chunks(call, upload, reader, progress, position.offset)
                return upload.convert(await call)
            except grpc.RpcError as error:
                failure = from_rpc_error(error, self.config.address)
                delay_s = position.next_delay_s(failure, attempts)
            finally:
                call.cancel()
            await asyncio.sleep(delay_s)

    async def _arrived(self, call: calls.Call[t.UploadStatus], attempts: Attempts) -> int:
        method = getattr(getattr(self.stubs, call.service), call.method)
        try:
            message = await method(call.request, **self._call_options(attempts))
        except grpc.RpcError as error:
            if isinstance(from_rpc_error(error, self.config.address), Unimplemented):
                return 0  # an older server, which keeps nothing
            raise
        return call.convert(message).received_bytes

    async def _send_chunks(
        self,
        call: grpc.aio.StreamUnaryCall[Any, Any],
        upload: calls.MediaCall[T],
        reader: MediaReader,
        progress: Progress | None,
        n_sent: int,
    ) -> None:
        with suppress(CallEnded):
            for message in upload.head(n_sent):
                await write(call, message)
            if n_sent and progress is not None:
                progress(n_sent, reader.size_bytes)
            while chunk := await asyncio.to_thread(reader.read):
                await write(call, upload.wrap(chunk))
                n_sent += len(chunk)
                if progress is not None:
                    progress(n_sent, reader.size_bytes)
            await done_writing(call)

    def stream(
        self, course: Course, chunks: AsyncIterable[bytes] | Iterable[bytes]
    ) -> AsyncGenerator[t.StreamEvent, None]:
        """Live audio; events as they come."""
        return _async_stream.run(lambda: self.stubs, self.config, course, chunks)

    async def stream_url(
        self, request: match_pb2.MatchUrlRequest, timeout_s: float | None
    ) -> AsyncGenerator[t.UrlEvent, None]:
        """A clip that the server fetches; events as they come."""
        call = self.stubs.match.MatchUrl(request, timeout=timeout_s, metadata=self.config.metadata)
        try:
            async for message in call:
                event = convert.url_event(message)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.config.address) from None
        finally:
            call.cancel()

    async def process_clips(
        self, request: clips_pb2.ProcessClipsRequest, timeout_s: float | None
    ) -> AsyncGenerator[t.Clip, None]:
        """Clips as they are finished, each once; comes back when the connection is lost."""
        attempts = Attempts(self.config.max_retries, timeout_s)
        seen: set[str] = set()
        while True:
            call = self.stubs.clips.ProcessClips(request, **self._call_options(attempts))
            try:
                async for message in call:
                    attempts.works()
                    if message.id not in seen:
                        seen.add(message.id)
                        yield convert.clip(message)
                return
            except grpc.RpcError as error:
                delay_s = attempts.next_delay_s(from_rpc_error(error, self.config.address))
            finally:
                call.cancel()
            await asyncio.sleep(delay_s)

    async def watch(self, job_id: str, timeout_s: float | None) -> AsyncGenerator[t.Job, None]:
        """A job at every change until it is finished; comes back when the connection is lost."""
        attempts = Attempts(self.config.max_retries, timeout_s)
        request, last = ingest_pb2.WatchJobRequest(id=job_id), None
        while True:
            call = self.stubs.ingest.WatchJob(request, **self._call_options(attempts))
            try:
                async for message in call:
                    attempts.works()
                    job = convert.job(message)
                    if job != last:
                        yield job
                    if job.state.finished:
                        return
                    last = job
                return
            except grpc.RpcError as error:
                delay_s = attempts.next_delay_s(from_rpc_error(error, self.config.address))
            finally:
                call.cancel()
            await asyncio.sleep(delay_s)

    async def watch_detections(
        self, monitor_ids: Iterable[str], since: datetime | None, timeout_s: float | None
    ) -> AsyncGenerator[t.MonitorEvent, None]:
        """Detections and alerts as they change; comes back when the connection is lost."""
        watch = Watching(monitor_ids, since, Attempts(self.config.max_retries, timeout_s))
        while True:
            call = self.stubs.monitors.WatchDetections(
                watch.request(), **self._call_options(watch.attempts)
            )
            try:
                async for message in call:
                    event = watch.take(message)
                    if event is not None:
                        yield event
                return
            except grpc.RpcError as error:
                delay_s = watch.next_delay_s(from_rpc_error(error, self.config.address))
            finally:
                call.cancel()
            await asyncio.sleep(delay_s)

    async def wait(self, job_id: str, timeout_s: float | None) -> t.Job:
        """A job once it is finished."""
        try:
            async with aclosing(self.watch(job_id, timeout_s)) as states:
                async for job in states:
                    if job.state.finished:
                        return job
        except DeadlineExceeded:
            raise job_not_finished(job_id, timeout_s) from None
        raise job_not_finished(job_id, timeout_s)

    def _call_options(self, attempts: Attempts) -> dict[str, Any]:
        return {"timeout": attempts.remaining_s, "metadata": self.config.metadata}
