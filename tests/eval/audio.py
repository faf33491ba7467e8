"""Audio of an evaluation set: mono float32 at 44.1 kHz, read, coded, filtered and written.

The engine works at 8 kHz; clips are made at the rate that people's recordings have, so that codecs
and other programs see what they are made for.
"""

import io
import wave
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.filter import Graph
from numpy.typing import NDArray

RATE_HZ = 44_100
SUFFIXES = {".wav", ".ogg", ".oga", ".mp3", ".flac", ".opus", ".m4a"}
"""Of files that are taken for recordings."""

Audio = NDArray[np.float32]

# Containers that say how many samples of priming an encoder put before the sound.
_FORMATS = {
    "libmp3lame": "mp3",
    "aac": "mp4",
    "libopus": "ogg",
    "vorbis": "ogg",
    "libopencore_amrnb": "amr",
    "pcm_mulaw": "wav",
    "adpcm_ima_wav": "wav",
}
_PRIMING_S = {"libopencore_amrnb": 0.005}
"""What a format without such a field leads by: AMR looks 5 ms ahead (3GPP TS 26.090)."""


def _frame(audio: Audio, rate_hz: int) -> AudioFrame:
    frame = AudioFrame.from_ndarray(
        np.ascontiguousarray(audio, np.float32)[None, :], format="flt", layout="mono"
    )
    frame.sample_rate = rate_hz
    frame.time_base = Fraction(1, rate_hz)
    frame.pts = 0
    return frame


def _joined(frames: Iterable[AudioFrame]) -> Audio:
    return np.concatenate([np.empty(0, np.float32), *(f.to_ndarray()[0] for f in frames)])


def _decoded(source: Any, rate_hz: int) -> Audio:
    resampler = AudioResampler(
        format="flt", layout="mono", rate=rate_hz, options={"rematrix_maxval": "1"}
    )
    parts: list[AudioFrame] = []
    with av.open(source) as container:
        for frame in container.decode(audio=0):
            frame.pts = None
            parts += resampler.resample(frame)
    return _joined([*parts, *resampler.resample(None)])


def read(path: Path, rate_hz: int = RATE_HZ) -> Audio:
    """A media file's sound. Raises av.FFmpegError or ValueError for what cannot be read."""
    return _decoded(str(path), rate_hz)


def resampled(audio: Audio, from_hz: int, to_hz: int) -> Audio:
    """The same sound at another rate."""
    resampler = AudioResampler(format="flt", layout="mono", rate=to_hz)
    return _joined([*resampler.resample(_frame(audio, from_hz)), *resampler.resample(None)])


def read_wav(path: Path, start: int = 0, count: int | None = None) -> Audio:
    """``count`` samples from ``start`` on of a file that `write_wav` wrote, at its own rate."""
    with wave.open(str(path), "rb") as file:
        file.setpos(min(start, file.getnframes()))
        data = file.readframes(file.getnframes() if count is None else count)
    return (np.frombuffer(data, "<i2") / 32768.0).astype(np.float32)


def write_wav(path: Path, audio: Audio, rate_hz: int = RATE_HZ) -> None:
    """As 16-bit PCM; what is louder than ±1 is clipped."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.round(np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())


def filtered(audio: Audio, *chain: tuple[str, str]) -> Audio:
    """Through FFmpeg's filters, each a name and its arguments."""
    graph = Graph()
    nodes = [
        graph.add_abuffer(
            sample_rate=RATE_HZ, format="flt", layout="mono", time_base=Fraction(1, RATE_HZ)
        ),
        *(graph.add(name, arguments) for name, arguments in chain),
        graph.add("aformat", f"sample_fmts=flt:sample_rates={RATE_HZ}:channel_layouts=mono"),
        graph.add("abuffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    graph.push(_frame(audio, RATE_HZ))
    graph.push(None)
    out: list[AudioFrame] = []
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return _joined(out)
        if isinstance(frame, AudioFrame):
            out.append(frame)


def coded(audio: Audio, codec: str, bit_rate: int, rate_hz: int = RATE_HZ) -> Audio:
    """Encoded and decoded again, as long as before and not shifted.

    codec     FFmpeg's name of an encoder: libmp3lame, aac, libopus, vorbis, libopencore_amrnb, …
    bit_rate  bits a second
    rate_hz   that the encoder works at
    """
    file = io.BytesIO()
    with av.open(file, "w", format=_FORMATS[codec]) as container:
        stream: Any = container.add_stream(codec, rate=rate_hz, layout="mono")
        stream.bit_rate = bit_rate
        if codec == "vorbis":
            # FFmpeg's own encoder codes two channels only and calls itself experimental.
            stream.layout = "stereo"
            stream.codec_context.options = {"strict": "experimental"}
        resampler = AudioResampler(
            format=stream.codec_context.format.name,
            layout=stream.layout,
            rate=rate_hz,
            frame_size=stream.codec_context.frame_size,
        )
        frames = [*resampler.resample(_frame(audio, RATE_HZ)), *resampler.resample(None)]
        for frame in frames:
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    out = _decoded(file, RATE_HZ)[round(_PRIMING_S.get(codec, 0.0) * RATE_HZ) :]
    return np.pad(out, (0, max(0, audio.size - out.size)))[: audio.size]
