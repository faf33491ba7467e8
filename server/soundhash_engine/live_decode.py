"""Audio that arrives while it is played: container streams and raw PCM to mono 8 kHz."""

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from av.audio.frame import AudioFrame

from soundhash_engine.decode import (
    QUICK_PROBE,
    MonoResampler,
    audio_frames,
    decode_error,
    open_audio,
    sharpen,
)
from soundhash_engine.errors import DecodeError
from soundhash_engine.ogg import OggLink
from soundhash_engine.params import SAMPLE_RATE_HZ
from soundhash_engine.types import Pcm

_PIPE_READ_BYTES = 16384
_CHUNK_SAMPLES = 800
"""Audio is handed on every 100 ms: less costs time in switching threads, more is waited for."""


class StreamDecoder:
    """Decodes a media stream that is fed in pieces of any size, in a thread of its own.

    One side feeds (`feed`, then `end_of_input`), one side reads (`read` until `ended`); they
    may be the same thread if it uses timeouts. Both buffers are bounded: a reader that is too
    slow stops the feeder, not the machine. `close` may be called from anywhere at any time and
    frees the thread, whatever it waits for.
    """

    def __init__(
        self,
        *,
        max_buffered_bytes: int = 1 << 20,
        max_buffered_audio_s: float = 60.0,
        moved: Callable[[], None] | None = None,
    ) -> None:
        """moved: called from the decoder's thread when there is something new to read, room for
        more input, or an end; it must not wait."""
        self._moved = moved
        self._max_bytes = max_buffered_bytes
        self._max_samples = round(max_buffered_audio_s * SAMPLE_RATE_HZ)
        self._changed = threading.Condition()
        # All below is guarded by _changed.
        # None: another stream of a chain begins.
        self._input: deque[bytes | None] = deque()
        self._link = OggLink()
        self._input_bytes = 0
        self._input_ended = False
        self._head = b""
        self._output: deque[Pcm] = deque()
        self._output_samples = 0
        self._done = False
        self._closed = False
        self._error: DecodeError | None = None
        self._error_raised = False
        self._heard = False
        self._boxes = _BoxOrder()
        self._thread = threading.Thread(target=self._run, name="stream-decoder", daemon=True)
        self._thread.start()

    def __enter__(self) -> "StreamDecoder":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def buffered_bytes(self) -> int:
        """Input that is waiting to be decoded."""
        with self._changed:
            return self._input_bytes

    @property
    def ended(self) -> bool:
        """`read` has nothing more to give: neither audio nor an error that it has not raised."""
        with self._changed:
            told = self._error is None or self._error_raised
            return self._closed or (self._done and not self._output and told)

    def feed(self, data: bytes, timeout_s: float | None = None) -> bool:
        """Give the next bytes; waits for room.

        Returns False if there was no room within `timeout_s` (nothing was taken: try again), or
        if the decoder has been closed. Bytes behind the end of what the container has are taken
        and dropped. Raises the stream's DecodeError once it has failed, MOOV_AT_END as soon as
        it shows, and ValueError after `end_of_input`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while True:
                if self._closed:
                    return False
                if self._input_ended:
                    raise ValueError("feed after end_of_input")
                if self._error is not None:
                    raise self._error
                if self._done or not data:
                    return True
                # A piece larger than the bound is taken when nothing else is waiting.
                if not self._input_bytes or self._input_bytes + len(data) <= self._max_bytes:
                    break
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
            if self._boxes.push(data):
                self._error = decode_error(
                    "MOOV_AT_END", "this MP4 has its index behind the audio: it cannot be streamed"
                )
                self._changed.notify_all()
                raise self._error
            self._take_in(bytes(data))
            if len(self._head) < 16:
                self._head += bytes(data[:16])
            self._changed.notify_all()
            return True

    def try_feed(self, data: bytes) -> bool:
        """`feed` without waiting."""
        return self.feed(data, timeout_s=0)

    def end_of_input(self) -> None:
        """Say that no more bytes will come; what was fed is decoded to its end."""
        with self._changed:
            if not self._input_ended:
                self._append(self._link.finish())
            self._input_ended = True
            self._changed.notify_all()

    def _take_in(self, data: bytes) -> None:
        mine, rest = self._link.push(data)
        self._append(mine)
        while rest is not None:
            # FFmpeg goes on with a chain only if nothing changes from one stream to the next.
            self._input.append(None)
            self._link = OggLink()
            mine, rest = self._link.push(rest)
            self._append(mine)

    def _append(self, data: bytes) -> None:
        if data:
            self._input.append(data)
            self._input_bytes += len(data)

    def read(self, timeout_s: float | None = None) -> Pcm | None:
        """The next decoded audio (mono 8 kHz float32, never empty).

        None if there was none within `timeout_s`, or none will come: see `ended`. Raises the
        stream's DecodeError after all audio that came before it.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while True:
                if self._output:
                    pcm = self._output.popleft()
                    self._output_samples -= pcm.size
                    self._changed.notify_all()
                    return pcm
                if self._error is not None and not self._closed:
                    self._error_raised = True
                    raise self._error
                if self._closed or self._done:
                    return None
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)

    def close(self) -> None:
        """Stop decoding, drop what is buffered, free the thread. May be called repeatedly."""
        with self._changed:
            self._closed = True
            self._input.clear()
            self._input_bytes = 0
            self._output.clear()
            self._output_samples = 0
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            more = True
            last: DecodeError | None = None
            while more:
                try:
                    self._decode()
                except DecodeError as error:
                    # Of a chain one stream may be broken.
                    if not self._heard:
                        raise
                    last = error
                else:
                    last = None
                more = self._next_of_chain()
            if last is not None:
                raise last
        except DecodeError as error:
            self._fail(error)
        except Exception as error:
            self._fail(decode_error("DECODE_FAILED", f"decoding failed: {error!r}"))
        finally:
            with self._changed:
                self._done = True
                self._input.clear()
                self._input_bytes = 0
                self._changed.notify_all()
            self._tell()

    def _tell(self) -> None:
        if self._moved is not None:
            self._moved()

    def _decode(self) -> None:
        container, stream = open_audio(_Pipe(self), QUICK_PROBE, _PIPE_READ_BYTES)
        resampler = MonoResampler(_CHUNK_SAMPLES)
        with container:
            for frame in audio_frames(container, stream):
                for pcm in resampler.push(frame):
                    if not self._emit(pcm):
                        return
            for pcm in resampler.finish():
                self._emit(pcm)

    def _next_of_chain(self) -> bool:
        """Whether another stream follows; drops what is left of this one."""
        with self._changed:
            while not self._closed:
                while self._input:
                    data = self._input.popleft()
                    if data is None:
                        return True
                    self._input_bytes -= len(data)
                    self._changed.notify_all()
                if self._input_ended or not self._link.may_end:
                    return False
                self._changed.wait()
            return False

    def _fail(self, error: DecodeError) -> None:
        with self._changed:
            if self._error is not None:
                return
            if self._input_ended and not self._head:
                error = decode_error("EMPTY_MEDIA", "the stream ended without a byte")
            self._error = sharpen(error, self._head)

    def _emit(self, pcm: Pcm) -> bool:
        """Hand audio to the reader; waits while it has too much. False once closed."""
        with self._changed:
            while self._output_samples >= self._max_samples and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            if pcm.size:
                self._heard = True
                self._output.append(pcm)
                self._output_samples += pcm.size
                self._changed.notify_all()
        self._tell()
        return True

    def _take_input(self, n_bytes: int) -> bytes:
        """Up to `n_bytes` of input as soon as there is any; nothing at the end."""
        with self._changed:
            while not (self._input or self._input_ended or self._closed or self._error):
                self._changed.wait()
            if not self._input or self._closed or self._error:
                return b""
            data = self._input[0]
            if data is None:
                return b""
            self._input.popleft()
            if len(data) > n_bytes:
                self._input.appendleft(data[n_bytes:])
                data = data[:n_bytes]
            self._input_bytes -= len(data)
            self._changed.notify_all()
        self._tell()
        return data


