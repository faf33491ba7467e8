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

import av.error

from soundhash_engine.decode import MonoResampler, audio_frames, open_audio
from soundhash_engine.errors import DecodeError
from soundhash_server.fetching.live.ogg import OggLink
from soundhash_server.fetching.process import settle

PIECE_SAMPLES = 2000
"""Audio is handed on every 250 ms: enough for whoever listens to many sources."""
_MEMORY_BYTES = 512 << 20
_READ_BYTES = 16384
# Pictures come between the sound, and large ones first.
_PROBE = {"probesize": str(2 << 20), "analyzeduration": "2000000"}
_LOST_BYTES = 128 << 10
_LOST_FILM_BYTES = 8 << 20
"""Bytes without any sound after which the format is looked for anew."""
_MAX_FRUITLESS = 4
_KINDS_OF_SOUND = frozenset({"mp3", "aac", "ac3", "eac3", "flac", "ogg", "wav", "loas"})


def run(link: socket.socket) -> None:
    """Decodes what comes over ``link`` until its end."""
    settle(_MEMORY_BYTES)
    try:
        _Decoding(link).run()
        _send(link, b"D", b"")
    except ConnectionError:
        return
    except DecodeError as error:
        _fail(link, error.reason, error.message)
    except (MemoryError, av.error.MemoryError):
        _fail(link, "OUT_OF_MEMORY", "The decoder needs too much memory.")
    except Exception:
        # A mistake of ours.
        traceback.print_exc(file=sys.stderr)
        _fail(link, "INTERNAL", "The decoder fails.")


def _fail(link: socket.socket, reason: str, message: str) -> None:
    try:
        _send(link, b"F", json.dumps({"reason": reason, "message": message}).encode())
    except ConnectionError:
        return


def _send(link: socket.socket, kind: bytes, data: bytes) -> None:
    link.sendall(kind + len(data).to_bytes(4, "big") + data)


class _Decoding:
    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._input = _Stream(link)

    def run(self) -> None:
        """Part by part; within one, what cannot be understood any more is begun anew.

        Raises DecodeError for a source that gives no sound, or none any more.
        """
        fruitless = 0
        last: DecodeError | None = None
        while self._input.begin():
            try:
                heard = self._part()
            except DecodeError as error:
                heard, last = False, error
            fruitless = 0 if heard else fruitless + 1
            if fruitless >= _MAX_FRUITLESS:
                break
        if fruitless and last is not None:
            raise last

    def _part(self) -> bool:
        """Decodes up to the end of a part; whether there was any sound in it."""
        container, stream = open_audio(self._input, _PROBE, _READ_BYTES)
        resampler = MonoResampler(PIECE_SAMPLES)
        if container.format.name in _KINDS_OF_SOUND:
            self._input.patience_bytes = _LOST_BYTES
        heard = False
        with container:
            try:
                for frame in audio_frames(container, stream):
                    heard = True
                    self._input.heard()
                    for pcm in resampler.push(frame):
                        _send(self._link, b"A", pcm.tobytes())
            except DecodeError:
                if not heard:
                    raise
            for pcm in resampler.finish():
                if pcm.size:
                    _send(self._link, b"A", pcm.tobytes())
        return heard


class _Frames:
    """What the parent sends, frame by frame."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    def next(self) -> bytes | None:
        """None at the end; empty at the end of a part."""
        head = self._exactly(4)
        return None if head is None else self._exactly(int.from_bytes(head, "big"))

    def _exactly(self, n_bytes: int) -> bytes | None:
        data = bytearray()
        while len(data) < n_bytes:
            more = self._link.recv(n_bytes - len(data))
            if not more:
                return None
            data += more
        return bytes(data)


class _Stream:
    """The file object that FFmpeg reads a part from: neither seekable nor writable."""

    def __init__(self, link: socket.socket) -> None:
        self.patience_bytes = _LOST_FILM_BYTES
        self._frames = _Frames(link)
        self._ogg = OggLink()
        self._held = b""
        self._next: bytes | None = None
        """The beginning of the part after this one."""
        self._part_over = False
        self._over = False
        self._since_heard = 0

    def begin(self) -> bool:
        """Whether there is another part, or more of one that was given up; waits for it."""
        while not self._held and not (self._over and self._next is None):
            if self._part_over or self._over:
                first, self._next = self._next, None
                self._part_over, self._ogg = False, OggLink()
                if first:
                    self._take(first)
            else:
                self._receive()
        self._since_heard = 0
        self.patience_bytes = _LOST_FILM_BYTES
        return bool(self._held)

    def heard(self) -> None:
        """Sound has come out of what was read."""
        self._since_heard = 0

    def read(self, n_bytes: int) -> bytes:
        """Up to so many bytes as soon as there are any; none at the end of the part, and when
        there was no sound in the latest ones."""
        if self._since_heard > self.patience_bytes:
            return b""
        while not (self._held or self._over or self._part_over):
            self._receive()
        data, self._held = self._held[:n_bytes], self._held[n_bytes:]
        self._since_heard += len(data)
        return data

    def _receive(self) -> None:
        frame = self._frames.next()
        if frame:
            self._take(frame)
        else:
            self._over = frame is None
            self._part_over = True
            self._held += self._ogg.finish()

    def _take(self, data: bytes) -> None:
        own, self._next = self._ogg.push(data)
        self._held += own
        self._part_over = self._next is not None
