"""The pace at which `listen` sends."""

from __future__ import annotations

import io
import os
import threading
import time
import wave
from collections.abc import Iterator

import pytest

from soundhash import PcmEncoding, PcmFormat
from soundhash.cli._pace import HeardPace, at_rate, read_chunks, wav_bytes_per_s


def test_wav_rate() -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(2)
        writer.setsampwidth(2)
        writer.setframerate(48000)
        writer.writeframes(bytes(400))
    head = buffer.getvalue()
    assert wav_bytes_per_s(head) == 192_000
    # A chunk of odd length before the format, as some recorders write.
    assert wav_bytes_per_s(head[:12] + b"JUNK\x03\x00\x00\x00abc\x00" + head[12:]) == 192_000
    for other in (b"", b"OggS" + bytes(40), head[:20], b"RIFF\x00\x00\x00\x00AVI " + bytes(30)):
        assert wav_bytes_per_s(other) is None


def test_a_known_rate_is_kept() -> None:
    began = time.monotonic()
    times = [
        (time.monotonic() - began, len(chunk))
        for chunk in at_rate(iter([bytes(1000)] * 6), 20_000.0, threading.Event())
    ]
    for number, (at_s, _) in enumerate(times):
        assert number * 0.05 - 0.01 <= at_s <= number * 0.05 + 0.15
    assert len(times) == 6


def test_a_known_rate_can_be_stopped() -> None:
    stop = threading.Event()
    chunks = at_rate(iter([bytes(1000)] * 100), 10.0, stop)
    next(chunks)
    threading.Timer(0.05, stop.set).start()
    began = time.monotonic()
    assert list(chunks) == []
    assert time.monotonic() - began < 5


class Listener:
    """A server that hears audio of some rate as soon as it is sent."""

    def __init__(self, bytes_per_s: float, latency_s: float = 0.0) -> None:
        self.pace = HeardPace()
        self.rate = bytes_per_s
        self.latency_s = latency_s
        self.sent = 0
        self.most_ahead_s = 0.0

    def send(self, seconds: float) -> float:
        """Sends for a while; returns how many seconds of audio were sent."""
        began = time.monotonic()
        source = self.source()
        for chunk in self.pace.pace(source):
            self.sent += len(chunk)
            heard_s = self.sent / self.rate // 0.5 * 0.5
            if self.latency_s:
                threading.Timer(self.latency_s, self.pace.heard, [heard_s]).start()
            else:
                self.pace.heard(heard_s)
            elapsed_s = time.monotonic() - began
            self.most_ahead_s = max(self.most_ahead_s, self.sent / self.rate - elapsed_s)
            if elapsed_s > seconds:
                break
        return self.sent / self.rate

    def source(self) -> Iterator[bytes]:
        while True:
            yield bytes(self.pace.chunk_bytes)


@pytest.mark.parametrize("bytes_per_s", [2_000, 16_000, 600_000])
def test_an_unknown_rate_is_found_from_what_is_heard(bytes_per_s: float) -> None:
    listener = Listener(bytes_per_s)
    sent_s = listener.send(1.0)
    # About a second ahead of the clock, with a chunk on top; never behind it for long.
    assert sent_s >= 0.9
    assert listener.most_ahead_s <= 4.0


def test_a_distant_server_is_not_flooded() -> None:
    listener = Listener(16_000, latency_s=0.15)
    listener.send(1.0)
    assert listener.most_ahead_s <= 6.0


def test_pacing_can_be_stopped() -> None:
    pace = HeardPace()
    chunks = pace.pace(iter([b"x"] * 100))
    next(chunks)
    pace.heard(1000.0)
    threading.Timer(0.05, pace.stop).start()
    began = time.monotonic()
    assert list(chunks) == []
    assert time.monotonic() - began < 5


def test_a_file_waits_for_a_server_that_is_away() -> None:
    pace = HeardPace(waits=True)
    chunks = pace.pace(iter(lambda: bytes(pace.chunk_bytes), None))
    next(chunks)
    pace.interrupted()
    back = threading.Event()

    def come_back() -> None:
        back.set()
        pace.heard(0.5)

    threading.Timer(0.1, come_back).start()
    next(chunks)
    assert back.is_set()


def test_a_pipe_does_not_wait_and_its_chunks_do_not_grow() -> None:
    pace = HeardPace()
    first_bytes = pace.chunk_bytes
    chunks = pace.pace(iter(lambda: bytes(pace.chunk_bytes), None))
    pace.interrupted()
    assert sum(len(next(chunks)) for _ in range(30)) == 30 * first_bytes


def test_reading_can_be_stopped() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"abc")
    stop = threading.Event()
    chunks = read_chunks(reading, lambda: 4, stop)
    assert next(chunks) == b"abc"
    threading.Timer(0.05, stop.set).start()
    assert list(chunks) == []
    os.close(reading)
    os.close(writing)


def test_reading_ends_with_the_source() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"abcdef")
    os.close(writing)
    assert b"".join(read_chunks(reading, lambda: 4)) == b"abcdef"
    os.close(reading)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s16le:44100:2", PcmFormat(PcmEncoding.S16LE, 44100, 2)),
        ("F32LE:8000:1", PcmFormat(PcmEncoding.F32LE, 8000, 1)),
    ],
)
def test_pcm_formats(text: str, expected: PcmFormat) -> None:
    assert PcmFormat.parse(text) == expected


def test_pcm_rates() -> None:
    assert PcmFormat.parse("s16le:44100:2").bytes_per_s == 176_400
    assert PcmFormat.parse("u8:8000:1").bytes_per_s == 8_000


@pytest.mark.parametrize(
    "text",
    ["", "s16le", "s16le:44100", "s16:44100:2", "s16le:7999:2", "s16le:44100:9", "s16le:x:1"],
)
def test_wrong_pcm_formats(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        PcmFormat.parse(text)
