"""Where `listen` gets its audio: a file or a pipe at its pace, or a microphone."""

from __future__ import annotations

import itertools
import os
import stat
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from soundhash.cli._pace import FAST_CHUNK_BYTES, HeardPace, at_rate, read_chunks, wav_bytes_per_s

if TYPE_CHECKING:
    from soundhash import PcmFormat

_HEAD_BYTES = 4096


class AudioIn(Protocol):
    """Audio on its way to the server."""

    @property
    def pcm(self) -> PcmFormat | None:
        """The format of raw audio; None: a container."""

    @property
    def name(self) -> str:
        """What it is, for people."""

    @property
    def done(self) -> float | None:
        """How much of it has been read, 0 to 1; None where its size is not known."""

    def chunks(self) -> Iterator[bytes]:
        """All of it, at its pace; taken from another thread."""

    def heard(self, heard_s: float) -> None:
        """The server has heard this much."""

    def interrupted(self) -> None:
        """The server is away, until it has heard more."""

    def stop(self) -> None:
        """Ends `chunks` soon."""

    def check(self) -> None:
        """Raises what has ended `chunks` before its time."""


class Reading:
    """A file or standard input."""

    def __init__(self, source: str, pcm: PcmFormat | None, *, fast: bool, hurry: bool) -> None:
        """source: a path, or - for standard input. fast: as fast as it goes, not as it plays;
        hurry: the same for what is a regular file."""
        self.pcm = pcm
        self.name = "standard input" if source == "-" else source
        self._fd = 0 if source == "-" else os.open(source, os.O_RDONLY)
        found = os.fstat(self._fd)
        regular = stat.S_ISREG(found.st_mode)
        self._size = found.st_size if regular else 0
        self._read = 0
        self._fast = fast or (hurry and regular)
        self._pace = HeardPace(waits=regular)
        self._stop = threading.Event()

    @property
    def done(self) -> float | None:
        # What has been read is still on its way for a moment.
        return min(0.99, self._read / self._size) if self._size else None

    def chunks(self) -> Iterator[bytes]:
        try:
            for chunk in self._paced():
                yield chunk
                self._read += len(chunk)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from None

    def _paced(self) -> Iterator[bytes]:
        if self._fast:
            return read_chunks(self._fd, lambda: FAST_CHUNK_BYTES, self._stop)
        if self.pcm is not None:
            return self._at_rate(self.pcm.bytes_per_s, b"")
        head = next(read_chunks(self._fd, lambda: _HEAD_BYTES, self._stop), b"")
        rate = wav_bytes_per_s(head)
        if rate is not None:
            return self._at_rate(rate, head)
        rest = read_chunks(self._fd, lambda: self._pace.chunk_bytes, self._stop)
        return self._pace.pace(_after(head, rest))

    def _at_rate(self, bytes_per_s: int, head: bytes) -> Iterator[bytes]:
        # A tenth of a second at a time is what a sound card gives.
        rest = read_chunks(self._fd, lambda: max(1, bytes_per_s // 10), self._stop)
        return at_rate(_after(head, rest), bytes_per_s, self._stop)

    def heard(self, heard_s: float) -> None:
        self._pace.heard(heard_s)

    def interrupted(self) -> None:
        self._pace.interrupted()

    def stop(self) -> None:
        self._stop.set()
        self._pace.stop()

    def check(self) -> None:
        """What goes wrong in reading is raised by `chunks`."""


def _after(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    return itertools.chain([head] if head else [], rest)
