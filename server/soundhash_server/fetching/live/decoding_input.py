"""What a decoding child reads from: the bytes of its parent, part by part (see decoding_child)."""

from __future__ import annotations

import socket

from soundhash_engine.ogg import OggLink

_FRAME_HEAD_BYTES = 4
_LITTLE_BYTES = 16 << 10


class PartInput:
    """The file object that FFmpeg reads one part after the other from: neither seekable nor
    writable.

    Bytes that no sound has come out of are kept: when a decoder is at its wits' end, the next one
    begins with them. So a source may change from MP3 to Ogg without a word, and nothing is lost.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._ogg = OggLink()
        self._held = bytearray()
        """Not read yet."""
        self._unheard = bytearray()
        """Read, and nothing has been heard of it."""
        self._unheard_at = 0
        """Where that begins in the part, as the decoder counts."""
        self._patience_bytes = 0
        self._next: bytes | None = None
        """The beginning of the part after this one."""
        self._part_over = False
        self._over = False

    def begin(self, patience_bytes: int) -> bool:
        """Whether there is another part; waits for it."""
        self._unheard.clear()
        while not self._held:
            if not (self._part_over or self._over):
                self._receive()
            elif self._over and self._next is None:
                return False
            else:
                first, self._next = self._next, None
                self._part_over, self._ogg = False, OggLink()
                if first:
                    self._take(first)
        self._start(patience_bytes)
        return True

    @property
    def at_end(self) -> bool:
        """The part has been read to its end."""
        return not self._held and (self._part_over or self._over)

    def again(self, patience_bytes: int, *, drop_bytes: int = 0) -> bool:
        """Goes back to the first byte of this part that nothing has been heard of, or so many
        further. False when the part has been read to its end and what is left is little: the
        end of a container is no sound."""
        if self.at_end and len(self._unheard) - drop_bytes <= _LITTLE_BYTES:
            return False
        self._held = self._unheard[drop_bytes:] + self._held
        self._unheard = bytearray()
        self._start(patience_bytes)
        return True

    def patience(self, n_bytes: int) -> None:
        """After so many bytes without sound, reading ends."""
        self._patience_bytes = n_bytes

    def heard(self, end: int | None) -> None:
        """There was sound in what ends at this byte of the part; None: somewhere."""
        read = self._unheard_at + len(self._unheard)
        good = read if end is None else min(max(end, self._unheard_at), read)
        del self._unheard[: good - self._unheard_at]
        self._unheard_at = good

    def read(self, n_bytes: int) -> bytes:
        """Up to so many bytes as soon as there are any; none at the end of the part, and when
        there has been no sound for too long."""
        if len(self._unheard) > self._patience_bytes:
            return b""
        while not (self._held or self._over or self._part_over):
            self._receive()
        data = bytes(self._held[:n_bytes])
        del self._held[:n_bytes]
        self._unheard += data
        return data

    def _start(self, patience_bytes: int) -> None:
        self._unheard_at = 0
        self._patience_bytes = patience_bytes

    def _receive(self) -> None:
        frame = self._frame()
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

    def _frame(self) -> bytes | None:
        """What the parent sends next: None at the end, nothing at the end of a part."""
        head = self._exactly(_FRAME_HEAD_BYTES)
        return None if head is None else self._exactly(int.from_bytes(head, "big"))

    def _exactly(self, n_bytes: int) -> bytes | None:
        data = bytearray()
        while len(data) < n_bytes:
            more = self._link.recv(n_bytes - len(data))
            if not more:
                return None
            data += more
        return bytes(data)
