"""Decoding of audio that arrives in pieces: bounded, prompt, and free of stuck threads."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.media import encode, video
from tests.sounds import tune

from soundhash_engine.decode import decode_bytes
from soundhash_engine.errors import DecodeError
from soundhash_engine.live_decode import PcmFormat, PcmResampler, StreamDecoder

TUNE = tune(6, seed=8)
MEDIA = encode(TUNE, "ogg", rate_hz=44_100)
STREAMS = {
    "mp3": encode(TUNE, "mp3", rate_hz=16_000, bit_rate=64_000),
    "wav": encode(TUNE, rate_hz=44_100, channels=2),
    "ogg": MEDIA,
    "opus": encode(TUNE, "opus", rate_hz=48_000),
    "flac": encode(TUNE, "flac", rate_hz=22_050),
    "matroska": encode(TUNE, "matroska", rate_hz=48_000),
    "mpegts": encode(TUNE, "mpegts", rate_hz=48_000),
    "faststart": video(TUNE, faststart=True),
    "fragmented": video(TUNE, fragmented=True),
}


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while any(thread.name == "stream-decoder" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "a decoder's thread is stuck"
        time.sleep(0.01)


def feed_all(decoder: StreamDecoder, data: bytes, size: int) -> threading.Thread:
    """Feed in a thread, in pieces of `size`; what goes wrong there shows in what is read."""

    def run() -> None:
        try:
            for at in range(0, len(data), size):
                if not decoder.feed(data[at : at + size], timeout_s=20):
                    return
            decoder.end_of_input()
        except DecodeError:
            pass

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def read_all(decoder: StreamDecoder) -> NDArray[np.float32]:
    chunks = []
    deadline = time.monotonic() + 20
    while not decoder.ended:
        assert time.monotonic() < deadline
        chunk = decoder.read(timeout_s=1)
        if chunk is not None:
            assert chunk.size > 0
            chunks.append(chunk)
    return np.concatenate(chunks) if chunks else np.empty(0, np.float32)


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("size", [317, 4096, 1 << 20])
def test_stream_gives_what_the_whole_gives(kind: str, size: int) -> None:
    with StreamDecoder() as decoder:
        feeder = feed_all(decoder, STREAMS[kind], size)
        found = read_all(decoder)
        feeder.join()
    expected = decode_bytes(STREAMS[kind])
    if kind == "mp3":
        # How much of the last frame is padding is only known when the file's length is.
        assert expected.size <= found.size < expected.size + 1152
        found, expected = found[:47_000], expected[:47_000]
    np.testing.assert_array_equal(found, expected)


@given(sizes=st.lists(st.integers(40, 6000), min_size=1, max_size=20))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_pieces(sizes: list[int]) -> None:
    with StreamDecoder() as decoder:
        at = turn = 0
        while at < len(MEDIA):
            size = sizes[turn % len(sizes)]
            assert decoder.feed(MEDIA[at : at + size], timeout_s=20)
            at += size
            turn += 1
        decoder.end_of_input()
        np.testing.assert_array_equal(read_all(decoder), decode_bytes(MEDIA))


def test_sound_comes_while_the_stream_goes_on() -> None:
    # Half a minute of which two seconds have arrived.
    data = encode(np.tile(TUNE, 5), "mp3", rate_hz=44_100, bit_rate=128_000)
    with StreamDecoder() as decoder:
        started = time.monotonic()
        assert decoder.feed(data[: 2 * 16_000 + 8000])
        heard = 0
        while heard < 8000:
            chunk = decoder.read(timeout_s=5)
            assert chunk is not None
            heard += chunk.size
        assert time.monotonic() - started < 2
        assert decoder.read(timeout_s=0.05) is None or not decoder.ended
        assert not decoder.ended


def test_peer_stops_on_the_way() -> None:
    with StreamDecoder() as decoder:
        assert decoder.feed(MEDIA[: len(MEDIA) // 2])
        decoder.end_of_input()
        found = read_all(decoder)
    # An Ogg page holds up to a second.
    assert 0.25 * TUNE.size < found.size < 0.6 * TUNE.size


def test_input_is_bounded() -> None:
    # Nobody reads: the decoder takes what its two bounds allow and no more.
    data = encode(np.tile(TUNE, 20), rate_hz=8000)
    decoder = StreamDecoder(max_buffered_bytes=100_000, max_buffered_audio_s=2)
    taken = 0
    refused = 0
    deadline = time.monotonic() + 10
    while taken < len(data) and refused < 20 and time.monotonic() < deadline:
        if decoder.try_feed(data[taken : taken + 10_000]):
            taken += 10_000
        else:
            refused += 1
            time.sleep(0.02)
    assert decoder.buffered_bytes <= 100_000
    assert taken < 100_000 + 3 * 16_000 + 100_000
    assert not decoder.feed(bytes(10_000), timeout_s=0.05)
    # Reading makes room again.
    heard = 0
    while heard < 5 * 8000:
        chunk = decoder.read(timeout_s=5)
        assert chunk is not None
        heard += chunk.size
    assert decoder.feed(data[taken : taken + 10_000], timeout_s=5)
    decoder.close()


def test_a_piece_larger_than_the_bound_is_taken() -> None:
    with StreamDecoder(max_buffered_bytes=1000) as decoder:
        assert decoder.feed(MEDIA, timeout_s=5)
        decoder.end_of_input()
        np.testing.assert_array_equal(read_all(decoder), decode_bytes(MEDIA))


@pytest.mark.parametrize("fed", [0, 100, 20_000, len(MEDIA)])
def test_close_at_any_time(fed: int) -> None:
    decoder = StreamDecoder()
    decoder.feed(MEDIA[:fed])
    started = time.monotonic()
    decoder.close()
    decoder.close()
    assert time.monotonic() - started < 2
    assert decoder.ended
    assert decoder.read(timeout_s=1) is None
    assert not decoder.feed(MEDIA)


def test_close_frees_whoever_waits() -> None:
    decoder = StreamDecoder(max_buffered_bytes=1000, max_buffered_audio_s=0.1)
    answers: list[object] = []
    data = encode(np.tile(TUNE, 5))

    def feed() -> None:
        for at in range(0, len(data), 900):
            if not decoder.feed(data[at : at + 900]):
                answers.append("feeder")
                return

    waiting = StreamDecoder()
    threads = [
        threading.Thread(target=feed),
        threading.Thread(target=lambda: answers.append(waiting.read())),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    decoder.close()
    waiting.close()
    for thread in threads:
        thread.join(timeout=5)
        assert not thread.is_alive()
    assert set(answers) == {"feeder", None}


@pytest.mark.parametrize("size", [1, 13, 5000, 1 << 20])
def test_index_behind_the_audio(size: int) -> None:
    data = video(TUNE)
    decoder = StreamDecoder()
    with pytest.raises(DecodeError) as caught:
        for at in range(0, len(data), size):
            decoder.feed(data[at : at + size], timeout_s=5)
            # It shows long before the end.
            assert at < max(200, size)
    assert caught.value.reason == "MOOV_AT_END"
    assert "faststart" in caught.value.remedy
    with pytest.raises(DecodeError) as caught:
        decoder.read(timeout_s=5)
    assert caught.value.reason == "MOOV_AT_END"
    decoder.close()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "EMPTY_MEDIA"),
        (b"Not a recording.\n" * 500, "NOT_MEDIA"),
        (np.random.default_rng(5).bytes(100_000), "NOT_MEDIA"),
        (video(None, faststart=True), "NO_AUDIO_STREAM"),
        (encode(TUNE)[:44], "TRUNCATED_MEDIA"),
    ],
)
def test_bad_streams(data: bytes, reason: str) -> None:
    with StreamDecoder() as decoder:
        feeder = feed_all(decoder, data, 5000)
        with pytest.raises(DecodeError) as caught:
            read_all(decoder)
        assert caught.value.reason == reason
        assert caught.value.remedy
        feeder.join()
        assert decoder.ended


def test_feeding_after_a_failure_says_so() -> None:
    with StreamDecoder() as decoder, pytest.raises(DecodeError):
        for _ in range(1000):
            decoder.feed(b"Not a recording.\n" * 500, timeout_s=5)
            time.sleep(0.01)


def test_feeding_after_the_end_is_a_mistake() -> None:
    with StreamDecoder() as decoder:
        decoder.end_of_input()
        with pytest.raises(ValueError, match="end_of_input"):
            decoder.feed(MEDIA)


def test_many_streams_at_once() -> None:
    decoders = [StreamDecoder() for _ in range(16)]
    feeders = [feed_all(decoder, MEDIA, 3000) for decoder in decoders]
    expected = decode_bytes(MEDIA)
    for decoder, feeder in zip(decoders, feeders, strict=True):
        np.testing.assert_array_equal(read_all(decoder), expected)
        feeder.join()
        decoder.close()


# --- raw PCM ---


def raw(pcm: NDArray[np.float32], encoding: str, channels: int) -> bytes:
    scaled = {
        "u8": lambda: np.round(pcm * 128 + 128).astype("u1"),
        "s16le": lambda: np.round(pcm * 32768).astype("<i2"),
        "s32le": lambda: np.round(pcm.astype(np.float64) * 2**31).astype("<i4"),
        "f32le": lambda: pcm.astype("<f4"),
        "f64le": lambda: pcm.astype("<f8"),
    }[encoding]()
    return np.repeat(scaled[:, None], channels, axis=1).tobytes()


@pytest.mark.parametrize("encoding", ["u8", "s16le", "s32le", "f32le", "f64le"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_pcm_encodings(encoding: str, channels: int) -> None:
    resampler = PcmResampler(PcmFormat(8000, channels, encoding))
    found = np.concatenate((resampler.push(raw(TUNE, encoding, channels)), resampler.finish()))
    assert found.size == TUNE.size
    assert np.abs(found - TUNE).max() < (0.005 if encoding == "u8" else 2e-5)


@pytest.mark.parametrize("rate_hz", [1000, 11_025, 16_000, 44_100, 192_000])
def test_pcm_rates(rate_hz: int) -> None:
    t = np.arange(2 * rate_hz) / rate_hz
    tone = (0.5 * np.sin(2 * np.pi * 300 * t)).astype(np.float32)
    resampler = PcmResampler(PcmFormat(rate_hz, 1, "f32le"))
    found = np.concatenate((resampler.push(raw(tone, "f32le", 1)), resampler.finish()))
    assert found.size == pytest.approx(16_000, abs=40)
    spectrum = np.abs(np.fft.rfft(found[2000:10_000] * np.hanning(8000)))
    assert spectrum.argmax() == 300


@given(sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=20).filter(any))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_pcm_pieces_do_not_matter(sizes: list[int]) -> None:
    data = raw(TUNE, "s16le", 2)
    audio_format = PcmFormat(48_000, 2, "s16le")
    whole = PcmResampler(audio_format)
    expected = np.concatenate((whole.push(data), whole.finish()))
    pieces = PcmResampler(audio_format)
    found = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found.append(pieces.push(data[at : at + size]))
        at += size
        turn += 1
    np.testing.assert_array_equal(np.concatenate([*found, pieces.finish()]), expected)


def test_pcm_that_ends_within_a_sample_and_without_any() -> None:
    resampler = PcmResampler(PcmFormat(8000, 2, "s16le"))
    assert resampler.push(b"\1\2\3").size == 0
    assert resampler.finish().size == 0


def test_pcm_numbers_that_are_none() -> None:
    resampler = PcmResampler(PcmFormat(8000, 1, "f64le"))
    wild = np.array([np.nan, np.inf, -np.inf, 1e300, 0.5])
    found = np.concatenate((resampler.push(wild.tobytes()), resampler.finish()))
    assert np.isfinite(found).all()
    assert found[-1] == 0.5


@pytest.mark.parametrize(
    ("rate_hz", "channels", "encoding"),
    [(0, 1, "s16le"), (10**6, 1, "s16le"), (8000, 0, "s16le"), (8000, 99, "s16le"), (8000, 1, "x")],
)
def test_impossible_pcm_formats(rate_hz: int, channels: int, encoding: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        PcmFormat(rate_hz, channels, encoding)


@pytest.mark.parametrize("container", ["ogg", "opus", "mp3", "adts"])
@pytest.mark.parametrize("rate_hz", [22050, 48000])
def test_a_stream_whose_format_changes_goes_on(container: str, rate_hz: int) -> None:
    """As of radio stations: chained Ogg, MP3 or AAC of another rate from one title to the next."""
    rates = (48000, 48000) if container == "opus" else (44100, rate_hz)
    parts = [
        encode(tune(3.0, seed), container, rate_hz=rate)
        for seed, rate in zip((1, 2), rates, strict=True)
    ]
    with StreamDecoder() as decoder:
        feed_all(decoder, b"".join(parts), 1000)
        pcm = read_all(decoder)
    assert pcm.size / 8000 == pytest.approx(6.0, abs=0.15)
    for seed, part in ((1, pcm[8000:16000]), (2, pcm[32000:40000])):
        whole = tune(3.0, seed)
        alike = np.fft.irfft(np.fft.rfft(whole, 32768) * np.conj(np.fft.rfft(part, 32768)))
        loud = np.sqrt(np.sum(part**2) * np.sum(whole[8000:16000] ** 2))
        assert alike.max() > 0.8 * loud, seed


def test_a_broken_stream_of_a_chain_costs_only_itself() -> None:
    first, second, third = (encode(tune(3.0, seed), "opus", rate_hz=48000) for seed in (1, 2, 3))
    # Its pages are whole, what is in them is not.
    broken = bytearray(second)
    for at in range(64, len(broken) - 64):
        if b"OggS" not in broken[at - 64 : at + 64]:
            broken[at] ^= 0x5A
    with StreamDecoder() as decoder:
        feed_all(decoder, first + bytes(broken) + third, 700)
        pcm = read_all(decoder)
    assert 5.9 < pcm.size / 8000 < 9.1
