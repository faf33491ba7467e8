"""Sound out of RTP packets, as a stream that decoders know.

FFmpeg takes packets from its own sockets only. The formats that sound comes in over RTSP are
few, and each becomes one that may be cut anywhere: PCM as AU, AAC as ADTS, Opus as Ogg, MPEG
audio and transport streams as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live.sdp import Track

_AU_KINDS = {"PCMU": 1, "PCMA": 27, "L8": 2, "L16": 3, "L24": 4, "G722": 24}
"""Numbers of Sun's audio format; its PCM has the byte order of RTP."""
_AAC_RATES_HZ = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_MAX_UNIT_BYTES = 1 << 16
_OGG_TABLE = [0] * 256

for _n in range(256):
    _crc = _n << 24
    for _ in range(8):
        _crc = (_crc << 1 ^ (0x04C11DB7 if _crc & 0x80000000 else 0)) & 0xFFFFFFFF
    _OGG_TABLE[_n] = _crc


def unpacker(track: Track) -> Callable[[bytes], bytes]:
    """What makes of one RTP packet after the other the bytes of a stream; what is none becomes
    nothing. Raises JobError LIVE_FORMAT for sound in a format that is not known."""
    if track.encoding in _AU_KINDS:
        return _Plain(_au_head(track)).push
    match track.encoding:
        case "MPA":
            # Four bytes say where in a frame the packet begins (RFC 2250, 3.5).
            return _Plain(b"", skip_bytes=4).push
        case "MP2T":
            return _Plain(b"").push
        case "MPEG4-GENERIC":
            return _Aac(track).push
        case "OPUS":
            return _Opus(track).push
    raise JobError("LIVE_FORMAT", f"Sound as {track.encoding[:40]} over RTP is not known.")


def payload_of(packet: bytes) -> tuple[bytes, bool, int] | None:
    """The payload of a packet, its mark and its time (RFC 3550, 5.1); None if it is none."""
    if len(packet) < 12 or packet[0] >> 6 != 2:
        return None
    at = 12 + 4 * (packet[0] & 0x0F)
    if packet[0] & 0x10:
        at += 4 + 4 * int.from_bytes(packet[at + 2 : at + 4], "big")
    end = len(packet) - (packet[-1] if packet[0] & 0x20 else 0)
    if at >= end:
        return None
    return packet[at:end], bool(packet[1] & 0x80), int.from_bytes(packet[4:8], "big")


class _Plain:
    """Payloads one after the other."""

    def __init__(self, head: bytes, skip_bytes: int = 0) -> None:
        self._head = head
        self._skip_bytes = skip_bytes

    def push(self, packet: bytes) -> bytes:
        found = payload_of(packet)
        if found is None:
            return b""
        head, self._head = self._head, b""
        return head + found[0][self._skip_bytes :]


def _au_head(track: Track) -> bytes:
    # G.722 has twice the rate that it says (RFC 3551, 4.5.2).
    rate_hz = 16_000 if track.encoding == "G722" else track.rate_hz
    kind = _AU_KINDS[track.encoding]
    return struct.pack(">4sIIIIII", b".snd", 28, 0xFFFFFFFF, kind, rate_hz, track.channels, 0)


