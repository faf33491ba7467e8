"""Streams whose connection breaks go on, and nothing that was heard is lost."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.scripted import Caller, ScriptedServer, fail, fail_plainly

import soundhash
from soundhash._course import MOST_KEPT_BYTES, Course, Tape
from soundhash.v1 import match_pb2
from soundhash_server.errors import ErrorKind

PCM = soundhash.PcmFormat(soundhash.PcmEncoding.S16LE, 8000, 1)
SECOND = 16_000
UNAVAILABLE = fail_plainly(grpc.StatusCode.UNAVAILABLE, "Socket closed")


NOISE = random.Random(1).randbytes(45 * SECOND)


def audio(n_seconds: int) -> bytes:
    """Bytes that tell where they lie."""
    return NOISE[: n_seconds * SECOND]


def duration(value_s: float) -> Duration:
    return Duration(seconds=int(value_s), nanos=round(value_s % 1 * 1e9))


class Streams:
    """A server that keeps streams over breaks; a second of PCM is an event.

    cuts: after how many seconds of the whole stream each connection breaks. forgets: how many
    breaks make it forget the stream.
    """

    def __init__(
        self, cuts: Sequence[float] = (), *, forgets: int = 0, within_s: float = 5.0
    ) -> None:
        self.cuts = list(cuts)
        self.forgets = forgets
        self.within_s = within_s
        self.heard = bytearray()
        self.streams: list[bytes] = []
        self.configs: list[match_pb2.MatchStreamConfig] = []
        self.finals: list[match_pb2.MatchStreamResponse] = []
        self.sequence = 0
        self.token = ""
        self.whole = 0
        self.untold = False
        """The next cut comes when a final is made and before it is sent."""

    def event(self, **what: Any) -> match_pb2.MatchStreamResponse:
        self.sequence += 1
        return match_pb2.MatchStreamResponse(
            heard=duration(len(self.heard) / SECOND),
            sequence=self.sequence,
            received_bytes=len(self.heard),
            **what,
        )

    def final(self, start_s: float, end_s: float) -> match_pb2.MatchStreamResponse:
        match = match_pb2.Match(
            video_id="v", clip_start=duration(start_s), clip_end=duration(end_s)
        )
        made = self.event(final=match)
        self.finals.append(made)
        return made

    def __call__(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        config = next(requests).config
        self.configs.append(config)
        resumed = config.HasField("resume")
        if resumed and config.resume.token != self.token:
            fail(ErrorKind.NOT_FOUND, "STREAM_NOT_FOUND")(requests, context)
        if not resumed:
            self.streams.append(b"")
            self.heard, self.finals, self.sequence = bytearray(), [], 0
            self.token = f"token-{len(self.streams)}"
        opened = match_pb2.StreamOpened(
            resume_token=self.token,
            received_bytes=len(self.heard),
            resume_within=duration(self.within_s),
            resumed=resumed,
        )
        yield self.event(opened=opened)
        if resumed:
            yield from [e for e in self.finals if e.sequence > config.resume.last_sequence]
        for piece in (p for request in requests for p in split(request.audio)):
            self.heard += piece
            self.streams[-1] = bytes(self.heard)
            self.whole += len(piece)
            second = len(self.heard) // SECOND
            if self.cuts and self.whole >= self.cuts[0] * SECOND:
                self.cuts.pop(0)
                if self.untold:
                    self.final(second - 2, second - 1)
                if self.forgets:
                    self.forgets -= 1
                    self.token = "another"
                UNAVAILABLE(requests, context)
            yield self.event(heard_so_far=match_pb2.HeardSoFar(level_db=-20, peak_db=-3))
        yield self.final(len(self.heard) / SECOND - 1, len(self.heard) / SECOND)
        summary = match_pb2.StreamSummary(query_id="q", match_count=len(self.finals))
        yield self.event(summary=summary)


def split(content: bytes) -> Iterator[bytes]:
    """Half seconds."""
    for at in range(0, len(content), SECOND // 2):
        yield content[at : at + SECOND // 2]


def pieces(content: bytes) -> Iterator[bytes]:
    for piece in split(content):
        time.sleep(0.002)
        yield piece


def kinds(events: list[Any]) -> list[str]:
    """Kinds of events in their order, runs of one kind as one."""
    return [kind for kind, _ in itertools.groupby(type(event).__name__ for event in events)]


@pytest.mark.parametrize("form", [PCM, None])
async def test_a_broken_stream_goes_on_where_the_server_is(
    call: Caller, scripted: ScriptedServer, form: soundhash.PcmFormat | None
) -> None:
    server = Streams([3, 5.5, 9])
    scripted.on("MatchStream", server)
    content = audio(12)
    events = await call("stream", pieces(content), pcm=form, window_s=6.0)
    assert server.streams == [content], "nothing lost, nothing twice"
    opened = [e for e in events if isinstance(e, soundhash.StreamOpened)]
    assert [e.resumed for e in opened] == [False, True, True, True]
    assert "token-1" not in repr(opened[0])
    broken = [e for e in events if isinstance(e, soundhash.StreamInterrupted)]
    assert [e.error.reason for e in broken] == ["CONNECTION_LOST"] * 3
    assert isinstance(broken[0].error, soundhash.Unavailable) and 0 < broken[0].retry_in_s < 1
    assert kinds(events)[-2:] == ["FinalMatch", "StreamSummary"]
    heard = [e.heard_s for e in events]
    assert heard == sorted(heard) and heard[-1] == 12.0
    first, *others = server.configs
    assert first.window == Duration(seconds=6) and not first.HasField("resume")
    assert [c.resume.token for c in others] == ["token-1"] * 3
    assert all(later.resume.last_sequence > 0 for later in others)


async def test_what_was_told_while_nobody_listened_is_told_again(
    call: Caller, scripted: ScriptedServer
) -> None:
    server = Streams([4, 8])
    server.untold = True
    scripted.on("MatchStream", server)
    events = await call("stream", pieces(audio(10)), pcm=PCM)
    finals = [e.match.clip_start_s for e in events if isinstance(e, soundhash.FinalMatch)]
    assert finals == [2.0, 6.0, 9.0], "each once"
    assert events[-1].match_count == 3


async def test_a_server_that_has_forgotten_hears_raw_audio_again(
    call: Caller, scripted: ScriptedServer
) -> None:
    """30 s from before, and the times of the whole stream."""
    server = Streams([40], forgets=1)
    scripted.on("MatchStream", server)
    content = audio(45)
    events = await call("stream", pieces(content), pcm=PCM)
    first, second = server.streams
    assert content.startswith(first) and content.endswith(second)
    replayed_s = (len(first) + len(second)) / SECOND - 45
    assert 25 <= replayed_s <= 31, "what the server had taken, less half a minute"
    opened = [e for e in events if isinstance(e, soundhash.StreamOpened)]
    assert [e.resumed for e in opened] == [False, False]
    assert opened[1].heard_s == pytest.approx(45 - len(second) / SECOND)
    assert events[-2].match.clip_end_s == pytest.approx(45.0)
    assert events[-1] == soundhash.StreamSummary(pytest.approx(45.0), "q", 1)
    reasons = [e.error.reason for e in events if isinstance(e, soundhash.StreamInterrupted)]
    assert reasons == ["CONNECTION_LOST", "STREAM_NOT_FOUND"]


async def test_what_was_final_is_not_searched_again(call: Caller, scripted: ScriptedServer) -> None:
    server = Streams([10], forgets=1)
    told = threading.Event()

    def reply(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for event in server(requests, context):
            yield event
            if event.received_bytes >= 8 * SECOND and not told.is_set():
                told.set()
                yield server.final(2, 6.5)

    scripted.on("MatchStream", reply)
    content = audio(12)
    events = await call("stream", pieces(content), pcm=PCM)
    assert server.streams[1] == content[round(6.5 * SECOND) :]
    assert events[-1].match_count == 2
    finals = [e.match.clip_end_s for e in events if isinstance(e, soundhash.FinalMatch)]
    assert finals == [6.5, 12.0]


async def test_a_container_cannot_be_picked_up_in_its_middle(
    call: Caller, scripted: ScriptedServer
) -> None:
    scripted.on("MatchStream", Streams([2], forgets=1))
    with pytest.raises(soundhash.NotFound) as caught:
        await call("stream", pieces(audio(4)))
    assert caught.value.reason == "STREAM_NOT_FOUND"
    assert "restarted" in caught.value.message and "raw audio" in caught.value.remedy


async def test_a_server_that_stays_away_is_given_up(call: Caller, scripted: ScriptedServer) -> None:
    server = Streams([2], within_s=0.5)
    scripted.on("MatchStream", server, UNAVAILABLE)
    with pytest.raises(soundhash.Unavailable) as caught:
        await call("stream", pieces(audio(4)), pcm=PCM)
    assert caught.value.reason == "CONNECTION_LOST"
    assert 2 < scripted.count("MatchStream") < 20


async def test_connections_that_only_open_do_not_go_on_for_ever(
    call: Caller, scripted: ScriptedServer
) -> None:
    server = Streams([1], within_s=0.5)

    def flap(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        yield next(iter(server(requests, context)))
        UNAVAILABLE(requests, context)

    scripted.on("MatchStream", server, flap)
    with pytest.raises(soundhash.Unavailable):
        await call("stream", pieces(audio(4)), pcm=PCM)
    assert scripted.count("MatchStream") < 20


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ({"resume": False}, lambda: Streams([2])),
        ({}, lambda: Streams([2], within_s=0)),
        ({}, lambda: UNAVAILABLE),
        ({}, lambda: fail(ErrorKind.RESOURCE_EXHAUSTED, "SERVER_BUSY", retry_after_s=0.01)),
    ],
    ids=["not wanted", "not offered", "first call", "busy"],
)
async def test_streams_that_are_not_resumed(
    call: Caller, scripted: ScriptedServer, options: dict[str, Any], made: Callable[[], Any]
) -> None:
    scripted.on("MatchStream", made())
    with pytest.raises((soundhash.Unavailable, soundhash.ResourceExhausted)):
        await call("stream", pieces(audio(4)), pcm=PCM, **options)
    assert scripted.count("MatchStream") == 1


async def test_errors_of_the_stream_itself_end_it(call: Caller, scripted: ScriptedServer) -> None:
    server = Streams()

    def reply(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for event in server(requests, context):
            yield event
            if event.received_bytes > SECOND:
                fail(ErrorKind.INVALID_ARGUMENT, "NOT_MEDIA")(requests, context)

    scripted.on("MatchStream", reply)
    with pytest.raises(soundhash.InvalidArgument):
        await call("stream", pieces(audio(4)), pcm=PCM)
    assert scripted.count("MatchStream") == 1


async def test_a_busy_server_is_asked_again_when_it_said(
    call: Caller, scripted: ScriptedServer
) -> None:
    server = Streams([3], forgets=1)
    busy = fail(ErrorKind.RESOURCE_EXHAUSTED, "SERVER_BUSY", retry_after_s=0.2)
    scripted.on("MatchStream", server, server, busy, server)
    events = await call("stream", pieces(audio(5)), pcm=PCM)
    waits = [e for e in events if isinstance(e, soundhash.StreamInterrupted)]
    assert [e.error.reason for e in waits] == [
        "CONNECTION_LOST",
        "STREAM_NOT_FOUND",
        "SERVER_BUSY",
    ]
    assert waits[2].retry_in_s >= 0.2
    assert server.streams[1] == audio(5), "all of it lies within the last 30 s"


async def test_a_source_that_waits_when_the_connection_breaks(
    call: Caller, scripted: ScriptedServer
) -> None:
    """Its next chunk, asked for before the break, is the first one after it."""
    server = Streams([1])
    back = threading.Event()

    def reply(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for event in server(requests, context):
            if event.WhichOneof("event") == "opened" and event.opened.resumed:
                back.set()
            yield event

    def chunks() -> Iterator[bytes]:
        content = audio(3)
        yield content[:SECOND]
        assert back.wait(10)
        yield content[SECOND:]

    scripted.on("MatchStream", reply)
    await call("stream", chunks(), pcm=PCM)
    assert server.streams == [audio(3)]


async def test_a_source_that_pauses(call: Caller, scripted: ScriptedServer) -> None:
    """The server ends a stream that sends nothing; the client comes back when it has more."""
    server = Streams()
    idle = fail(ErrorKind.DEADLINE_EXCEEDED, "STREAM_IDLE")
    quiet = threading.Event()

    def reply(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for event in server(requests, context):
            yield event
            if event.received_bytes == 2 * SECOND and not quiet.is_set():
                quiet.set()
                idle(requests, context)

    def chunks() -> Iterator[bytes]:
        yield audio(2)
        assert quiet.wait(10)
        time.sleep(0.3)
        assert scripted.count("MatchStream") == 1, "there is nothing to call for"
        yield audio(5)[2 * SECOND :]

    scripted.on("MatchStream", reply)
    events = await call("stream", chunks(), pcm=PCM)
    assert server.streams == [audio(5)]
    (waited,) = [e for e in events if isinstance(e, soundhash.StreamInterrupted)]
    assert waited.error.reason == "STREAM_IDLE" and waited.retry_in_s is None
    assert kinds(events)[-1] == "StreamSummary"


async def test_a_source_that_fails_during_a_break(call: Caller, scripted: ScriptedServer) -> None:
    fails = threading.Event()

    def away(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        fails.set()
        yield from UNAVAILABLE(requests, context)

    def chunks() -> Iterator[bytes]:
        yield audio(2)
        assert fails.wait(10)
        raise OSError(5, "the microphone is gone")

    scripted.on("MatchStream", Streams([1], within_s=60), away)
    with pytest.raises(OSError, match="the microphone is gone"):
        await call("stream", chunks(), pcm=PCM)


async def test_leaving_during_a_break(scripted: ScriptedServer, call: Caller) -> None:
    scripted.on("MatchStream", Streams([1], within_s=60), UNAVAILABLE)
    client: Any = call.client
    if call.kind == "plain":

        def run() -> None:
            stream = client.stream(pieces(audio(9)), pcm=PCM)
            while not isinstance(next(stream), soundhash.StreamInterrupted):
                pass
            stream.close()

        await asyncio.to_thread(run)
    else:
        stream = client.stream(pieces(audio(9)), pcm=PCM)
        while not isinstance(await anext(stream), soundhash.StreamInterrupted):
            pass
        await stream.aclose()


async def test_memory_is_bounded_while_the_server_is_away(
    call: Caller, scripted: ScriptedServer
) -> None:
    """A source that is faster than audio plays is not read without end."""
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1 << 18
            yield bytes(1 << 18)

    scripted.on("MatchStream", Streams([1], within_s=1.5), UNAVAILABLE)
    with pytest.raises(soundhash.Unavailable):
        await call("stream", chunks(), pcm=PCM)
    assert 4 << 20 < taken < MOST_KEPT_BYTES + (4 << 20)


# ---- the state behind it ----


def test_a_tape_keeps_its_latest_part() -> None:
    tape = Tape()
    tape.add(b"abcdef")
    assert (tape.start, tape.end, tape.read(2, 3), tape.read(6, 3)) == (0, 6, b"cde", b"")
    tape.forget(2)
    tape.forget(1)
    assert (tape.start, tape.end, tape.read(2, 9)) == (2, 6, b"cdef")
    tape.forget(99)
    assert (tape.start, tape.end) == (6, 6)
    tape.add(b"gh")
    assert tape.read(7, 1) == b"h"


def opened(received_bytes: int, *, resumed: bool) -> match_pb2.MatchStreamResponse:
    return match_pb2.MatchStreamResponse(
        opened=match_pb2.StreamOpened(
            resume_token="t",
            received_bytes=received_bytes,
            resume_within=Duration(seconds=60),
            resumed=resumed,
        ),
        received_bytes=received_bytes,
    )


def test_audio_that_a_server_leaves_for_too_long_is_dropped() -> None:
    course = Course(match_pb2.MatchStreamConfig(), None, resume=True, timeout_s=None)
    course.first_message()
    course.take(opened(0, resumed=False))
    for _ in range(MOST_KEPT_BYTES // (1 << 18) + 8):
        course.add(bytes(1 << 18))
        while course.next_audio():
            pass
    course.broken(soundhash.Unavailable("away"))
    assert course.first_message().config.resume.token == "t"
    with pytest.raises(soundhash.FailedPrecondition) as caught:
        course.take(opened(1 << 18, resumed=True))
    assert caught.value.reason == "STREAM_AUDIO_GONE"
    # A server that had taken more than it had said can go on.
    course.take(opened(1 << 22, resumed=True))
    assert course.next_audio()


def test_raw_audio_goes_on_at_a_whole_frame() -> None:
    stereo = soundhash.PcmFormat(soundhash.PcmEncoding.S32LE, 8000, 2)
    course = Course(match_pb2.MatchStreamConfig(), stereo, resume=True, timeout_s=None)
    course.first_message()
    course.take(opened(0, resumed=False))
    course.add(bytes(40 * 64_000 + 3))
    while course.next_audio():
        pass
    course.take(
        match_pb2.MatchStreamResponse(
            heard_so_far=match_pb2.HeardSoFar(), sequence=2, received_bytes=40 * 64_000 + 3
        )
    )
    gone = soundhash.NotFound("gone", reason="STREAM_NOT_FOUND")
    assert course.broken(gone).retry_in_s == 0.0
    assert not course.first_message().config.HasField("resume")
    begun = course.take(opened(0, resumed=False))
    assert begun is not None and begun.heard_s * 64_000 % 8 == 0
    assert begun.heard_s == pytest.approx(10.0, abs=0.001)
