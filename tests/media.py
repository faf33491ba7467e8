"""Media files made in memory for tests, through PyAV."""

import io
import tempfile
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import OutputContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray

CODECS = {
    "wav": "pcm_s16le",
    "flac": "flac",
    "mp3": "libmp3lame",
    "ogg": "vorbis",
    "opus": "libopus",
    "mp4": "aac",
    "matroska": "libopus",
    "mpegts": "aac",
    "adts": "aac",
}


def encode(
    pcm: NDArray[np.float32],
    container: str = "wav",
    *,
    codec: str | None = None,
    rate_hz: int = 8000,
    channels: int = 1,
    layout: str | None = None,
    bit_rate: int | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """Mono 8 kHz audio as a media file; all channels are alike."""
    out = io.BytesIO()
    name = {"opus": "ogg"}.get(container, container)
    with av.open(out, "w", format=name, options=options or {}) as sink:
        codec = codec or CODECS[container]
        # FFmpeg's own Vorbis encoder has to be asked for twice, and does stereo alone.
        stream = sink.add_stream(codec, rate=rate_hz, options={"strict": "experimental"})
        if codec == "vorbis":
            channels = 2
        stream.layout = layout or {1: "mono", 2: "stereo"}.get(channels, f"{channels}c")
        if bit_rate:
            stream.bit_rate = bit_rate
        for frame in _frames(pcm, rate_hz, stream.layout.name, stream.format.name):
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    return out.getvalue()


def _frames(
    pcm: NDArray[np.float32], rate_hz: int, layout: str, sample_format: str
) -> list[AudioFrame]:
    to_rate = AudioResampler(format="flt", layout="mono", rate=rate_hz)
    source = AudioFrame.from_ndarray(pcm[None, :], format="flt", layout="mono")
    source.sample_rate = 8000
    mono = np.concatenate(
        [part.to_ndarray()[0] for part in to_rate.resample(source) + to_rate.resample(None)]
    )
    to_format = AudioResampler(format=sample_format, layout=layout)
    n_channels = av.AudioLayout(layout).nb_channels
    frames = []
    for at in range(0, mono.size, 960):
        part = np.repeat(mono[at : at + 960], n_channels)[None, :]
        frame = AudioFrame.from_ndarray(part, format="flt", layout=layout)
        frame.sample_rate = rate_hz
        frame.pts = at
        frames += to_format.resample(frame)
    return frames


def video(
    pcm: NDArray[np.float32] | None,
    container: str = "mp4",
    *,
    faststart: bool = False,
    fragmented: bool = False,
) -> bytes:
    """A small film, with sound or without."""
    flags = "+faststart" if faststart else "+frag_keyframe+empty_moov" if fragmented else ""
    options = {"movflags": flags} if flags else {}
    # In a file of its own: moving the index to the front opens it a second time.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film"
        with av.open(str(path), "w", format=container, options=options) as sink:
            _write_film(sink, pcm)
        return path.read_bytes()


def _write_film(sink: OutputContainer, pcm: NDArray[np.float32] | None) -> None:
    picture = sink.add_stream("mpeg4", rate=10)
    picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
    sound = None
    if pcm is not None:
        sound = sink.add_stream("aac", rate=16_000)
        sound.layout = "mono"
    seconds = 2 if pcm is None else pcm.size / 8000
    for i in range(int(seconds * 10)):
        image = np.full((64, 64, 3), i * 7 % 256, np.uint8)
        sink.mux(picture.encode(VideoFrame.from_ndarray(image, format="rgb24")))
    sink.mux(picture.encode(None))
    if sound is not None and pcm is not None:
        for frame in _frames(pcm, 16_000, "mono", "fltp"):
            sink.mux(sound.encode(frame))
        sink.mux(sound.encode(None))