class _Aac:
    """AAC in access units (RFC 3640, mode AAC-hbr and AAC-lbr)."""

    def __init__(self, track: Track) -> None:
        said = track.parameters
        try:
            self._size_bits = int(said.get("sizelength", "13"))
            self._index_bits = int(said.get("indexlength", "3"))
            self._delta_bits = int(said.get("indexdeltalength", "3"))
            config = bytes.fromhex(said.get("config", ""))
        except ValueError:
            raise JobError(
                "LIVE_FORMAT", "The source's description of AAC cannot be read."
            ) from None
        if not (0 < self._size_bits <= 16 and 0 <= self._index_bits <= 16):
            raise JobError("LIVE_FORMAT", "The source's description of AAC cannot be read.")
        self._kind, self._rate, self._channels = _aac_config(config, track)
        self._begun = b""
        self._begun_size = 0

    def push(self, packet: bytes) -> bytes:
        found = payload_of(packet)
        if found is None or len(found[0]) < 2:
            return b""
        payload = found[0]
        bits = int.from_bytes(payload[:2], "big")
        data = payload[2 + (bits + 7) // 8 :]
        sizes = self._sizes(payload[2 : 2 + (bits + 7) // 8], bits)
        if len(sizes) == 1 and sizes[0] > len(data):
            return self._fragment(data, sizes[0])
        self._begun = b""
        out, at = [], 0
        for size in sizes:
            unit = data[at : at + size]
            if len(unit) == size and size:
                out.append(self._adts(unit))
            at += size
        return b"".join(out)

    def _sizes(self, heads: bytes, bits: int) -> list[int]:
        if len(heads) * 8 < bits:
            return []
        value, left = int.from_bytes(heads, "big") >> len(heads) * 8 - bits, bits
        sizes: list[int] = []
        while True:
            width = self._size_bits + (self._delta_bits if sizes else self._index_bits)
            if left < width:
                return sizes
            left -= width
            sizes.append(value >> left + width - self._size_bits & (1 << self._size_bits) - 1)

    def _fragment(self, data: bytes, size: int) -> bytes:
        """A unit too large for one packet comes in several."""
        if size != self._begun_size or len(self._begun) >= size:
            self._begun = b""
        self._begun, self._begun_size = self._begun + data, size
        if len(self._begun) < size or size > _MAX_UNIT_BYTES:
            return b""
        unit, self._begun = self._begun[:size], b""
        return self._adts(unit)

    def _adts(self, unit: bytes) -> bytes:
        size = len(unit) + 7
        if size >= 1 << 13:
            return b""
        head = 0xFFF1 << 40 | (self._kind - 1) << 38 | self._rate << 34 | self._channels << 30
        return (head | size << 13 | 0x7FF << 2).to_bytes(7, "big") + unit


def _aac_config(config: bytes, track: Track) -> tuple[int, int, int]:
    """Kind, number of the rate and channels in an AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2)."""
    bits = int.from_bytes(config.ljust(8, b"\0")[:8], "big")
    left = 64

    def take(width: int) -> int:
        nonlocal left
        left -= width
        return bits >> left & (1 << width) - 1

    kind, rate = take(5), take(4)
    rate_hz = take(24) if rate == 15 else 0
    channels = take(4)
    if kind in (5, 29):
        # Spectral bands are added to AAC of half the rate: the decoder finds that out.
        if take(4) == 15:
            take(24)
        kind = take(5)
    if not config:
        kind, rate, rate_hz, channels = 2, 15, track.rate_hz, track.channels
    if rate == 15:
        rate = min(range(len(_AAC_RATES_HZ)), key=lambda n: abs(_AAC_RATES_HZ[n] - rate_hz))
    if not 1 <= kind <= 4 or rate >= len(_AAC_RATES_HZ) or not 1 <= channels <= 7:
        raise JobError("LIVE_FORMAT", "The source's kind of AAC is not known.")
    return kind, rate, channels


class _Opus:
    """Opus in Ogg, a page a packet (RFC 7587 to RFC 7845)."""

    def __init__(self, track: Track) -> None:
        channels = 2 if track.parameters.get("sprop-stereo") == "1" else 1
        head = struct.pack("<8sBBHIHB", b"OpusHead", 1, channels, 0, 48_000, 0, 0)
        tags = struct.pack("<8sI", b"OpusTags", 0) + bytes(4)
        self._number = 0
        self._first_time: int | None = None
        self._heads = self._page(head, 0, 2) + self._page(tags, 0, 0)

    def push(self, packet: bytes) -> bytes:
        found = payload_of(packet)
        if found is None or len(found[0]) > 255 * 254:
            return b""
        payload, _, time = found
        if self._first_time is None:
            self._first_time = time
        heads, self._heads = self._heads, b""
        return heads + self._page(payload, time - self._first_time & 0xFFFFFFFF, 0)

    def _page(self, data: bytes, position: int, flags: int) -> bytes:
        lacing = bytes([255] * (len(data) // 255) + [len(data) % 255])
        head = struct.pack("<4sBBqIII", b"OggS", 0, flags, position, 1, self._number, 0)
        self._number += 1
        page = head + bytes([len(lacing)]) + lacing + data
        return page[:22] + struct.pack("<I", _ogg_crc(page)) + page[26:]


def _ogg_crc(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFFFFFF) ^ _OGG_TABLE[crc >> 24 ^ byte]
    return crc
