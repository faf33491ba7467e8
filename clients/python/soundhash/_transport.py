"""How the plain client makes its calls: connection, deadlines, retries, streams."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import datetime
from typing import Any, Generic, TypeVar

import grpc

from soundhash import _calls as calls
from soundhash import _convert as convert
from soundhash import _sync_stream
from soundhash import _types as t
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
from soundhash._stubs import Stubs
from soundhash.v1 import clips_pb2, ingest_pb2, match_pb2

T = TypeVar("T")
MessageT = TypeVar("MessageT")


class Transport:
    """One channel, opened by the first call, and the ways of calling over it.

    Any number of threads may call at the same time.
    """

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self._channel: grpc.Channel | None = None
        self._stubs: Stubs | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether there is a channel that has to be closed."""
        return self._channel is not None

    @property
    def stubs(self) -> Stubs:
        """The generated stubs. Raises FailedPrecondition (CLIENT_CLOSED) when closed."""
        with self._lock:
            if self._closed:
                raise client_closed()
            if self._stubs is None:
                options, credentials = self.config.channel_options(), self.config.credentials()
                if credentials is None:
                    self._channel = grpc.insecure_channel(self.config.address, options)
                else:
                    self._channel = grpc.secure_channel(self.config.address, credentials, options)
                self._stubs = Stubs.on(self._channel)
            return self._stubs

    def close(self) -> None:
        """Ends all calls and the connection; closing again does nothing."""
        with self._lock:
            self._closed = True
            channel, self._channel, self._stubs = self._channel, None, None
        if channel is not None:
            channel.close()

    def unary(self, call: calls.Call[T], timeout_s: float | None) -> T:
        """A call with one answer, tried again where that is safe."""
        method = getattr(getattr(self.stubs, call.service), call.method)
        attempts = Attempts(
            self.config.max_retries if call.idempotent else 0,
            self.config.timeout_s if timeout_s is None else timeout_s,
        )
        while True:
            try:
                return call.convert(method(call.request, **self._call_options(attempts)))
            except grpc.RpcError as error:
                delay_s = attempts.next_delay_s(from_rpc_error(error, self.config.address))
            time.sleep(delay_s)

    def pages(self, listing: calls.Listing[T], timeout_s: float | None) -> Iterator[T]:
        """The items of all pages; a page is asked for when it is needed."""
        call: calls.Call[calls.Page[T]] | None = listing.first_page()
        n_seen = 0
        while call is not None:
            page = self.unary(call, timeout_s)
            yield from page.items
            n_seen += len(page.items)
            call = listing.next_page(page, n_seen)

    def send_media(
        self,
        upload: calls.MediaCall[T],
        reader: MediaReader,
        progress: Progress | None,
        timeout_s: float | None,
    ) -> T:
        """Sends media in chunks; again while the server is away: from the start, or from what
        has arrived where the server keeps that."""
        method = getattr(getattr(self.stubs, upload.service), upload.method)

        def messages(n_sent: int) -> Iterator[Any]:
            yield from upload.head(n_sent)
            if n_sent and progress is not None:
                progress(n_sent, reader.size_bytes)
            while chunk := reader.read():
                yield upload.wrap(chunk)
                n_sent += len(chunk)
                if progress is not None:
                    progress(n_sent, reader.size_bytes)

        attempts = Attempts(self.config.max_retries if reader.rewindable else 0, timeout_s)
        position = Position()
        while True:
            try:
                if upload.arrived is not None:
                    position.found(self._arrived(upload.arrived, attempts), attempts)
            except grpc.RpcError as error:
                delay_s = attempts.next_delay_s(from_rpc_error(error, self.config.address))
                time.sleep(delay_s)
                continue
            reader.rewind(position.offset)
            feed = _Feed(messages(position.offset))
            call = method.future(feed, **self._call_options(attempts))
            feed.attach(call.cancel)
            try:
                return upload.convert(call.result())
            except (grpc.RpcError, grpc.FutureCancelledError) as error:
                failure = feed.error or from_rpc_error(error, self.config.address)
                delay_s = position.next_delay_s(failure, attempts)
            finally:
                call.cancel()
                if reader.rewindable:
                    feed.stop()
            time.sleep(delay_s)

    def _arrived(self, call: calls.Call[t.UploadStatus], attempts: Attempts) -> int:
        method = getattr(getattr(self.stubs, call.service), call.method)
        try:
            return call.convert(method(call.request, **self._call_options(attempts))).received_bytes
        except grpc.RpcError as error:
            if isinstance(from_rpc_error(error, self.config.address), Unimplemented):
                return 0  # an older server, which keeps nothing
            raise

    def stream(
        self, course: Course, chunks: Iterable[bytes]
    ) -> Generator[t.StreamEvent, None, None]:
        """Live audio; events as they come."""
        return _sync_stream.run(lambda: self.stubs, self.config, course, chunks)

    def stream_url(
        self, request: match_pb2.MatchUrlRequest, timeout_s: float | None
    ) -> Generator[t.UrlEvent, None, None]:
        """A clip that the server fetches; events as they come."""
        call = self.stubs.match.MatchUrl(request, timeout=timeout_s, metadata=self.config.metadata)
        try:
            for message in call:
                event = convert.url_event(message)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.config.address) from None
        finally:
            call.cancel()

    def process_clips(
        self, request: clips_pb2.ProcessClipsRequest, timeout_s: float | None
    ) -> Generator[t.Clip, None, None]:
        """Clips as they are finished, each once; comes back when the connection is lost."""
        attempts = Attempts(self.config.max_retries, timeout_s)
        seen: set[str] = set()
        while True:
            call = self.stubs.clips.ProcessClips(request, **self._call_options(attempts))
            try:
                for message in call:
                    attempts.works()
                    if message.id not in seen:
                        seen.add(message.id)
                        yield convert.clip(message)
                return
            except grpc.RpcError as error:
                delay_s = attempts.next_delay_s(from_rpc_error(error, self.config.address))
            finally:
                call.cancel()
            time.sleep(delay_s)

    def watch(self, job_id: str, timeout_s: float | None) -> Generator[t.Job, None, None]:
        """A job at every change until it is finished; comes back when the connection is lost."""
        attempts = Attempts(self.config.max_retries, timeout_s)
        request, last = ingest_pb2.WatchJobRequest(id=job_id), None
        while True:
            call = self.stubs.ingest.WatchJob(request, **self._call_options(attempts))
            try:
                for message in call:
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
            time.sleep(delay_s)

    def watch_detections(
        self, monitor_ids: Iterable[str], since: datetime | None, timeout_s: float | None
    ) -> Generator[t.MonitorEvent, None, None]:
        """Detections and alerts as they change; comes back when the connection is lost."""
        watch = Watching(monitor_ids, since, Attempts(self.config.max_retries, timeout_s))
        while True:
            call = self.stubs.monitors.WatchDetections(
                watch.request(), **self._call_options(watch.attempts)
            )
            try:
                for message in call:
                    event = watch.take(message)
                    if event is not None:
                        yield event
                return
            except grpc.RpcError as error:
                delay_s = watch.next_delay_s(from_rpc_error(error, self.config.address))
            finally:
                call.cancel()
            time.sleep(delay_s)

    def wait(self, job_id: str, timeout_s: float | None) -> t.Job:
        """A job once it is finished."""
        try:
            for job in self.watch(job_id, timeout_s):
                if job.state.finished:
                    return job
        except DeadlineExceeded:
            raise job_not_finished(job_id, timeout_s) from None
        raise job_not_finished(job_id, timeout_s)

    def _call_options(self, attempts: Attempts) -> dict[str, Any]:
        return {"timeout": attempts.remaining_s, "metadata": self.config.metadata}


class _Feed(Generic[MessageT]):
    """The messages of a call that sends a stream, taken by gRPC from a thread of its own.

    What goes wrong in making them cancels the call, so that the server never takes a part
    for the whole, and is kept for the caller to raise.
    """

    def __init__(self, messages: Iterator[MessageT]) -> None:
        self.error: Exception | None = None
        self._messages = messages
        self._lock = threading.Lock()
        self._stopped = False
        self._attached = threading.Event()
        self._cancel: Callable[[], object] = lambda: None

    def attach(self, cancel: Callable[[], object]) -> None:
        """Names what cancels the call."""
        self._cancel = cancel
        self._attached.set()

    def stop(self) -> None:
        """Ends the feed; when this returns nothing is read any more."""
        with self._lock:
            self._stopped = True

    def __iter__(self) -> Iterator[MessageT]:
        return self

    def __next__(self) -> MessageT:
        with self._lock:
            if self._stopped:
                raise StopIteration
            try:
                return next(self._messages)
            except StopIteration:
                raise
            except Exception as error:
                self.error = error
        self._attached.wait()
        self._cancel()
        raise StopIteration