class _Pipe:
    """The file object that FFmpeg reads from: neither seekable nor writable."""

    def __init__(self, decoder: StreamDecoder) -> None:
        self._decoder = decoder

    def read(self, n_bytes: int) -> bytes:
        return self._decoder._take_input(n_bytes)


class _BoxOrder:
    """Walks an MP4's top-level boxes to see whether the audio comes before its index."""

    def __init__(self) -> None:
        self._head = b""
        self._skip = 0
        self._decided = False
        self._first = True

    def push(self, data: bytes) -> bool:
        """True once the media data turns out to come first; always False for other formats."""
        while data and not self._decided:
            if self._skip:
                dropped = min(self._skip, len(data))
                self._skip -= dropped
                data = data[dropped:]
                continue
            wanted = 16 - len(self._head)
            self._head += data[:wanted]
            data = data[wanted:]
            if len(self._head) < 16:
                return False
            size = int.from_bytes(self._head[:4], "big")
            kind = self._head[4:8]
            if size == 1:
                size = int.from_bytes(self._head[8:16], "big")
            if (self._first and kind != b"ftyp") or kind in (b"moov", b"moof") or size < 8:
                self._decided = True
                # Size 0 means "to the end of the file".
                return kind == b"mdat" and not self._first and size == 0
            self._first = False
            if kind == b"mdat":
                self._decided = True
                return True
            if size >= 16:
                self._skip = size - 16
                self._head = b""
            else:
                self._head = self._head[size:]
        return False


