"""Streams over connections that break and servers that are restarted, through both clients."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cutting import CuttingProxy, cutting_proxy
from tests.integration.rpc import Running, eventually, running, split
from tests.media import encode
from tests.scripted import Caller
from tests.sounds import tune

import soundhash
from soundhash.v1 import catalog_pb2
from soundhash_server.embedded_valkey import Valkey

PROGRAM = str(Path(sys.executable).with_name("soundhash"))
PCM = soundhash.PcmFormat(soundhash.PcmEncoding.S16LE, 8000, 1)
RATE_HZ = 8000
CLIP_S = 10.0


@pytest.fixture(scope="module")
async def song(server: Running) -> catalog_pb2.Video:
    """One indexed song of a minute."""
    return await server.add(encode(tune(60.0, 31)), "One.wav")


@pytest.fixture
async def proxy(server: Running) -> AsyncIterator[CuttingProxy]:
    async with cutting_proxy(server.server.port) as made:
        yield made


def s16(pcm: np.ndarray) -> bytes:
    return (pcm * 32767).astype("<i2").tobytes()


def clip() -> np.ndarray:
    """From 20 s into the song on."""
    return tune(60.0, 31)[20 * RATE_HZ : 20 * RATE_HZ + round(CLIP_S * RATE_HZ)]


def faster(content: bytes, length_s: float, times: float = 8.0) -> Iterator[bytes]:
    """The content at a multiple of the pace at which it plays."""
    pieces = split(content, max(1, round(len(content) / length_s / 4)))
    for piece in pieces:
        time.sleep(0.25 / times)
        yield piece


async def events_of(
    kind: str, proxy: CuttingProxy, pieces: Iterator[bytes], pcm: soundhash.PcmFormat | None
) -> list[Any]:
    """All events of a stream through the proxy, by the plain client or the one for asyncio."""
    caller = Caller(kind, proxy.address)
    try:
        return list(await caller("stream", pieces, pcm=pcm))
    finally:
        await caller.close()


def of(events: list[Any], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def cut_at(
    proxy: CuttingProxy, content: bytes, places: set[int], length_s: float
) -> Iterator[bytes]:
    """The content; the connection breaks when so many of its quarter seconds have been sent."""
    loop = asyncio.get_running_loop()

    def pieces() -> Iterator[bytes]:
        for number, piece in enumerate(faster(content, length_s)):
            if number in places:
                loop.call_soon_threadsafe(proxy.cut)
            yield piece

    return pieces()


# Each client on its own, each form of audio once: what they have in common is tested in
# tests/contract/test_sdk_stream_resume.py.
@pytest.mark.parametrize(("kind", "container"), [("plain", "mp3"), ("asyncio", "pcm")])
async def test_a_stream_that_is_cut_again_and_again(
    server: Running,
    song: catalog_pb2.Video,
    proxy: CuttingProxy,
    kind: str,
    container: str,
) -> None:
    pcm = PCM if container == "pcm" else None
    content = s16(clip()) if pcm else encode(clip(), container, rate_hz=16_000)
    pieces = cut_at(proxy, content, {3, 12, 20, 21, 33}, CLIP_S)
    events = await events_of(kind, proxy, pieces, pcm)
    broken, opened = of(events, soundhash.StreamInterrupted), of(events, soundhash.StreamOpened)
    assert len(broken) >= 2 and proxy.connections > 2
    assert [one.resumed for one in opened] == [False] + [True] * (len(opened) - 1)
    (final,) = of(events, soundhash.FinalMatch)
    assert final.match.video_id == song.id
    assert final.match.clip_end_s - final.match.clip_start_s == pytest.approx(CLIP_S, abs=0.7)
    assert final.match.video_start_s - final.match.clip_start_s == pytest.approx(20.0, abs=0.15)
    heard = [one.heard_s for one in of(events, soundhash.Heard)]
    assert heard == sorted(heard)
    assert events[-1].match_count == 1
    assert events[-1].heard_s == pytest.approx(CLIP_S, abs=0.2), "nothing lost, nothing twice"


async def test_the_answers_are_those_of_a_stream_that_was_not_cut(
    server: Running, song: catalog_pb2.Video, proxy: CuttingProxy
) -> None:
    content = s16(clip())

    async def finals(pieces: Iterator[bytes]) -> list[tuple[Any, ...]]:
        async with soundhash.AsyncClient(proxy.address) as client:
            events = [event async for event in client.stream(pieces, pcm=PCM)]
        return [
            (m.video_id, m.clip_start_s, m.clip_end_s, m.video_start_s, m.speed, m.parts)
            for m in (one.match for one in of(events, soundhash.FinalMatch))
        ]

    whole = await finals(iter(split(content, 4000)))
    assert whole and await finals(cut_at(proxy, content, {9, 21, 30}, CLIP_S)) == whole


async def test_what_became_final_while_nobody_listened(
    server: Running, song: catalog_pb2.Video, proxy: CuttingProxy
) -> None:
    """Most audio is at the server when the connection breaks, and it stays broken for a while."""
    content = s16(np.concatenate((clip(), np.zeros(20 * RATE_HZ, np.float32))))
    loop = asyncio.get_running_loop()
    heard = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield from split(content, 16_000)
        assert heard.wait(10)
        proxy.refuses = True
        loop.call_soon_threadsafe(proxy.cut)
        loop.call_soon_threadsafe(loop.call_later, 0.5, setattr, proxy, "refuses", False)

    events = []
    async with soundhash.AsyncClient(proxy.address) as client:
        async for event in client.stream(pieces(), pcm=PCM):
            events.append(event)
            heard.set()
    assert [one.match.video_id for one in of(events, soundhash.FinalMatch)] == [song.id]
    assert events[-1].match_count == 1 and events[-1].heard_s == pytest.approx(CLIP_S + 20.0)
    timeline = soundhash.Timeline()
    for event in events:
        timeline.add(event)
    known, gap = timeline
    assert known.match is not None and gap.match is None
    assert gap.start_s == pytest.approx(known.end_s) and gap.end_s == pytest.approx(CLIP_S + 20.0)


@pytest.fixture
async def second_server(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
    song: catalog_pb2.Video,
    server: Running,
) -> AsyncIterator[Running]:
    """Another server with the same catalogue: what a restarted one is to a client."""
    folder = tmp_path_factory.mktemp("second")
    async with running(server.settings.database_url, valkey_server.url, folder) as made:
        await made.caught_up()
        yield made


@pytest.mark.parametrize(("kind", "container"), [("plain", "pcm"), ("asyncio", "mp3")])
async def test_a_server_that_was_restarted(
    server: Running,
    second_server: Running,
    song: catalog_pb2.Video,
    proxy: CuttingProxy,
    kind: str,
    container: str,
) -> None:
    pcm = PCM if container == "pcm" else None
    content = s16(clip()) if pcm else encode(clip(), container, rate_hz=16_000)
    loop = asyncio.get_running_loop()

    def pieces() -> Iterator[bytes]:
        for number, piece in enumerate(faster(content, CLIP_S)):
            if number == 25:
                proxy.target_port = second_server.server.port
                loop.call_soon_threadsafe(proxy.cut)
            yield piece

    if pcm is None:
        with pytest.raises(soundhash.NotFound) as caught:
            await events_of(kind, proxy, pieces(), pcm)
        assert caught.value.reason == "STREAM_NOT_FOUND" and "raw audio" in caught.value.remedy
        return
    events = await events_of(kind, proxy, pieces(), pcm)
    assert [one.resumed for one in of(events, soundhash.StreamOpened)] == [False, False]
    # It had begun within the last 30 s, so it is one match, in the times of the whole stream.
    (final,) = of(events, soundhash.FinalMatch)
    assert final.match.clip_start_s == pytest.approx(0.0, abs=0.3)
    assert final.match.clip_end_s == pytest.approx(CLIP_S, abs=0.3)
    assert events[-1].heard_s == pytest.approx(CLIP_S, abs=0.1)


async def test_leaving_frees_a_stream_soon(
    server: Running, song: catalog_pb2.Video, proxy: CuttingProxy
) -> None:
    """A client that goes on purpose is not waited for."""
    async with soundhash.AsyncClient(proxy.address) as client:
        stream = client.stream(faster(s16(clip()), CLIP_S), pcm=PCM)
        async for event in stream:
            if isinstance(event, soundhash.ProvisionalMatch):
                break
        await stream.aclose()
    await eventually(lambda: server.server._live.streams == 0)


# ---- the program ----


def start(address: str, *arguments: str, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [PROGRAM, "listen", *arguments, "--address", address],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def ended(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = await asyncio.to_thread(process.communicate, None, 30)
    assert b"Traceback" not in err, err
    return process.returncode, out.decode(), err.decode()


async def test_the_program_goes_on(
    server: Running, song: catalog_pb2.Video, proxy: CuttingProxy, tmp_path: Path
) -> None:
    (tmp_path / "clip.wav").write_bytes(encode(clip()[: 5 * RATE_HZ]))
    process = start(proxy.address, "clip.wav", "--json", folder=tmp_path)
    assert process.stdout is not None
    while b"provisional" not in await asyncio.to_thread(process.stdout.readline):
        pass
    assert proxy.cut()
    status, out, err = await ended(process)
    assert (status, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    kinds = [line["event"] for line in lines]
    assert kinds.count("opened") == 1 and kinds.count("interrupted") >= 1
    assert lines[kinds.index("interrupted")]["error"]["reason"] == "CONNECTION_LOST"
    assert kinds[-2:] == ["final", "summary"] and kinds.count("final") == 1
    assert lines[-2]["match"]["video_id"] == song.id


async def test_control_c_tells_what_it_was(
    server: Running, song: catalog_pb2.Video, tmp_path: Path
) -> None:
    (tmp_path / "clip.wav").write_bytes(encode(clip()))
    process = start(server.address, "clip.wav", folder=tmp_path)
    assert process.stdout is not None
    first = await asyncio.to_thread(process.stdout.readline)
    assert b"perhaps One" in first
    process.send_signal(signal.SIGINT)
    status, out, err = await ended(process)
    assert (status, err) == (130, "")
    assert "match   One at 0:20.0" in out


async def test_a_server_that_is_gone_is_told(
    server: Running, song: catalog_pb2.Video, proxy: CuttingProxy, tmp_path: Path
) -> None:
    """Ctrl-C does not wait for a server that is away and will not come back."""
    (tmp_path / "clip.wav").write_bytes(encode(clip()))
    process = start(proxy.address, "clip.wav", folder=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    await asyncio.to_thread(process.stdout.readline)
    proxy.refuses = True
    proxy.cut()
    warning = await asyncio.to_thread(process.stderr.readline)
    assert warning.startswith(b"warning: The connection to ") and b"trying to go on" in warning
    process.send_signal(signal.SIGINT)
    status, _, err = await ended(process)
    assert (status, err) == (130, "")


async def test_a_microphone_is_listened_to(
    server: Running,
    song: catalog_pb2.Video,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without hardware: sounddevice itself is replaced by cards that play an array."""
    from tests.microphones import SoundCards

    from soundhash.cli import main

    cards = SoundCards(clip(), rate_hz=8000.0, unplugs=True, period_s=0.01)
    monkeypatch.setitem(sys.modules, "sounddevice", cards.module())
    monkeypatch.setattr(
        sys, "argv", ["soundhash", "--address", server.address, "listen", "--mic", "--timeline"]
    )
    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(main)
    told = capsys.readouterr()
    # The microphone is unplugged at its end: that is told after what was heard.
    assert ended.value.code == 1 and "was it unplugged?" in told.err
    assert "One" in told.out and "1 match of 1 video" in told.out
