"""Media in files and in memory to mono 8 kHz float32, through PyAV.

What comes in is untrusted. FFmpeg reads through our file object and may open nothing else:
playlists and other media that name further files or addresses do not reach them.
"""

import dataclasses
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard

from soundhash_engine.errors import DecodeError
from soundhash_engine.params import SAMPLE_RATE_HZ
from soundhash_engine.types import Pcm

_CHUNK_SAMPLES = 8192
_READ_BYTES = 1 << 18
_MAX_DEMUX_ERRORS = 100
"""A demuxer that fails this often in a row without giving a packet has nothing more to give."""
_NO_PROTOCOL = {"protocol_whitelist": "none"}
QUICK_PROBE = {"probesize": "32768", "analyzeduration": "500000"}
"""How far to look for what a stream is made of: half a second of it."""
# Text of any kind passes for teletype art or subtitles.
_NOT_MEDIA_FORMATS = {"tty", "srt", "webvtt", "ass", "microdvd", "mpl2", "vplayer", "subviewer"}
_MAGIC = (b"RIFF", b"RF64", b"OggS", b"fLaC", b"ID3", b"\x1aE\xdf\xa3", b"FORM", b"caff")

_REMEDIES = {
    "EMPTY_MEDIA": "The media has no bytes; send the whole file.",
    "NOT_MEDIA": "Send an audio or video file, such as WAV, FLAC, MP3, Ogg, MP4 or WebM.",
    "NO_AUDIO_STREAM": "The file has no sound; send one with an audio track.",
    "TRUNCATED_MEDIA": "The file breaks off before any sound; send it again as a whole.",
    "MEDIA_TOO_LONG": "Split the media into shorter parts, or raise the allowed duration.",
    "MOOV_AT_END": "Send the file as a whole, or remux it with its index at the front "
    "(ffmpeg -movflags +faststart).",
}


def decode_error(reason: str, message: str) -> DecodeError:
    """A DecodeError with the remedy that belongs to its reason."""
    return DecodeError(message, reason=reason, remedy=_REMEDIES.get(reason))


