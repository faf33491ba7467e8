"""Lists in pages: keyset paging, newest first, with opaque tokens.

A page token holds the sort key of the last row that was given, so rows that are added or
removed meanwhile neither shift nor repeat the others.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

import asyncpg

from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.model import Page

T = TypeVar("T")

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# version, checksum of the list's filters, rank, microseconds since the epoch, id
_TOKEN = struct.Struct(">BIiq16s")
_TOKEN_VERSION = 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """Sort key of a row: pages go on behind it."""

    rank: int
    create_time: datetime
    id: UUID


FIRST = Cursor(2**31 - 1, datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1))
"""Before every row, newest first."""


def encode_token(cursor: Cursor, scope: str) -> str:
    """The opaque token of a cursor; ``scope`` names the list and its filters."""
    packed = _TOKEN.pack(
        _TOKEN_VERSION,
        zlib.crc32(scope.encode()),
        cursor.rank,
        (cursor.create_time - _EPOCH) // timedelta(microseconds=1),
        cursor.id.bytes,
    )
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def decode_token(token: str, scope: str) -> Cursor:
    """The cursor of a token; FIRST for an empty one.

    Raises PlatformError INVALID_ARGUMENT (PAGE_TOKEN_INVALID) for a token that was not made
    for this list with these filters.
    """
    if not token:
        return FIRST
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        version, checksum, rank, time_us, id_bytes = _TOKEN.unpack(packed)
        create_time = _EPOCH + timedelta(microseconds=time_us)
    except (binascii.Error, ValueError, struct.error, OverflowError):
        raise page_token_invalid() from None
    if version != _TOKEN_VERSION or checksum != zlib.crc32(scope.encode()):
        raise page_token_invalid()
    return Cursor(rank, create_time, UUID(bytes=id_bytes))


def limit_of(page_size: int) -> int:
    """Rows a page: 0 means 50, and never more than 1000."""
    return min(page_size, MAX_PAGE_SIZE) if page_size > 0 else DEFAULT_PAGE_SIZE


def make_page(
    rows: Sequence[asyncpg.Record],
    page_size: int,
    scope: str,
    convert: Callable[[asyncpg.Record], T],
) -> Page[T]:
    """The page of rows that were fetched with a limit of one more than the page holds."""
    limit = limit_of(page_size)
    token = ""
    if len(rows) > limit:
        last = rows[limit - 1]
        token = encode_token(Cursor(last.get("rank", 0), last["create_time"], last["id"]), scope)
    return Page(tuple(convert(row) for row in rows[:limit]), token)


def page_token_invalid() -> PlatformError:
    """INVALID_ARGUMENT, PAGE_TOKEN_INVALID."""
    return PlatformError(
        ErrorKind.INVALID_ARGUMENT,
        "PAGE_TOKEN_INVALID",
        "The page token was not made by this list with these filters.",
        "Pass next_page_token of the previous page unchanged, with the same filters.",
        violations={"page_token": "must be next_page_token of the previous page"},
    )
