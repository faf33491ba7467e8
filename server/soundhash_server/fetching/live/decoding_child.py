"""Decodes one live source, in a process of its own (see decoding).

It has no use for a network: bytes come over a socket from its parent and audio goes back there.
To it go frames, four bytes of length (big endian) and so many bytes; one of length 0 says that
what follows is a new part. From it come a letter, four bytes of length and so many bytes: A
(float32 samples), at last D (all is decoded) or F (JSON: reason, message).
"""

from __future__ import annotations

import json
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress

import av.error
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from soundhash_engine.decode import MonoResampler, decode_error, open_audio
from soundhash_engine.errors import DecodeError
from soundhash_server.fetching.live.decoding_input import PartInput
from soundhash_server.fetching.process import settle

PIECE_SAMPLES = 2000
"""Audio is handed on every 250 ms: enough for whoever listens to many sources."""
_MEMORY_BYTES = 512 << 20
_READ_BYTES = 16384
# Pictures come between the sound, and large ones first. What the format is, 8 KiB have to say: to
# be surer of MP3 that is joined in its middle FFmpeg would read 128 KiB, 8 s of a station.
_PROBE = {"probesize": str(2 << 20), "analyzeduration": "2000000", "formatprobesize": "8192"}
_PATIENCE_BYTES = 8 << 20
_PATIENCE_FOR_SOUND_BYTES = {"mp3": 24 << 10, "aac": 24 << 10}
_PATIENCE_FOR_SOUND = 256 << 10
_KINDS_OF_SOUND = frozenset({"mp3", "aac", "ac3", "eac3", "flac", "ogg", "wav", "au", "loas"})
_MAX_FRUITLESS = 8
_STEP_BYTES = 4096
_MAX_ERRORS = 100
"""A demuxer that fails so often in a row without giving a packet has nothing more to give."""


def run(link: socket.socket) -> None:
    """Decodes what comes over ``link`` until its end."""
    settle(_MEMORY_BYTES)
    try:
        _Decoding(link).run()
        _send(link, b"D", b"")
    except ConnectionError:
        return  # the parent wants no more
    except DecodeError as error:
        _fail(link, error.reason, error.message)
    except (MemoryError, av.error.MemoryError):
        _fail(link, "OUT_OF_MEMORY", "The decoder needs too much memory.")
    except Exception:
        # A mistake of ours.
        traceback.print_exc(file=sys.stderr)
        _fail(link, "INTERNAL", "The decoder fails.")


def _fail(link: socket.socket, reason: str, message: str) -> None:
    with suppress(ConnectionError):
        _send(link, b"F", json.dumps({"reason": reason, "message": message}).encode())


def _send(link: socket.socket, kind: bytes, data: bytes) -> None:
    link.sendall(kind + len(data).to_bytes(4, "big") + data)


class _Decoding:
    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._input = PartInput(link)
        self._heard = False

    def run(self) -> None:
        """Part by part. Raises DecodeError for a source that gives no sound, or none any more."""
        last: DecodeError | None = None
        while self._input.begin(_PATIENCE_BYTES):
            last = self._part()
        if last is not None and not self._heard:
            raise last

    def _part(self) -> DecodeError | None:
        """Decodes a part; where it cannot be understood any more, the decoder is chosen anew.
        The error of the last attempt, if there was no sound in it."""
        fruitless = 0
        error: DecodeError | None = None
        while True:
            heard = False
            try:
                heard = self._attempt()
                error = None
            except DecodeError as failed:
                error = failed
            self._heard |= heard
            # What looks like something else at first is looked at a little further on.
            fruitless = 0 if heard else fruitless + 1
            if fruitless >= _MAX_FRUITLESS:
                if self._input.at_end:
                    return error
                raise error or decode_error("DECODE_FAILED", "nothing can be heard any more")
            if not self._input.again(_PATIENCE_BYTES, drop_bytes=_STEP_BYTES * bool(fruitless)):
                return error

    def _attempt(self) -> bool:
        """Decodes as far as one decoder comes; whether there was sound. Raises DecodeError."""
        container, stream = open_audio(self._input, _PROBE, _READ_BYTES)
        resampler = MonoResampler(PIECE_SAMPLES)
        name = container.format.name
        if name in _KINDS_OF_SOUND:
            self._input.patience(_PATIENCE_FOR_SOUND_BYTES.get(name, _PATIENCE_FOR_SOUND))
        heard = False
        with container:
            for frame in self._frames(container, stream):
                heard = True
                for pcm in resampler.push(frame):
                    _send(self._link, b"A", pcm.tobytes())
            for pcm in resampler.finish():
                if pcm.size:
                    _send(self._link, b"A", pcm.tobytes())
        return heard

    def _frames(self, container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
        """All frames that can be decoded; damage costs the packets that it hits."""
        packets = container.demux(stream)
        errors = 0
        while errors < _MAX_ERRORS:
            try:
                packet = next(packets)
            except (StopIteration, av.error.EOFError):
                return
            except (av.error.MemoryError, MemoryError):
                raise
            except (av.error.FFmpegError, ValueError, IndexError):
                # IndexError: a packet of a stream that turned up on the way.
                errors += 1
                packets = container.demux(stream)
                continue
            errors = 0
            try:
                frames = packet.decode()
            except (av.error.MemoryError, MemoryError):
                raise
            except (av.error.FFmpegError, ValueError):
                continue
            for frame in frames:
                if isinstance(frame, AudioFrame) and frame.samples > 0:
                    at = packet.pos
                    self._input.heard(None if at is None or at < 0 else at + packet.size)
                    yield frame
