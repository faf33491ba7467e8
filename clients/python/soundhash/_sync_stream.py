"""Live audio through the plain client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable

import grpc

from soundhash import _types as t
from soundhash._config import ClientConfig
from soundhash._course import MESSAGE_BYTES, Course
from soundhash._errors import from_rpc_error
from soundhash._stubs import Stubs
from soundhash.v1 import match_pb2


def run(
    stubs: Callable[[], Stubs], config: ClientConfig, course: Course, chunks: Iterable[bytes]
) -> Generator[t.StreamEvent, None, None]:
    """The events of a stream, over as many calls as it takes."""
    audio = _Audio(course, chunks)
    try:
        while True:
            requests = _Requests(audio)
            call = stubs().match.MatchStream(
                requests, timeout=course.remaining_s, metadata=config.metadata
            )
            requests.attach(call.cancel)
            audio.start()
            try:
                for message in call:
                    event = audio.take(message)
                    if event is not None:
                        yield event
                return
            except grpc.RpcError as error:
                audio.check()
                interrupted = audio.broken(error, config.address)
            finally:
                requests.stop()
                call.cancel()
            yield interrupted
            audio.pause(interrupted.retry_in_s)
    finally:
        audio.stop()


class _Audio:
    """Takes audio in, in a thread of its own, and guards what the threads of a stream share.

    That thread outlives the calls: a source that is waiting for its next chunk when the
    connection breaks cannot be asked a second time.
    """

    def __init__(self, course: Course, chunks: Iterable[bytes]) -> None:
        self.changed = threading.Condition()
        self.course = course
        self.error: BaseException | None = None
        self._chunks = chunks
        self._stopped = False
        self._cancel: Callable[[], object] = lambda: None
        self._thread = threading.Thread(
            target=self._take_in, name="soundhash-stream-audio", daemon=True
        )

    def start(self) -> None:
        """Begins to take audio in, unless that has begun."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Takes no more audio in; a chunk that is being waited for is thrown away."""
        with self.changed:
            self._stopped = True
            self.changed.notify_all()

    def take(self, message: match_pb2.MatchStreamResponse) -> t.StreamEvent | None:
        """As `Course.take`."""
        with self.changed:
            event = self.course.take(message)
            self.changed.notify_all()
        return event

    def broken(self, error: grpc.RpcError, address: str) -> t.StreamInterrupted:
        """As `Course.broken`."""
        with self.changed:
            interrupted = self.course.broken(from_rpc_error(error, address))
            self.changed.notify_all()
        return interrupted

    def check(self) -> None:
        """Raises what the source of the audio has raised."""
        if self.error is not None:
            raise self.error from None

    def pause(self, delay_s: float | None) -> None:
        """Waits for so long, or until there is more audio; not longer than the source works."""
        with self.changed:
            self.changed.wait_for(
                lambda: self.error is not None or (delay_s is None and not self.course.is_idle),
                delay_s,
            )
        self.check()

    def cancels(self, cancel: Callable[[], object]) -> None:
        """Names what ends the call when the source fails."""
        with self.changed:
            self._cancel = cancel
            failed = self.error is not None
        if failed:
            cancel()

    def _take_in(self) -> None:
        try:
            for chunk in self._chunks:
                with memoryview(chunk).cast("B") as view:
                    for start in range(0, len(view), MESSAGE_BYTES):
                        with self.changed:
                            self.course.add(view[start : start + MESSAGE_BYTES])
                            self.changed.notify_all()
                            self.changed.wait_for(lambda: self._stopped or self.course.has_room)
                if self._stopped:
                    return
            with self.changed:
                self.course.end()
                self.changed.notify_all()
        except BaseException as error:
            # The server must never take a part for the whole.
            with self.changed:
                self.error = error
                self.changed.notify_all()
                cancel = self._cancel
            cancel()


class _Requests:
    """The messages of one call, taken by gRPC from a thread of its own."""

    def __init__(self, audio: _Audio) -> None:
        self._audio = audio
        with audio.changed:
            self._first: match_pb2.MatchStreamRequest | None = audio.course.first_message()
        self._over = False
        self._attached = threading.Event()
        self._cancel: Callable[[], object] = lambda: None

    def attach(self, cancel: Callable[[], object]) -> None:
        """Names what cancels the call."""
        self._cancel = cancel
        self._attached.set()
        self._audio.cancels(cancel)

    def stop(self) -> None:
        """The call is over."""
        with self._audio.changed:
            self._over = True
            self._audio.changed.notify_all()

    def __iter__(self) -> _Requests:
        return self

    def __next__(self) -> match_pb2.MatchStreamRequest:
        audio = self._audio
        if self._first is not None:
            first, self._first = self._first, None
            return first
        with audio.changed:
            while not self._over and audio.error is None:
                piece = audio.course.next_audio()
                if piece is None:
                    raise StopIteration
                if piece:
                    audio.changed.notify_all()
                    return match_pb2.MatchStreamRequest(audio=piece)
                audio.changed.wait()
        if audio.error is not None:
            self._attached.wait()
            self._cancel()
        raise StopIteration
