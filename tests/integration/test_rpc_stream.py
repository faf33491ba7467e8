"""MatchStream: audio that is still arriving."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable

import grpc
import numpy as np
import psutil
import pytest
from tests.integration.rpc import Running, eventually, refused, running, split
from tests.media import encode, video
from tests.sounds import tune

import soundhash
from soundhash.v1 import catalog_pb2, match_pb2
from soundhash_server.embedded_valkey import Valkey

Events = list[match_pb2.MatchStreamResponse]
PCM = match_pb2.PcmFormat(encoding=match_pb2.PCM_ENCODING_S16LE, sample_rate_hz=8000, channels=1)


@pytest.fixture(scope="module")
async def song(server: Running) -> catalog_pb2.Video:
    """One indexed song of a minute."""
    return await server.add(encode(tune(60.0, 1)), "One.wav", source_url="https://youtu.be/abc")


def s16(pcm: np.ndarray) -> bytes:
    return (pcm * 32767).astype("<i2").tobytes()


async def requests(
    chunks: Iterable[bytes],
    *,
    pcm: match_pb2.PcmFormat | None = None,
    pace_s: float = 0.0,
    stop_after_first: bool = False,
) -> AsyncIterator[match_pb2.MatchStreamRequest]:
    config = match_pb2.MatchStreamConfig(pcm=pcm, stop_after_first=stop_after_first)
    yield match_pb2.MatchStreamRequest(config=config)
    for chunk in chunks:
        await asyncio.sleep(pace_s)
        yield match_pb2.MatchStreamRequest(audio=chunk)


async def listen(server: Running, messages: AsyncIterator) -> Events:
    call = server.match.MatchStream(messages)
    events: Events = []
    async with asyncio.timeout(30):
        while (event := await call.read()) != grpc.aio.EOF:
            events.append(event)
    return events


def kinds(events: Events) -> list[str]:
    return [event.WhichOneof("event") for event in events]


def seconds(duration) -> float:
    return duration.ToTimedelta().total_seconds()


def check_shape(events: Events) -> None:
    """What holds for every stream that ends well."""
    assert kinds(events)[-1] == "summary"
    assert "summary" not in kinds(events)[:-1]
    assert kinds(events).index("opened") == 0
    assert kinds(events).count("opened") == 1
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    taken = [event.received_bytes for event in events]
    assert taken == sorted(taken)
    heard = [seconds(event.heard) for event in events]
    assert heard == sorted(heard)
    for kind in ("heard_so_far", "provisional"):
        told = [seconds(event.heard) for event in events if event.WhichOneof("event") == kind]
        assert all(later - earlier >= 0.499 for earlier, later in itertools.pairwise(told))
    assert events[-1].summary.match_count == kinds(events).count("final")


@pytest.mark.parametrize("container", ["pcm", "wav", "mp3", "ogg", "opus", "matroska"])
async def test_a_stream_names_its_video(
    server: Running, song: catalog_pb2.Video, container: str
) -> None:
    clip = tune(60.0, 1)[160_000:240_000]
    if container == "pcm":
        events = await listen(server, requests(split(s16(clip), 1601), pcm=PCM))
    else:
        events = await listen(server, requests(split(encode(clip, container), 777)))
    check_shape(events)
    assert {"heard_so_far", "provisional", "final"} <= set(kinds(events))
    provisional = next(e.provisional for e in events if e.WhichOneof("event") == "provisional")
    assert provisional.match.video_id == song.id
    assert provisional.match.id == ""
    assert 0.0 < provisional.stability <= 1.0
    (final,) = [event.final for event in events if event.WhichOneof("event") == "final"]
    assert final.video_id == song.id
    assert seconds(final.video_start) - seconds(final.clip_start) == pytest.approx(20.0, abs=0.15)
    assert final.source_url.startswith("https://youtu.be/abc?t=")
    # What was final is kept.
    assert await server.match.GetMatch(match_pb2.GetMatchRequest(id=final.id)) == final
    listed = await server.match.ListMatches(
        match_pb2.ListMatchesRequest(query_id=events[-1].summary.query_id)
    )
    assert [match.id for match in listed.matches] == [final.id]
    level_db = [e.heard_so_far.level_db for e in events if e.WhichOneof("event") == "heard_so_far"]
    assert all(-60.0 < level <= 0.0 for level in level_db)


async def test_answers_come_while_audio_still_arrives(
    server: Running, song: catalog_pb2.Video
) -> None:
    clip = split(s16(tune(60.0, 1)[80_000:240_000]), 8000)
    answered = asyncio.Event()

    async def endless() -> AsyncIterator:
        async for request in requests(clip[:16], pcm=PCM):
            yield request
        await answered.wait()

    call = server.match.MatchStream(endless())
    async with asyncio.timeout(10):
        while True:
            event = await call.read()
            if event.WhichOneof("event") == "provisional":
                break
    assert event.provisional.match.video_id == song.id
    answered.set()
    async with asyncio.timeout(10):
        while (event := await call.read()) != grpc.aio.EOF:
            last = event
    assert last.WhichOneof("event") == "summary"


async def test_a_stream_that_stops_at_its_first_match(
    server: Running, song: catalog_pb2.Video
) -> None:
    clip = split(s16(tune(60.0, 1)), 8000)
    events = await listen(server, requests(clip, pcm=PCM, stop_after_first=True))
    check_shape(events)
    assert kinds(events).count("final") == 1
    assert seconds(events[-1].heard) < 15.0
    final = next(event.final for event in events if event.WhichOneof("event") == "final")
    assert final.video_id == song.id
    assert final.parts.score >= 4.0


async def test_stopping_early_while_the_caller_still_sends(
    server: Running, song: catalog_pb2.Video
) -> None:
    """Through the SDK, see below."""

    async def sending() -> AsyncIterator[bytes]:
        for piece in split(s16(tune(60.0, 1)), 8000):
            yield piece
            await asyncio.sleep(0.05)

    pcm = soundhash.PcmFormat(soundhash.PcmEncoding.S16LE, 8000, 1)
    async with soundhash.AsyncClient(server.address) as client:
        stream = client.stream(sending(), pcm=pcm, stop_after_first=True)
        events = [event async for event in stream]
    (final,) = [event for event in events if isinstance(event, soundhash.FinalMatch)]
    assert final.match.video_id == song.id
    assert events[-1].match_count == 1


async def test_a_stream_that_turns_bad_while_the_caller_still_sends(server: Running) -> None:
    """Through the SDK: grpc.aio itself may lose the status of a call that ends while it sends."""

    async def sending() -> AsyncIterator[bytes]:
        for piece in split(video(tune(20.0, 1), "mp4"), 2000):
            yield piece
            await asyncio.sleep(0.01)

    async with soundhash.AsyncClient(server.address) as client:
        with pytest.raises(soundhash.InvalidArgument) as caught:
            async for _ in client.stream(sending()):
                pass
    assert caught.value.reason == "MOOV_AT_END"


async def test_unknown_and_silent_audio_end_without_a_match(server: Running) -> None:
    for audio in (tune(6.0, 999), np.zeros(48_000, np.float32)):
        events = await listen(server, requests(split(s16(audio), 4000), pcm=PCM))
        check_shape(events)
        assert set(kinds(events)) == {"opened", "heard_so_far", "gap", "summary"}
        (gap,) = [event.gap for event in events if event.WhichOneof("event") == "gap"]
        assert (seconds(gap.start), seconds(gap.end)) == (0.0, 6.0)
    heard = [event.heard_so_far for event in events if event.WhichOneof("event") == "heard_so_far"]
    assert {(one.level_db, one.peak_db) for one in heard} == {(-120.0, -120.0)}
    silence = [match_pb2.STREAM_WARNING_SILENCE]
    assert [list(one.warnings) for one in heard] == 5 * [[]] + (len(heard) - 5) * [silence]


@pytest.mark.parametrize(
    ("encoding", "dtype", "scale"),
    [
        (match_pb2.PCM_ENCODING_S16LE, "<i2", 32767),
        (match_pb2.PCM_ENCODING_S32LE, "<i4", 2**31 - 1),
        (match_pb2.PCM_ENCODING_F32LE, "<f4", 1),
    ],
)
async def test_raw_formats(
    server: Running, song: catalog_pb2.Video, encoding: int, dtype: str, scale: int
) -> None:
    mono = np.repeat(tune(60.0, 1)[160_000:224_000], 2)  # 16 kHz
    stereo = np.stack([mono, mono], axis=1).astype(np.float64)
    raw = (stereo * scale).astype(dtype).tobytes()
    pcm = match_pb2.PcmFormat(encoding=encoding, sample_rate_hz=16000, channels=2)
    events = await listen(server, requests(split(raw, 10_001), pcm=pcm))
    assert [e.final.video_id for e in events if e.WhichOneof("event") == "final"] == [song.id]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "EMPTY_MEDIA"),
        (b"no sound, just words. " * 5000, "NOT_MEDIA"),
        (video(None, "matroska"), "NO_AUDIO_STREAM"),
        (video(tune(2.0, 1), "mp4"), "MOOV_AT_END"),
        (encode(tune(0.5, 1)), "CLIP_TOO_SHORT"),
    ],
    ids=["empty", "text", "video-only", "moov-at-end", "short"],
)
async def test_streams_that_cannot_be_used(server: Running, content: bytes, reason: str) -> None:
    with refused("INVALID_ARGUMENT", reason):
        await listen(server, requests(split(content, 4096)))
    await streams_end(server)


async def streams_end(server: Running) -> None:
    live = server.server._live
    await eventually(lambda: live.streams == 0)


async def test_what_a_stream_must_begin_with(server: Running) -> None:
    async def audio_first() -> AsyncIterator:
        yield match_pb2.MatchStreamRequest(audio=b"x")

    async def config_twice() -> AsyncIterator:
        for _ in range(2):
            yield match_pb2.MatchStreamRequest(config=match_pb2.MatchStreamConfig(pcm=PCM))

    async def bad_format() -> AsyncIterator:
        yield match_pb2.MatchStreamRequest(
            config=match_pb2.MatchStreamConfig(pcm=match_pb2.PcmFormat(sample_rate_hz=1))
        )

    async def bad_later() -> AsyncIterator:
        yield match_pb2.MatchStreamRequest(config=match_pb2.MatchStreamConfig(pcm=PCM))
        yield match_pb2.MatchStreamRequest(audio=bytes((1 << 20) + 1))

    with refused("INVALID_ARGUMENT", "STREAM_CONFIG_MISSING"):
        await listen(server, audio_first())
    with refused("INVALID_ARGUMENT", "STREAM_CONFIG_REPEATED"):
        await listen(server, config_twice())
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await listen(server, bad_format())
    assert sorted(caught[0].fields) == [
        "config.pcm.channels",
        "config.pcm.encoding",
        "config.pcm.sample_rate_hz",
    ]
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await listen(server, bad_later())
    assert list(caught[0].fields) == ["audio"]
    await streams_end(server)


@pytest.fixture(scope="module")
async def strict(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Running]:
    """A server with little patience and room."""
    async for url in database_factory():
        folder = tmp_path_factory.mktemp("strict")
        async with running(
            url, valkey_server.url, folder, stream_idle_s=0.5, stream_resume_s=0, max_streams=2
        ) as made:
            yield made


async def test_a_caller_that_leaves_frees_everything(strict: Running) -> None:
    """Where streams are not kept for clients that come back."""
    for container in (None, PCM):
        calls = []
        for _ in range(2):

            async def forever(pcm: match_pb2.PcmFormat | None = container) -> AsyncIterator:
                data = s16(tune(3.0, 1)) if pcm else encode(tune(3.0, 1), "mp3")
                async for request in requests(split(data, 4000), pcm=pcm):
                    yield request
                await asyncio.sleep(60)

            call = strict.match.MatchStream(forever())
            await call.read()
            await call.read()
            calls.append(call)
        for call in calls:
            call.cancel()
        await streams_end(strict)
        await eventually(lambda: not any("decoder" in t.name for t in threading.enumerate()))


async def test_a_stream_that_sends_nothing_is_ended(strict: Running) -> None:
    async def idle() -> AsyncIterator:
        yield match_pb2.MatchStreamRequest(config=match_pb2.MatchStreamConfig(pcm=PCM))
        await asyncio.sleep(30)

    with refused("DEADLINE_EXCEEDED", "STREAM_IDLE"):
        await listen(strict, idle())
    await streams_end(strict)

    async def idle_upload() -> AsyncIterator:
        from soundhash.v1 import ingest_pb2

        yield ingest_pb2.UploadRequest(config=ingest_pb2.UploadConfig(file_name="a"))
        yield ingest_pb2.UploadRequest(chunk=b"x" * 1000)
        await asyncio.sleep(30)

    with refused("DEADLINE_EXCEEDED", "STREAM_IDLE"):
        await strict.ingest.Upload(idle_upload())
    assert strict.files_left() == []


async def test_streams_over_the_limit_are_turned_away(strict: Running) -> None:
    release = asyncio.Event()

    async def slow() -> AsyncIterator:
        async for request in requests([s16(tune(2.0, 1))], pcm=PCM):
            yield request
        while not release.is_set():
            await asyncio.sleep(0.1)
            yield match_pb2.MatchStreamRequest(audio=bytes(800))

    calls = [strict.match.MatchStream(slow()) for _ in range(2)]
    for call in calls:
        await call.read()

    async def patient() -> AsyncIterator:
        yield match_pb2.MatchStreamRequest(config=match_pb2.MatchStreamConfig(pcm=PCM))
        await asyncio.sleep(30)

    with refused("RESOURCE_EXHAUSTED", "SERVER_BUSY") as caught:
        await listen(strict, patient())
    assert caught[0].details["RetryInfo"].retry_delay.ToMilliseconds() > 0
    release.set()
    for call in calls:
        while await call.read() != grpc.aio.EOF:
            pass
    await streams_end(strict)


async def test_a_flood_of_audio_is_taken_no_faster_than_it_is_searched(strict: Running) -> None:
    sent = 0

    async def flood() -> AsyncIterator:
        nonlocal sent
        yield match_pb2.MatchStreamRequest(config=match_pb2.MatchStreamConfig(pcm=PCM))
        while True:
            yield match_pb2.MatchStreamRequest(audio=bytes(16_000))
            sent += 1

    call = strict.match.MatchStream(flood())
    await eventually(lambda: strict.server._live.streams == 1)
    await asyncio.sleep(1.0)
    call.cancel()
    await streams_end(strict)
    # A second of audio each: what was taken is bounded by the search and by buffers.
    assert sent < 5_000


async def test_an_endless_stream_in_flat_memory(server: Running, song: catalog_pb2.Video) -> None:
    me = psutil.Process(os.getpid())
    minute = s16(tune(60.0, 1))
    rounds = 4

    async def endless() -> AsyncIterator:
        chunks = itertools.chain.from_iterable(split(minute, 32_000) for _ in range(rounds))
        async for request in requests(chunks, pcm=PCM):
            yield request

    call = server.match.MatchStream(endless())
    sizes = []
    finals = 0
    async with asyncio.timeout(60):
        while (event := await call.read()) != grpc.aio.EOF:
            finals += event.WhichOneof("event") == "final"
            if seconds(event.heard) > 60:
                sizes.append(me.memory_info().rss)
    assert finals >= rounds - 1
    assert max(sizes) - sizes[0] < 20 << 20