def _why(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


@dataclasses.dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a media file says about its sound.

    duration_s      of the audio stream or the container; None if neither says
    codec           FFmpeg's name: "vorbis", "mp3float", "pcm_s16le", …
    container       FFmpeg's name of the format: "ogg", "mov,mp4,m4a,3gp,3g2,mj2", …
    sample_rate_hz  of the audio stream, not of what is decoded
    channels        of the audio stream
    """

    duration_s: float | None
    codec: str
    container: str
    sample_rate_hz: int
    channels: int


class MonoResampler:
    """Audio frames of any and changing format to mono chunks, of 8 kHz if nothing else is said."""

    def __init__(self, chunk_samples: int = 0, rate_hz: int = SAMPLE_RATE_HZ) -> None:
        """`chunk_samples`: length of the chunks that come out; 0: as it comes."""
        self._chunk_samples = chunk_samples
        self._rate_hz = rate_hz
        self._format: tuple[str, str, int] | None = None
        self._resampler: AudioResampler | None = None
        self._downmix: AudioResampler | None = None

    def push(self, frame: AudioFrame) -> list[Pcm]:
        """What the next frame adds; may be nothing yet."""
        out: list[Pcm] = []
        found = (frame.format.name, frame.layout.name, frame.sample_rate)
        if found != self._format:
            # Such as one Ogg file behind another: what the old resampler holds comes first.
            out += self.finish()
            self._format = found
        # A gap or a jump in the time stamps must not become silence or an error.
        frame.pts = None
        if self._resampler is None:
            self._resampler = self._make_resampler()
            if frame.layout.nb_channels > 2:
                try:
                    return out + _arrays(self._resampler.resample(frame))
                except (av.error.FFmpegError, ValueError):
                    # Channels without a known place: average them ourselves.
                    self._resampler = self._make_resampler()
                    self._downmix = AudioResampler(format="flt", layout=frame.layout)
        if self._downmix is not None:
            mixed = [_mean_channels(part) for part in self._downmix.resample(frame)]
            return out + [pcm for part in mixed for pcm in _arrays(self._resampler.resample(part))]
        return out + _arrays(self._resampler.resample(frame))

    def finish(self) -> list[Pcm]:
        """What is still held back. Pushing may go on afterwards, as with a new format."""
        resampler, self._resampler, self._downmix, self._format = self._resampler, None, None, None
        return [] if resampler is None else _arrays(resampler.resample(None))

    def _make_resampler(self) -> AudioResampler:
        # With rematrix_maxval stereo becomes the mean of its channels, not √2 times that.
        return AudioResampler(
            format="flt",
            layout="mono",
            rate=self._rate_hz,
            frame_size=self._chunk_samples,
            options={"rematrix_maxval": "1"},
        )


def _arrays(frames: Iterable[AudioFrame]) -> list[Pcm]:
    out = []
    for frame in frames:
        # A copy: the frame's memory goes back to FFmpeg, and nobody may see it change.
        pcm = np.array(frame.to_ndarray()[0], np.float32)
        if not np.isfinite(pcm).all():
            np.nan_to_num(pcm, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        out.append(pcm)
    return out


def _mean_channels(frame: AudioFrame) -> AudioFrame:
    samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    mono = samples.mean(axis=1, dtype=np.float32)[None, :]
    mixed = AudioFrame.from_ndarray(mono, format="flt", layout="mono")
    mixed.sample_rate = frame.sample_rate
    return mixed


def open_audio(
    source: Any, options: dict[str, str] | None = None, buffer_bytes: int = _READ_BYTES
) -> tuple[InputContainer, AudioStream]:
    """Open a file object and choose its best audio stream. The caller closes the container.

    Raises DecodeError: NOT_MEDIA, TRUNCATED_MEDIA, NO_AUDIO_STREAM.
    """
    try:
        container = av.open(
            source,
            mode="r",
            options=_NO_PROTOCOL | (options or {}),
            metadata_errors="replace",
            buffer_size=buffer_bytes,
        )
    except (av.error.FFmpegError, ValueError) as error:
        raise decode_error("NOT_MEDIA", f"no media format recognised: {_why(error)}") from error
    try:
        if container.format.name in _NOT_MEDIA_FORMATS:
            raise decode_error("NOT_MEDIA", "this is text, not media")
        stream = container.streams.best("audio")
        if not isinstance(stream, AudioStream):
            raise decode_error(
                "NO_AUDIO_STREAM", f"no audio stream in this {container.format.name} file"
            )
        if getattr(stream, "codec_context", None) is None:
            # A codec that nobody knows; asking such a stream for anything fails.
            raise decode_error("DECODE_FAILED", "the codec of the audio is not known")
        for other in container.streams:
            if other is not stream:
                other.discard = Discard.all
    except BaseException:
        container.close()
        raise
    return container, stream


def audio_frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """All frames that can be decoded; damage costs the packets that it hits, not the rest.

    Raises DecodeError (DECODE_FAILED, TRUNCATED_MEDIA) if there is not a single one.
    """
    n_frames = 0
    last_error: Exception | None = None
    demux_errors = 0
    packets = container.demux(stream)
    while demux_errors < _MAX_DEMUX_ERRORS:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.error.EOFError as error:
            last_error = error
            break
        except IndexError:
            # A packet of a stream that turned up on the way: not ours.
            packets = container.demux(stream)
            continue
        except (av.error.FFmpegError, ValueError) as error:
            last_error = error
            demux_errors += 1
            packets = container.demux(stream)
            continue
        demux_errors = 0
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError) as error:
            last_error = error
            continue
        for frame in frames:
            if isinstance(frame, AudioFrame) and frame.samples > 0:
                n_frames += 1
                yield frame
    if n_frames == 0:
        if last_error is None:
            raise decode_error("TRUNCATED_MEDIA", "the media breaks off before any sound")
        raise decode_error("DECODE_FAILED", f"no audio could be decoded: {_why(last_error)}")


def _open_whole(file: IO[bytes]) -> tuple[InputContainer, AudioStream]:
    """`open_audio` on something that can be read again from its start."""
    head = file.read(16)
    file.seek(0)
    if not head:
        raise decode_error("EMPTY_MEDIA", "the media is empty")
    try:
        # FFmpeg looks into several megabytes by default, of PCM too: 28 ms for a clip. Little is
        # enough for almost everything; where it is not, look again.
        container, stream = open_audio(file, QUICK_PROBE)
        if stream.sample_rate and stream.channels:
            return container, stream
        container.close()
    except DecodeError:
        pass
    file.seek(0)
    try:
        return open_audio(file)
    except DecodeError as error:
        raise sharpen(error, head) from error.__cause__


def _decode(
    file: IO[bytes], max_duration_s: float | None, rate_hz: int = SAMPLE_RATE_HZ
) -> Iterator[Pcm]:
    container, stream = _open_whole(file)
    resampler = MonoResampler(_CHUNK_SAMPLES, rate_hz)
    left = None if max_duration_s is None else round(max_duration_s * rate_hz)
    with container:
        for frame in audio_frames(container, stream):
            for pcm in resampler.push(frame):
                left = _count(pcm, left, max_duration_s)
                yield pcm
        for pcm in resampler.finish():
            left = _count(pcm, left, max_duration_s)
            yield pcm


def _count(pcm: Pcm, left: int | None, max_duration_s: float | None) -> int | None:
    if left is None:
        return None
    if pcm.size > left:
        raise decode_error("MEDIA_TOO_LONG", f"the media is longer than {max_duration_s:g} s")
    return left - pcm.size


def sharpen(error: DecodeError, head: bytes) -> DecodeError:
    """What looks like media by its first bytes and still does not open has been cut."""
    if error.reason == "NOT_MEDIA" and (head.startswith(_MAGIC) or head[4:8] == b"ftyp"):
        return decode_error("TRUNCATED_MEDIA", "the media breaks off in its header")
    return error


def decode_file(
    path: str | Path, *, max_duration_s: float | None = None, rate_hz: int = SAMPLE_RATE_HZ
) -> Iterator[Pcm]:
    """Decode a file to mono float32 chunks of about a second, in bounded memory.

    `rate_hz`: other than the engine's 8 kHz only for those who keep or play what comes out.
    Damaged places are skipped. Raises OSError if the file cannot be opened, DecodeError
    (EMPTY_MEDIA, NOT_MEDIA, NO_AUDIO_STREAM, TRUNCATED_MEDIA, DECODE_FAILED) when there is no
    sound to be had, and MEDIA_TOO_LONG on the way, as soon as more than `max_duration_s`
    would come.
    """
    with Path(path).open("rb") as file:
        yield from _decode(file, max_duration_s, rate_hz)


def decode_bytes(data: bytes, *, max_duration_s: float | None = None) -> Pcm:
    """Decode media in memory to one mono 8 kHz float32 array. Raises as `decode_file`."""
    chunks = list(_decode(io.BytesIO(data), max_duration_s))
    return np.concatenate(chunks) if chunks else np.empty(0, np.float32)


def probe(source: str | Path | bytes) -> AudioInfo:
    """What a file (or media in memory) says about its sound; nothing is decoded.

    Raises OSError, DecodeError (EMPTY_MEDIA, NOT_MEDIA, NO_AUDIO_STREAM, TRUNCATED_MEDIA).
    """
    with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
        container, stream = _open_whole(file)
        with container:
            duration_s: float | None = None
            if stream.duration is not None and stream.time_base is not None:
                duration_s = float(stream.duration * stream.time_base)
            elif container.duration is not None:
                duration_s = container.duration / av.time_base
            return AudioInfo(
                duration_s=duration_s,
                codec=stream.codec_context.name,
                container=container.format.name,
                sample_rate_hz=stream.sample_rate or 0,
                channels=stream.channels or 0,
            )
