"""Values in AMF0, the notation of RTMP's commands (Adobe, Action Message Format AMF 0)."""

from __future__ import annotations

import struct

Value = float | bool | str | None | dict[str, "Value"] | list["Value"]

_MAX_DEPTH = 8
_MAX_ENTRIES = 1000
_END = b"\x00\x00\x09"


class AmfError(ValueError):
    """These bytes are no AMF0, or of a kind that no command needs."""


def encode(*values: Value) -> bytes:
    """Values one after the other, as they stand in a command."""
    return b"".join(map(_encode, values))


def decode(data: bytes) -> list[Value]:
    """All values of a command. Raises AmfError."""
    found: list[Value] = []
    at = 0
    try:
        while at < len(data) and len(found) < _MAX_ENTRIES:
            value, at = _decode(data, at, _MAX_DEPTH)
            found.append(value)
    except (IndexError, struct.error):
        raise AmfError("a value breaks off") from None
    return found


def _encode(value: Value) -> bytes:
    match value:
        case None:
            return b"\x05"
        case bool():
            return b"\x01\x01" if value else b"\x01\x00"
        case int() | float():
            return b"\x00" + struct.pack(">d", value)
        case str():
            return b"\x02" + _text(value)
        case dict():
            fields = b"".join(_text(name) + _encode(one) for name, one in value.items())
            return b"\x03" + fields + _END
    raise AmfError("a value that commands do not have")


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _decode(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    if not depth:
        raise AmfError("values within values without end")
    kind, at = data[at], at + 1
    match kind:
        case 0x00:
            return struct.unpack_from(">d", data, at)[0], at + 8
        case 0x01:
            return bool(data[at]), at + 1
        case 0x02:
            return _take(data, at, 2)
        case 0x0C:
            return _take(data, at, 4)
        case 0x03:
            return _fields(data, at, depth)
        case 0x08:
            return _fields(data, at + 4, depth)
        case 0x05 | 0x06 | 0x0D:
            return None, at
        case 0x0A:
            (count,) = struct.unpack_from(">I", data, at)
            return _items(data, at + 4, min(count, _MAX_ENTRIES), depth)
        case 0x0B:
            return struct.unpack_from(">d", data, at)[0], at + 10
    raise AmfError(f"a value of kind {kind}")


def _take(data: bytes, at: int, width: int) -> tuple[str, int]:
    end = at + width + int.from_bytes(data[at : at + width], "big")
    if end > len(data):
        raise AmfError("a text breaks off")
    return data[at + width : end].decode("utf-8", "replace"), end


def _fields(data: bytes, at: int, depth: int) -> tuple[dict[str, Value], int]:
    found: dict[str, Value] = {}
    while data[at : at + 3] != _END:
        if len(found) >= _MAX_ENTRIES:
            raise AmfError("an object with too many fields")
        name, at = _take(data, at, 2)
        found[name], at = _decode(data, at, depth - 1)
    return found, at + 3


def _items(data: bytes, at: int, count: int, depth: int) -> tuple[list[Value], int]:
    found: list[Value] = []
    for _ in range(count):
        value, at = _decode(data, at, depth - 1)
        found.append(value)
    return found, at
