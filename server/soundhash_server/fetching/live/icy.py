"""What Icecast and SHOUTcast servers put between the audio: titles, every so many bytes."""

from __future__ import annotations

from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live.pieces import Piece, Title
from soundhash_server.sources import clean_text

_TITLE, _TITLE_END, _FIELD = b"StreamTitle='", b"';", b"Stream"
_MIN_INTERVAL_BYTES = 64
_MAX_INTERVAL_BYTES = 1 << 24


def interval_of(header: str) -> int:
    """Bytes of audio between two blocks of metadata, from the header icy-metaint; 0 for none.

    Raises JobError LIVE_FORMAT for so few that all of it would be metadata.
    """
    text = header.strip()
    interval = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if 0 < interval < _MIN_INTERVAL_BYTES:
        raise JobError("LIVE_FORMAT", "The source sends more titles than sound.")
    return interval if interval <= _MAX_INTERVAL_BYTES else 0


class IcyStream:
    """Parts audio from metadata in a stream that comes in pieces.

    interval_bytes: of audio between two blocks; 0 for a stream without any.
    """

    def __init__(self, interval_bytes: int) -> None:
        self._interval = interval_bytes
        self._audio_left = interval_bytes
        self._block_left = 0
        self._block = b""

    def push(self, data: bytes) -> list[Piece]:
        """The audio and the titles in the next bytes, in order."""
        if not self._interval:
            return [data] if data else []
        found: list[Piece] = []
        at = 0
        while at < len(data):
            if self._block_left:
                part = data[at : at + self._block_left]
                self._block += part
                self._block_left -= len(part)
                at += len(part)
                if not self._block_left:
                    found += _titles(self._block)
                    self._block, self._audio_left = b"", self._interval
            elif self._audio_left:
                part = data[at : at + self._audio_left]
                self._audio_left -= len(part)
                at += len(part)
                found.append(part)
            else:
                # One byte of length, in units of 16 bytes; mostly nothing has changed.
                self._block_left = 16 * data[at]
                at += 1
                if not self._block_left:
                    self._audio_left = self._interval
        return found


def _titles(block: bytes) -> list[Piece]:
    block = block.rstrip(b"\0 ")
    begin = block.find(_TITLE)
    if begin < 0:
        return []
    begin += len(_TITLE)
    # A title may hold the quotes that end it, too.
    end = block.find(_TITLE_END, begin)
    while end >= 0 and block[end + 2 : end + 8] not in (b"", _FIELD):
        end = block.find(_TITLE_END, end + 1)
    title = block[begin : end if end >= 0 else None]
    try:
        text = title.decode("utf-8")
    except UnicodeDecodeError:
        text = title.decode("cp1252", "replace")
    return [Title(clean_text(text))]
