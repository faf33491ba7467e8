"""Decoding of whole media: every format, and everything that is wrong with files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.media import encode, video
from tests.sounds import tune

from soundhash_engine.decode import decode_bytes, decode_file, probe
from soundhash_engine.errors import DecodeError

TUNE = tune(6, seed=8)


def likeness(found: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    """Correlation at the best shift within ±300 ms, and that shift in seconds."""
    n = min(found.size, expected.size)
    reach = 2400
    middle = expected[reach : n - reach].astype(np.float64)
    size = 2 ** int(n).bit_length()
    spectrum = np.fft.rfft(found[:n], size) * np.conj(np.fft.rfft(middle, size))
    products = np.fft.irfft(spectrum, size)[: 2 * reach + 1]
    energy = np.concatenate(([0], np.cumsum(found[:n].astype(np.float64) ** 2)))
    own = np.sqrt(energy[middle.size :] - energy[: -middle.size])[: 2 * reach + 1]
    score = products[: own.size] / (own * np.linalg.norm(middle) + 1e-9)
    return float(score.max()), (int(score.argmax()) - reach) / 8000


@pytest.mark.parametrize(
    ("container", "rate_hz", "channels", "bit_rate"),
    [
        ("wav", 8000, 1, None),
        ("wav", 44_100, 2, None),
        ("flac", 48_000, 2, None),
        ("mp3", 44_100, 2, 128_000),
        ("mp3", 16_000, 1, 32_000),
        ("ogg", 44_100, 2, None),
        ("opus", 48_000, 1, 32_000),
        ("mp4", 44_100, 2, 96_000),
        ("matroska", 48_000, 2, 64_000),
        ("mpegts", 48_000, 2, 96_000),
        ("adts", 22_050, 1, 48_000),
    ],
)
def test_formats(
    container: str, rate_hz: int, channels: int, bit_rate: int | None, tmp_path: Path
) -> None:
    data = encode(TUNE, container, rate_hz=rate_hz, channels=channels, bit_rate=bit_rate)
    path = tmp_path / "tune.bin"
    path.write_bytes(data)
    chunks = list(decode_file(path))
    found = np.concatenate(chunks)
    assert all(chunk.dtype == np.float32 and chunk.ndim == 1 for chunk in chunks)
    np.testing.assert_array_equal(found, decode_bytes(data))
    score, shift_s = likeness(found, TUNE)
    # Bare AAC streams do not state the codec's delay (which may be a fraction of our samples);
    # of all others it is taken off.
    bare = container in ("mpegts", "adts")
    assert score > (0.9 if bare else 0.97 if bit_rate else 0.99)
    assert abs(shift_s) < (0.15 if bare else 0.003)
    info = probe(path)
    assert info == probe(data)
    assert (info.sample_rate_hz, info.channels) == (rate_hz, channels)
    assert info.duration_s == pytest.approx(6, abs=0.6 if container == "adts" else 0.15)


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 22_050, 32_000, 96_000, 192_000])
def test_sample_rates(rate_hz: int) -> None:
    found = decode_bytes(encode(TUNE, rate_hz=rate_hz))
    assert abs(found.size - TUNE.size) <= 8
    assert likeness(found, TUNE)[0] > 0.99


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("container", ["wav", "flac"])
def test_channels_are_averaged(channels: int, container: str) -> None:
    found = decode_bytes(encode(TUNE, container, channels=channels, layout=f"{channels} channels"))
    score, shift_s = likeness(found, TUNE)
    assert score > 0.99
    assert shift_s == 0
    assert found.std() == pytest.approx(TUNE.std(), rel=0.35)


def test_stereo_is_the_mean() -> None:
    found = decode_bytes(encode(TUNE, channels=2))
    assert np.abs(found - TUNE).max() < 1e-4


@pytest.mark.parametrize("layout", ["stereo", "5.1", "7.1", "quad"])
def test_speaker_layouts(layout: str) -> None:
    found = decode_bytes(encode(TUNE, layout=layout))
    assert likeness(found, TUNE)[0] > 0.99


def test_sound_of_a_film() -> None:
    for data, delay_s in (
        (video(TUNE), 0),
        (video(TUNE, faststart=True), 0),
        (video(TUNE, "matroska"), 0),
        # There is no place for the codec's delay in fragments: 1,024 samples at 16 kHz.
        (video(TUNE, fragmented=True), 0.064),
    ):
        score, shift_s = likeness(decode_bytes(data), TUNE)
        assert score > 0.95
        assert shift_s == pytest.approx(delay_s, abs=0.003)
        assert probe(data).codec.startswith("aac")


def test_silence_decodes() -> None:
    found = decode_bytes(encode(np.zeros(16_000, np.float32), "mp3", rate_hz=16_000))
    assert found.size >= 16_000
    assert np.abs(found).max() < 1e-3


def test_numbers_that_are_none_become_silence() -> None:
    data = bytearray(encode(TUNE, codec="pcm_f32le"))
    for at, value in ((20_000, np.nan), (24_000, np.inf), (28_000, -np.inf)):
        data[at * 4 + 100 - 100 % 4 : at * 4 + 104 - 100 % 4] = np.float32(value).tobytes()
    found = decode_bytes(bytes(data))
    assert np.isfinite(found).all()
    assert likeness(found, TUNE)[0] > 0.98


@pytest.mark.parametrize(
    ("container", "rate_hz", "channels"),
    [("adts", 16_000, 1), ("mp3", 48_000, 1), ("ogg", 44_100, 2)],
)
def test_format_changes_on_the_way(container: str, rate_hz: int, channels: int) -> None:
    # One file behind another is one stream; rate and channels change at the joint.
    first = encode(TUNE, container, rate_hz=44_100, channels=2)
    found = decode_bytes(first + encode(TUNE, container, rate_hz=rate_hz, channels=channels))
    assert found.size == pytest.approx(2 * TUNE.size, abs=2000)
    assert likeness(found[: TUNE.size], TUNE)[0] > 0.97
    assert likeness(found[-TUNE.size :], TUNE)[0] > 0.97


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("container", ["wav", "flac", "mp3", "ogg", "opus", "matroska", "mpegts"])
def test_cut_files_give_what_they_have(container: str, share: float) -> None:
    rate_hz = 48_000 if container in ("opus", "matroska") else 16_000
    data = encode(TUNE, container, rate_hz=rate_hz, bit_rate=64_000)
    found = decode_bytes(data[: int(len(data) * share)])
    assert found.size > 0.3 * share * TUNE.size
    assert likeness(found, TUNE[: found.size])[0] > 0.9


@pytest.mark.parametrize("container", ["mp3", "ogg", "adts", "mpegts"])
def test_damage_in_the_middle_costs_only_itself(container: str) -> None:
    data = bytearray(encode(TUNE, container, rate_hz=16_000, bit_rate=64_000))
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(600)
    found = decode_bytes(bytes(data))
    assert found.size > 0.7 * TUNE.size
    assert likeness(found[:20_000], TUNE[:20_000])[0] > 0.9


BAD = {
    "empty": (b"", "EMPTY_MEDIA"),
    "text": (b"Not a recording.\n" * 500, "NOT_MEDIA"),
    "html": (b"<!doctype html><html><body>404</body></html>", "NOT_MEDIA"),
    "subtitles": (b"1\n00:00:01,000 --> 00:00:02,000\nHello\n\n" * 20, "NOT_MEDIA"),
    "noise": (np.random.default_rng(5).bytes(50_000), "NOT_MEDIA"),
    "zeros": (bytes(10_000), "NOT_MEDIA"),
    "one byte": (b"R", "NOT_MEDIA"),
    "film without sound": (video(None), "NO_AUDIO_STREAM"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(200), "NO_AUDIO_STREAM"),
    "cut ogg": (encode(TUNE, "ogg", rate_hz=16_000)[:40], "TRUNCATED_MEDIA"),
    "cut flac": (encode(TUNE, "flac")[:30], "TRUNCATED_MEDIA"),
    "mp4 without its index": (video(TUNE)[: len(video(TUNE)) // 2], "TRUNCATED_MEDIA"),
    "wav without samples": (encode(TUNE)[:44], "TRUNCATED_MEDIA"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_media(kind: str, tmp_path: Path) -> None:
    data, reason = BAD[kind]
    path = tmp_path / "bad.mp3"
    path.write_bytes(data)
    for decode in (lambda: decode_bytes(data), lambda: list(decode_file(path))):
        with pytest.raises(DecodeError) as caught:
            decode()
        assert caught.value.reason == reason
        assert caught.value.remedy
        assert str(path) not in caught.value.message
    if kind != "wav without samples":
        with pytest.raises(DecodeError) as caught:
            probe(data)
        assert caught.value.reason == reason


def test_playlists_open_nothing(tmp_path: Path) -> None:
    # A playlist that names a local file must not bring its sound out.
    secret = tmp_path / "secret.wav"
    secret.write_bytes(encode(TUNE))
    segments = tmp_path / "secret.ts"
    segments.write_bytes(encode(TUNE, "mpegts", rate_hz=16_000))
    texts = [
        f"ffconcat version 1.0\nfile '{secret}'\n",
        "ffconcat version 1.0\nfile secret.wav\n",
    ]
    targets = (f"file://{segments}", "secret.ts", str(segments), "http://127.0.0.1:9/x.ts")
    texts += [
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:6.0,\n"
        f"{target}\n#EXT-X-ENDLIST\n"
        for target in targets
    ]
    for text in texts:
        path = tmp_path / "list.m3u8"
        path.write_text(text)
        with pytest.raises(DecodeError):
            list(decode_file(path))
        with pytest.raises(DecodeError):
            decode_bytes(text.encode())


def test_too_long() -> None:
    data = encode(TUNE)
    assert decode_bytes(data, max_duration_s=6).size == TUNE.size
    with pytest.raises(DecodeError) as caught:
        decode_bytes(data, max_duration_s=5.5)
    assert caught.value.reason == "MEDIA_TOO_LONG"


def test_too_long_stops_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(encode(np.tile(TUNE, 10)))
    seen = 0
    with pytest.raises(DecodeError):
        for chunk in decode_file(path, max_duration_s=10):
            seen += chunk.size
    assert seen <= 10 * 8000


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(decode_file(tmp_path / "nothing.wav"))


def test_files_are_closed_when_reading_stops_early(tmp_path: Path) -> None:
    path = tmp_path / "tune.wav"
    path.write_bytes(encode(TUNE))
    for _ in range(50):
        chunks = decode_file(path)
        next(chunks)
        chunks.close()
    open_files = [
        link for link in Path("/proc/self/fd").iterdir() if link.exists() and link.samefile(path)
    ]
    assert not open_files


def test_a_codec_that_nobody_knows_is_refused() -> None:
    media = bytearray(SHORT_FILES["wav"])
    media[20] ^= 1  # the format's tag
    with pytest.raises(DecodeError) as failed:
        decode_bytes(bytes(media))
    assert failed.value.reason == "DECODE_FAILED"


@given(data=st.data())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_damaged_media_decodes_or_is_refused(data: st.DataObject) -> None:
    container = data.draw(st.sampled_from(["wav", "flac", "mp3", "ogg", "mp4", "mpegts"]))
    media = bytearray(SHORT_FILES[container])
    for at in data.draw(st.lists(st.integers(0, len(media) - 1), max_size=30)):
        media[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.one_of(st.just(len(media)), st.integers(len(media) // 4, len(media))))
    try:
        found = decode_bytes(bytes(media[:cut]), max_duration_s=60)
    except DecodeError as error:
        assert error.reason.isupper()
    else:
        assert np.isfinite(found).all()


SHORT_FILES = {
    container: encode(TUNE[:8000], container, rate_hz=16_000, bit_rate=32_000)
    for container in ("wav", "flac", "mp3", "ogg", "mp4", "mpegts")
}