_ENCODINGS: dict[str, np.dtype[Any]] = {
    "u8": np.dtype("u1"),
    "s16le": np.dtype("<i2"),
    "s32le": np.dtype("<i4"),
    "f32le": np.dtype("<f4"),
    "f64le": np.dtype("<f8"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class PcmFormat:
    """Raw interleaved PCM.

    sample_rate_hz  1,000 … 384,000
    channels        1 … 32
    encoding        u8, s16le, s32le, f32le, f64le

    Raises ValueError for anything else.
    """

    sample_rate_hz: int
    channels: int = 1
    encoding: str = "s16le"

    def __post_init__(self) -> None:
        if not 1000 <= self.sample_rate_hz <= 384_000:
            raise ValueError(f"sample_rate_hz {self.sample_rate_hz} is not in 1000 … 384000")
        if not 1 <= self.channels <= 32:
            raise ValueError(f"channels {self.channels} is not in 1 … 32")
        if self.encoding not in _ENCODINGS:
            raise ValueError(f"encoding {self.encoding!r} is not one of {sorted(_ENCODINGS)}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return _ENCODINGS[self.encoding].itemsize * self.channels


class PcmResampler:
    """Raw PCM, in pieces of any size, to mono 8 kHz.

    The pieces may end within a sample. How the bytes are cut does not change the audio: they
    are resampled in blocks of a fixed length.
    """

    def __init__(self, format: PcmFormat) -> None:
        self._format = format
        # 20 ms: what is held back for a whole block comes late.
        self._block_bytes = max(1, format.sample_rate_hz // 50) * format.frame_bytes
        self._pending = b""
        self._resampler = MonoResampler()

    def push(self, data: bytes) -> Pcm:
        """The audio that `data` completes; may be empty."""
        self._pending += data
        block_bytes = self._block_bytes
        whole = len(self._pending) - len(self._pending) % block_bytes
        blocks = [self._pending[at : at + block_bytes] for at in range(0, whole, block_bytes)]
        self._pending = self._pending[whole:]
        return _join([pcm for block in blocks for pcm in self._resample(block)])

    def finish(self) -> Pcm:
        """The rest; an incomplete last sample is dropped."""
        whole = len(self._pending) - len(self._pending) % self._format.frame_bytes
        rest, self._pending = self._pending[:whole], b""
        return _join((self._resample(rest) if rest else []) + self._resampler.finish())

    def _resample(self, block: bytes) -> list[Pcm]:
        dtype = _ENCODINGS[self._format.encoding]
        samples = np.frombuffer(block, dtype).reshape(-1, self._format.channels)
        if dtype.kind == "f":
            mono = samples.mean(axis=1, dtype=np.float64)
        else:
            half_scale = 2.0 ** (8 * dtype.itemsize - 1)
            mono = samples.mean(axis=1, dtype=np.float64) / half_scale
            if dtype.kind == "u":
                mono -= 1
        limit = np.finfo(np.float32).max
        mono = np.nan_to_num(mono, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        frame = AudioFrame.from_ndarray(
            np.clip(mono, -limit, limit).astype(np.float32)[None, :], format="flt", layout="mono"
        )
        frame.sample_rate = self._format.sample_rate_hz
        return self._resampler.push(frame)


def _join(chunks: list[Pcm]) -> Pcm:
    return np.concatenate(chunks) if chunks else np.empty(0, np.float32)
