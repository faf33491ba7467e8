"""A handful of what happens to clips, for audio of the engine's own rate (mono, 8 kHz).

Each takes a clip of a recording and, where it needs one, other audio of the same length; the
result is as loud as the clip. Deterministic.
"""

import dataclasses
import io
from collections.abc import Callable
from typing import TypeAlias, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from soundhash_engine import SAMPLE_RATE_HZ, decode_bytes

Pcm: TypeAlias = NDArray[np.float32]
Change: TypeAlias = Callable[[Pcm, Pcm], Pcm]


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """One way in which clips differ from their recordings.

    name    for people
    kind    clean, re-encoded or degraded: what its latency counts for
    change  (clip, other audio) -> clip
    speed   how fast the clip plays: it needs this times its length of the recording
    """

    name: str
    kind: str
    change: Change
    speed: float = 1.0


def _level(pcm: Pcm) -> float:
    return float(np.sqrt(np.mean(np.square(pcm, dtype=np.float64)))) + 1e-9


def _mix(clip: Pcm, other: Pcm, db: float) -> Pcm:
    """``other`` below the clip by ``db``."""
    gain = _level(clip) / _level(other) * 10 ** (-db / 20)
    mixed = clip + gain * other
    return (mixed * (_level(clip) / _level(mixed))).astype(np.float32)


def _pink(n: int) -> Pcm:
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(n))
    spectrum[1:] /= np.sqrt(np.arange(1, spectrum.size))
    spectrum[0] = 0.0
    return np.fft.irfft(spectrum, n).astype(np.float32)


def _band(pcm: Pcm, low_hz: float, high_hz: float) -> Pcm:
    spectrum = np.fft.rfft(pcm)
    hz = np.fft.rfftfreq(pcm.size, 1.0 / SAMPLE_RATE_HZ)
    # Second-order slopes on both sides.
    gain = 1.0 / np.sqrt((1.0 + (low_hz / np.maximum(hz, 1.0)) ** 4) * (1.0 + (hz / high_hz) ** 4))
    return np.fft.irfft(spectrum * gain, pcm.size).astype(np.float32)


def recoded(pcm: Pcm, codec: str, rate_hz: int, bit_rate: int) -> Pcm:
    """The clip through a lossy codec and back."""
    container = {"libmp3lame": "mp3", "libopus": "ogg"}[codec]
    out = io.BytesIO()
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(pcm)[None, :], format="flt", layout="mono")
    frame.sample_rate = SAMPLE_RATE_HZ
    with av.open(out, "w", format=container) as sink:
        stream = cast(AudioStream, sink.add_stream(codec, rate=rate_hz))
        stream.layout = "mono"
        stream.bit_rate = bit_rate
        size = stream.codec_context.frame_size or 960
        resampler = AudioResampler(
            format=stream.format.name, layout="mono", rate=rate_hz, frame_size=size
        )
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            sink.mux(stream.encode(part))
        sink.mux(stream.encode(None))
    return decode_bytes(out.getvalue())


def _clean(clip: Pcm, _: Pcm) -> Pcm:
    return clip


def _reencoded(clip: Pcm, _: Pcm) -> Pcm:
    return recoded(clip, "libmp3lame", 16_000, 32_000)


def _noisy(clip: Pcm, _: Pcm) -> Pcm:
    return _mix(clip, _pink(clip.size), 5.0)


def _talked_over(clip: Pcm, other: Pcm) -> Pcm:
    return _mix(clip, other, 3.0)


def _phone(clip: Pcm, _: Pcm) -> Pcm:
    level = _level(clip)
    narrow = np.tanh(_band(clip, 300.0, 3400.0) / (3.0 * level)) * 3.0 * level
    return recoded(_mix(narrow, _pink(clip.size), 15.0), "libopus", 16_000, 12_000)


def _room(clip: Pcm, _: Pcm) -> Pcm:
    # 0.6 s of reverberation, a little louder than the direct sound.
    n = round(0.6 * SAMPLE_RATE_HZ)
    tail = np.random.default_rng(2).standard_normal(n) * 10 ** (-3.0 * np.arange(n) / n)
    response = tail / np.linalg.norm(tail) * 10 ** (2.0 / 20)
    response[0] += 1.0
    size = clip.size + n
    heard = np.fft.irfft(np.fft.rfft(clip, size) * np.fft.rfft(response, size), size)
    wet = heard[: clip.size].astype(np.float32)
    return _mix(wet * np.float32(_level(clip) / _level(wet)), _pink(clip.size), 12.0)


def _faster(clip: Pcm, _: Pcm) -> Pcm:
    """1.08 times as fast and as high; the clip comes that much longer."""
    n = round(clip.size / FASTER)
    faster = np.interp(np.arange(n) * FASTER, np.arange(clip.size), clip)
    return np.asarray(faster, np.float32)


FASTER = 1.08

CONDITIONS = (
    Condition("clean", "clean", _clean),
    Condition("MP3, 32 kbit/s", "re-encoded", _reencoded),
    Condition("8 % faster", "degraded", _faster, FASTER),
    Condition("in a room", "degraded", _room),
    Condition("by telephone", "degraded", _phone),
    Condition("other sound mixed in, 3 dB quieter", "degraded", _talked_over),
    Condition("pink noise, 5 dB quieter", "degraded", _noisy),
)
