"""Uploads, live streams and watched jobs: in order, bounded, ended by either side at any time."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tests.scripted import Caller, ScriptedServer, answer, fail, scripted_server

import soundhash
from soundhash.v1 import fingerprint_pb2, ingest_pb2, match_pb2
from soundhash_server.errors import ErrorKind

ID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
RUNNING = ingest_pb2.Job(id=ID, state=ingest_pb2.JOB_STATE_RUNNING)
DONE = ingest_pb2.Job(
    id=ID,
    state=ingest_pb2.JOB_STATE_SUCCEEDED,
    ingest_result=ingest_pb2.IngestResult(video_id="v"),
)
CONTENT = bytes(range(256)) * 3000 + b"end"


class Uploads:
    """Takes uploads and keeps what came."""

    def __init__(self) -> None:
        self.configs: list[ingest_pb2.UploadConfig] = []
        self.contents: list[bytes] = []
        self.largest = 0

    def __call__(self, requests: Iterator[ingest_pb2.UploadRequest], context: Any) -> Any:
        self.configs.append(next(requests).config)
        chunks = [request.chunk for request in requests]
        self.largest = max(self.largest, *map(len, chunks))
        self.contents.append(b"".join(chunks))
        return RUNNING


# ---- uploads ----


@pytest.mark.parametrize("form", ["path", "text", "bytes", "file", "middle", "pipe"])
async def test_uploads_arrive_whole(
    form: str, call: Caller, scripted: ScriptedServer, tmp_path: Path
) -> None:
    taken = Uploads()
    scripted.on("Upload", taken)
    path = tmp_path / "A song.mp3"
    path.write_bytes(CONTENT)
    expected, name, size = CONTENT, "A song.mp3", len(CONTENT)
    source: Any = path
    if form == "text":
        source = str(path)
    elif form == "bytes":
        source, name = CONTENT, ""
    elif form in ("file", "middle"):
        source = path.open("rb")
        if form == "middle":
            source.seek(1000)
            expected, size = CONTENT[1000:], size - 1000
    elif form == "pipe":
        reading, writing = os.pipe()
        source, name, size = os.fdopen(reading, "rb", 0), "", 0
        threading.Thread(target=lambda: os.fdopen(writing, "wb").write(CONTENT)).start()
    seen: list[tuple[int, int | None]] = []
    job = await call(
        "upload",
        source,
        title="Title",
        external_id="x-1",
        channel="C",
        source_url="https://example.org/1",
        content_sha256="0" * 64,
        request_id="r",
        progress=lambda sent, total: seen.append((sent, total)),
    )
    assert job.id == ID and job.state is soundhash.JobState.RUNNING
    assert taken.contents == [expected]
    assert taken.configs == [
        ingest_pb2.UploadConfig(
            file_name=name,
            title="Title",
            external_id="x-1",
            channel="C",
            source_url="https://example.org/1",
            content_sha256="0" * 64,
            size_bytes=size,
            request_id="r",
        )
    ]
    assert taken.largest <= 1 << 20
    assert [sent for sent, _ in seen] == sorted(sent for sent, _ in seen)
    assert seen[-1] == (len(expected), size or None)
    if form in ("file", "middle"):
        assert not source.closed, "a file that the caller has opened is the caller's to close"
    if form in ("file", "middle", "pipe"):
        source.close()


async def test_an_upload_begins_anew_when_the_server_comes_back(
    call: Caller, scripted: ScriptedServer
) -> None:
    taken = Uploads()

    def break_off(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        for _ in range(3):
            next(requests)
        return fail(ErrorKind.UNAVAILABLE)(requests, context)

    scripted.on("Upload", break_off, break_off, taken)
    await call("upload", io.BytesIO(CONTENT), file_name="x")
    assert taken.contents == [CONTENT]


async def test_an_upload_that_cannot_be_read_again_is_not_repeated(
    call: Caller, scripted: ScriptedServer
) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    scripted.on("Upload", fail(ErrorKind.UNAVAILABLE))
    with pytest.raises(soundhash.Unavailable):
        await call("upload", Pipe(CONTENT))
    assert scripted.count("Upload") == 1


async def test_a_refusal_before_the_end_keeps_its_reason(
    call: Caller, scripted: ScriptedServer
) -> None:
    """The server answers while the client still sends; a failed write must not hide why."""

    def refuse(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        next(requests)
        return fail(ErrorKind.RESOURCE_EXHAUSTED, "UPLOAD_TOO_LARGE")(requests, context)

    scripted.on("Upload", refuse)
    for _ in range(20):
        with pytest.raises(soundhash.ResourceExhausted) as caught:
            await call("upload", bytes(7 << 20))
        assert caught.value.reason == "UPLOAD_TOO_LARGE"


async def test_a_source_that_fails_is_never_taken_for_whole(
    call: Caller, scripted: ScriptedServer
) -> None:
    begun, finished = threading.Event(), threading.Event()

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 500_000:
                begun.wait(10)  # or the server would never hear of the call
                raise OSError(5, "the disk is gone")
            return super().read(size)

    def take(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        for _ in requests:
            begun.set()
        # The requests end before the server knows that the call was cancelled.
        time.sleep(0.2)
        if context.is_active():
            finished.set()
        return RUNNING

    scripted.on("Upload", take)
    with pytest.raises(OSError, match="the disk is gone"):
        await call("upload", Broken(CONTENT))
    assert await asyncio.to_thread(scripted.calls[0].cancelled.wait, 5)
    assert not finished.is_set()
    with pytest.raises(ZeroDivisionError):
        await call("upload", CONTENT, progress=lambda sent, total: 1 / 0)


async def test_file_names_that_are_not_text(
    call: Caller, scripted: ScriptedServer, tmp_path: Path
) -> None:
    taken = Uploads()
    scripted.on("Upload", taken)
    path = tmp_path / os.fsdecode(b"caf\xe9.mp3")
    path.write_bytes(b"abc")
    await call("upload", path)
    assert taken.configs[0].file_name == "caf?.mp3"


async def test_large_media_are_compared_by_their_fingerprints(
    call: Caller, scripted: ScriptedServer
) -> None:
    made = fingerprint_pb2.Fingerprint(
        params_digest="p",
        duration=Duration(seconds=90, nanos=500_000_000),
        landmark_count=5,
        segment_count=1,
        segments=[
            fingerprint_pb2.Segment(
                index=0,
                start=Duration(seconds=1),
                duration=Duration(seconds=90),
                landmark_count=5,
                landmarks=b"l",
                descriptor=b"d",
                vector=b"v",
                md5="m",
            )
        ],
    )
    sent: list[fingerprint_pb2.CompareRequest] = []

    def compare(request: Any, context: Any) -> Any:
        sent.append(request)
        return fingerprint_pb2.CompareResponse(same_audio=True, offset=Duration(nanos=-500_000_000))

    def compute(requests: Iterator[Any], context: Any) -> Any:
        assert sum(len(request.chunk) for request in requests) == 17 << 20
        return made

    scripted.on("Compute", compute)
    scripted.on("Compare", compare)
    found = await call("compare", bytes(17 << 20), b"small")
    assert found.same_audio and found.offset_s == -0.5
    assert sent[0].first.fingerprint == made, "what was received is sent back unchanged"
    assert sent[0].second.content == b"small"


# ---- live streams ----


def events(request_count: int = 0) -> list[match_pb2.MatchStreamResponse]:
    match = match_pb2.Match(
        video_id="v",
        title="T",
        clip_start=Duration(nanos=250_000_000),
        video_start=Duration(seconds=12),
        also_at=[Duration(seconds=72)],
        confidence=0.75,
        create_time=Timestamp(seconds=1_700_000_000),
    )
    heard = Duration(seconds=1, nanos=500_000_000)
    return [
        match_pb2.MatchStreamResponse(
            heard=heard, heard_so_far=match_pb2.HeardSoFar(level_db=-20.5)
        ),
        match_pb2.MatchStreamResponse(
            heard=heard, provisional=match_pb2.ProvisionalMatch(match=match, stability=0.5)
        ),
        match_pb2.MatchStreamResponse(heard=heard),  # of a kind that this client does not know
        match_pb2.MatchStreamResponse(heard=heard, final=match),
        match_pb2.MatchStreamResponse(
            heard=heard, summary=match_pb2.StreamSummary(query_id="q", match_count=1)
        ),
    ]


async def test_a_stream_has_its_events_in_order(call: Caller, scripted: ScriptedServer) -> None:
    got: list[match_pb2.MatchStreamRequest] = []

    def reply(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        got.extend(requests)
        yield from events()

    scripted.on("MatchStream", reply)
    chunks = [b"a" * 10, b"", b"b" * ((5 << 20) // 2)]
    pcm = soundhash.PcmFormat(soundhash.PcmEncoding.F32LE, 48000, 1)
    heard, provisional, final, summary = await call(
        "stream", chunks, pcm=pcm, top=3, min_confidence=0.5, stop_after_first=True
    )
    assert heard == soundhash.Heard(1.5, -20.5)
    assert provisional.stability == 0.5 and provisional.match == final.match
    assert final.match.clip_start_s == 0.25 and final.match.video_start_s == 12.0
    assert final.match.also_at_s == (72.0,)
    assert final.match.create_time == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert summary == soundhash.StreamSummary(1.5, "q", 1)
    config = got[0].config
    assert config.pcm.encoding == match_pb2.PCM_ENCODING_F32LE
    assert (config.pcm.sample_rate_hz, config.pcm.channels) == (48000, 1)
    assert (config.options.top, config.options.min_confidence) == (3, 0.5)
    assert config.stop_after_first
    assert all(request.WhichOneof("payload") == "audio" for request in got[1:])
    assert b"".join(request.audio for request in got[1:]) == b"".join(chunks)
    assert all(0 < len(request.audio) <= 1 << 20 for request in got[1:])


async def test_a_stream_is_two_way(call: Caller, scripted: ScriptedServer) -> None:
    """An answer arrives while audio is still to come."""
    answered = threading.Event()

    def reply(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        next(requests)
        for request in requests:
            yield events()[0]
            assert request.audio

    def chunks() -> Iterator[bytes]:
        yield b"one"
        assert answered.wait(5), "nothing came back before the end of the audio"
        yield b"two"

    scripted.on("MatchStream", reply)

    client: Any = call.client
    seen = 0
    if call.kind == "plain":

        def run() -> int:
            n = 0
            for _ in client.stream(chunks()):
                n += 1
                answered.set()
            return n

        seen = await asyncio.to_thread(run)
    else:
        async for _ in client.stream(chunks()):
            seen += 1
            answered.set()
    assert seen == 2


async def test_what_the_audio_raises_is_raised(call: Caller, scripted: ScriptedServer) -> None:
    begun = threading.Event()

    def reply(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for _ in requests:
            begun.set()
            yield events()[0]

    def chunks() -> Iterator[bytes]:
        yield b"one"
        begun.wait(10)
        raise RuntimeError("the microphone is gone")

    scripted.on("MatchStream", reply)
    with pytest.raises(RuntimeError, match="the microphone is gone"):
        await call("stream", chunks())
    assert await asyncio.to_thread(scripted.calls[0].cancelled.wait, 5)


async def test_a_refusal_in_the_middle_of_a_stream_keeps_its_reason(
    call: Caller, scripted: ScriptedServer
) -> None:
    def reply(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for _ in range(3):
            next(requests)
        yield from fail(ErrorKind.INVALID_ARGUMENT, "NOT_MEDIA")(requests, context)

    scripted.on("MatchStream", reply)
    for _ in range(20):
        with pytest.raises(soundhash.InvalidArgument) as caught:
            await call("stream", (bytes(1000) for _ in range(2000)))
        assert caught.value.reason == "NOT_MEDIA"


async def test_leaving_a_stream_ends_it_on_the_server(
    call: Caller, scripted: ScriptedServer
) -> None:
    def reply(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        while context.is_active():
            yield events()[0]
            time.sleep(0.005)

    def chunks() -> Iterator[bytes]:
        while True:
            yield bytes(100)
            time.sleep(0.005)

    scripted.on("MatchStream", reply)
    client: Any = call.client
    if call.kind == "plain":

        def run() -> None:
            stream = client.stream(chunks())
            next(stream)
            stream.close()

        await asyncio.to_thread(run)
    else:
        stream = client.stream(chunks())
        await anext(stream)
        await stream.aclose()
    assert await asyncio.to_thread(scripted.calls[0].cancelled.wait, 5)


async def test_a_slow_server_holds_the_audio_back(call: Caller, scripted: ScriptedServer) -> None:
    """Audio that a server does not take must not pile up in memory."""
    release = threading.Event()
    taken = 0

    def reply(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        next(requests)
        release.wait(10)
        yield events()[-1]

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        while not release.is_set():
            taken += 1 << 16
            yield bytes(1 << 16)

    scripted.on("MatchStream", reply)
    running = asyncio.create_task(call("stream", chunks()))
    try:
        before = 0
        while taken == 0 or taken != before:
            before = taken
            assert taken < 64 << 20
            await asyncio.sleep(0.3)
    finally:
        release.set()
    await running


async def test_a_slow_reader_holds_the_server_back(
    kind: str, call: Caller, scripted: ScriptedServer
) -> None:
    sent = 0

    def reply(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        nonlocal sent
        job = ingest_pb2.Job(
            id=ID,
            state=ingest_pb2.JOB_STATE_RUNNING,
            ingest=ingest_pb2.IngestParameters(title="x" * 60_000),
        )
        while context.is_active() and sent < 200 << 20:
            sent += 60_000
            job.attempt = sent
            yield job

    scripted.on("WatchJob", reply)
    client: Any = call.client
    watch = client.watch_job(ID)
    if kind == "plain":
        await asyncio.to_thread(next, watch)
        await asyncio.sleep(0.6)
        assert sent < 20 << 20
        await asyncio.to_thread(watch.close)
    else:
        await anext(watch)
        await asyncio.sleep(0.6)
        assert sent < 20 << 20
        await watch.aclose()


async def test_cancelling_a_task_cancels_the_call(scripted: ScriptedServer) -> None:
    reached, release = threading.Event(), threading.Event()

    def slow(request: Any, context: Any) -> Any:
        reached.set()
        release.wait(5)
        return DONE

    scripted.on("GetJob", slow)
    async with soundhash.AsyncClient(scripted.address) as client:
        task = asyncio.create_task(client.get_job(ID))
        assert await asyncio.to_thread(reached.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(scripted.calls[0].cancelled.wait, 5)
        release.set()


async def test_many_threads_may_share_a_client(scripted: ScriptedServer) -> None:
    scripted.on("GetJob", answer(DONE))
    with soundhash.Client(scripted.address) as client:
        jobs = await asyncio.gather(*(asyncio.to_thread(client.get_job, ID) for _ in range(50)))
    assert {job.video_id for job in jobs} == {"v"}


# ---- watching ----


async def test_a_watched_job_survives_a_restart_of_the_server(
    kind: str, call: Caller, scripted: ScriptedServer
) -> None:
    def lose(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield RUNNING
        yield from fail(ErrorKind.UNAVAILABLE)(request, context)

    def refuse(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from fail(ErrorKind.UNAVAILABLE)(request, context)

    # More failures than max_retries: a restart takes its time.
    finish = answer(iter([RUNNING, DONE]))
    scripted.on("WatchJob", lose, refuse, lose, refuse, refuse, refuse, refuse, finish)
    states = [job.state for job in await call("watch_job", ID)]
    assert states == ["RUNNING", "SUCCEEDED"], "the same state is told once"


async def test_waiting_for_a_job(call: Caller, scripted: ScriptedServer) -> None:
    def hang(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield RUNNING
        yield DONE
        while context.is_active():
            time.sleep(0.01)

    scripted.on("WatchJob", hang)
    job = await call("wait_for_job", ID)
    assert job.state.finished and job.video_id == "v"
    assert await asyncio.to_thread(scripted.calls[0].cancelled.wait, 5)


async def test_waiting_has_an_end(call: Caller, scripted: ScriptedServer) -> None:
    def hang(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield RUNNING
        while context.is_active():
            time.sleep(0.01)

    scripted.on("WatchJob", hang)
    with pytest.raises(soundhash.DeadlineExceeded) as caught:
        await call("wait_for_job", ID, timeout_s=0.3)
    assert caught.value.reason == "JOB_NOT_FINISHED"
    assert "0.3 s" in str(caught.value)


async def test_a_missing_job_is_told_at_once(call: Caller, scripted: ScriptedServer) -> None:
    def missing(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from fail(ErrorKind.NOT_FOUND, "JOB_NOT_FOUND")(request, context)

    scripted.on("WatchJob", missing)
    with pytest.raises(soundhash.NotFound):
        await call("wait_for_job", ID)
    assert scripted.count("WatchJob") == 1


async def test_states_of_a_newer_server_do_not_break_the_client(
    call: Caller, scripted: ScriptedServer
) -> None:
    newer = ingest_pb2.Job(id=ID)
    newer.MergeFromString(ingest_pb2.Job().SerializeToString() + b"\x18\x63")  # state = 99
    scripted.on("GetJob", answer(newer))
    job = await call("get_job", ID)
    assert job.state is soundhash.JobState.UNKNOWN
    assert job.progress.step is soundhash.JobStep.UNKNOWN
    assert job.create_time is None and job.result is None and job.video_id == ""


async def test_tls(kind: str, tmp_path: Path) -> None:
    """Against a certificate of an authority that only this client trusts."""
    from tests.certificates import self_signed

    key, certificate = self_signed("soundhash.test")
    with scripted_server(tls=(key, certificate)) as server:
        server.on("GetJob", answer(DONE))
        trusting = soundhash.TlsConfig(root_certificates=certificate, server_name="soundhash.test")
        call = Caller(kind, server.address, tls=trusting)
        assert (await call("get_job", ID)).video_id == "v"
        await call.close()
        doubting = Caller(kind, server.address, tls=soundhash.TlsConfig(), max_retries=0)
        with pytest.raises(soundhash.Unavailable):
            await doubting("get_job", ID)
        await doubting.close()
