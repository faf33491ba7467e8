"""How fast `listen` sends: as a player would play, unless it is told to hurry."""

from __future__ import annotations

import os
import select
import struct
import threading
import time
from collections.abc import Callable, Iterator

FAST_CHUNK_BYTES = 64 * 1024
_FIRST_CHUNK_BYTES = 4 * 1024
_LARGEST_CHUNK_BYTES = 256 * 1024
_AHEAD_S = 1.0
_TICK_S = 0.02
_UNHEARD_CHUNKS = 12
_STOP_POLL_S = 0.1


def read_chunks(
    fd: int, n_bytes: Callable[[], int], stop: threading.Event | None = None
) -> Iterator[bytes]:
    """What a file descriptor gives, until it ends or `stop` is set.

    Without Python's buffer: that one is locked while a thread waits in it, which would keep the
    program from ending.
    """
    while _readable(fd, stop) and (chunk := os.read(fd, n_bytes())):
        yield chunk


def _readable(fd: int, stop: threading.Event | None) -> bool:
    """Waits until there is something to read; False when `stop` is set before."""
    if stop is None or os.name == "nt":  # Windows can wait for sockets only
        return stop is None or not stop.is_set()
    while not stop.is_set():
        if select.select([fd], [], [], _STOP_POLL_S)[0]:
            return True
    return False


def at_rate(chunks: Iterator[bytes], bytes_per_s: float, stop: threading.Event) -> Iterator[bytes]:
    """Chunks at the pace of audio of a known rate."""
    began, n_sent = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        n_sent += len(chunk)
        if stop.wait(max(0.0, n_sent / bytes_per_s - (time.monotonic() - began))):
            return


class HeardPace:
    """The pace of audio whose rate only the server knows: it tells how much it has heard.

    Sends a little, looks what was heard, and waits when that is ahead of the clock. Chunks grow
    while nothing new is heard and the clock runs ahead: the audio is richer than was thought.

    waits: whether the source can wait while the server is away; one that plays by itself cannot.
    """

    def __init__(self, *, waits: bool = False) -> None:
        self.chunk_bytes = _FIRST_CHUNK_BYTES
        self._waits = waits
        self._away = False
        self._heard_s = 0.0
        self._n_events = 0
        self._changed = threading.Condition()
        self._stopped = False

    def heard(self, heard_s: float) -> None:
        """The server has heard this much."""
        with self._changed:
            self._away = False
            self._heard_s = max(self._heard_s, heard_s)
            self._n_events += 1
            self._changed.notify_all()

    def interrupted(self) -> None:
        """The server is away until it says again what it has heard."""
        with self._changed:
            self._away = True

    def stop(self) -> None:
        """Ends the sending."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def pace(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks, each when its time has come."""
        began, n_unheard = time.monotonic(), 0
        for chunk in chunks:
            yield chunk
            with self._changed:
                n_events = self._n_events
                self._changed.wait(_TICK_S)
                n_unheard = 0 if self._n_events > n_events or self._away else n_unheard + 1
                if n_unheard >= _UNHEARD_CHUNKS:
                    n_unheard = 0
                    self.chunk_bytes = min(2 * self.chunk_bytes, _LARGEST_CHUNK_BYTES)
                while self._waits and self._away and not self._stopped:
                    self._changed.wait()
                while not self._stopped:
                    ahead_s = self._heard_s - _AHEAD_S - (time.monotonic() - began)
                    if ahead_s <= 0:
                        break
                    self._changed.wait(ahead_s)
                if self._stopped:
                    return


def wav_bytes_per_s(head: bytes) -> int | None:
    """The byte rate that the head of a WAV file states; None for anything else."""
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
        return None
    at = 12
    while at + 8 <= len(head):
        name, length = head[at : at + 4], struct.unpack_from("<I", head, at + 4)[0]
        if name == b"fmt " and at + 20 <= len(head):
            rate: int = struct.unpack_from("<I", head, at + 16)[0]
            return rate or None
        at += 8 + length + (length & 1)
    return None
