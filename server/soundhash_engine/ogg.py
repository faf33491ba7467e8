"""Where one Ogg stream ends and the next begins: radio stations chain them, one a title."""

from __future__ import annotations

_MAGIC = b"OggS"
_HEAD_BYTES = 27
_FIRST_PAGE = 0x02


class OggLink:
    """Walks the pages of one stream of a chain (RFC 3533, 6) that comes in pieces.

    What is no Ogg, and what is out of step, is let through unseen.
    """

    def __init__(self) -> None:
        self._head = b""
        self._skip = 0
        self._is_ogg = True
        self._begun = False

    @property
    def may_end(self) -> bool:
        """Whether another stream may follow this one."""
        return self._is_ogg and self._begun

    def push(self, data: bytes) -> tuple[bytes, bytes | None]:
        """What of the bytes so far belongs to this stream, and, once it has come, the beginning
        of the next one. The head of a page is held back until it is whole."""
        data, self._head = self._head + data, b""
        at = 0
        while self._is_ogg and at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            head = data[at : at + _HEAD_BYTES + 255]
            if not head.startswith(_MAGIC[: len(head)]):
                self._is_ogg = False
            elif len(head) < _HEAD_BYTES or len(head) < _HEAD_BYTES + head[26]:
                self._head = data[at:]
                return data[:at], None
            elif not head[5] & _FIRST_PAGE:
                self._begun = True
                self._skip = _page_bytes(head)
            elif self._begun:
                return data[:at], data[at:]
            else:
                self._skip = _page_bytes(head)
        return data, None

    def finish(self) -> bytes:
        """What was held back."""
        held, self._head = self._head, b""
        return held


def _page_bytes(head: bytes) -> int:
    return _HEAD_BYTES + head[26] + sum(head[_HEAD_BYTES : _HEAD_BYTES + head[26]])
