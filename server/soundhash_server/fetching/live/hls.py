"""HTTP Live Streaming: playlists read again and again, their segments as one stream.

FFmpeg's own HLS would open each segment itself. Here every playlist, segment and key is asked for
through the guarded session, and the decoder sees bytes only.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing

from Cryptodome.Cipher import AES

from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live.access import Access
from soundhash_server.fetching.live.answer import answer_of
from soundhash_server.fetching.live.hls_playlist import (
    Header,
    Key,
    MediaPlaylist,
    Part,
    Segment,
    from_live_edge,
    media_playlist,
    variants_of,
)
from soundhash_server.fetching.live.pieces import NewPart, Pieces

_TEXT_S = 30.0
_LONG_CHARS = 32 << 10
_MAX_VARIANTS = 5
_MAX_KEYS = 8
_MAX_HEADER_BYTES = 8 << 20
_TRIES = 2
_RETRY_S = 0.5
_MAX_LOST_IN_A_ROW = 3
_RENEW_SEGMENTS = 200
"""A demuxer of fragmented MP4 remembers every frame that it has seen: it is begun anew."""
_PASSING = frozenset(
    ("NETWORK_ERROR", "SOURCE_STALLED", "SOURCE_OFFLINE", "HTTP_SERVER_ERROR", "EMPTY_MEDIA")
)
"""What a playlist or a segment may fail with while the source goes on."""


async def open_hls(access: Access, url: str, text: str) -> Pieces:
    """A source whose first playlist has been read from ``url``.

    Raises JobError, PlatformError (URL_NOT_ALLOWED).
    """
    variants = variants_of(text, url)
    if "#EXT-X-STREAM-INF" not in text and not variants:
        return _pieces(access, url, await _media(text, url))
    error = JobError("NO_AUDIO_STREAM", "None of the source's variants has sound.")
    for variant in variants[:_MAX_VARIANTS]:
        try:
            text, found_url = await _text(access, variant)
            return _pieces(access, found_url, await _media(text, found_url))
        except JobError as failed:
            error = failed
    raise error


async def _pieces(access: Access, url: str, playlist: MediaPlaylist) -> Pieces:
    now = asyncio.get_running_loop().time
    segments = _Segments(access)
    todo = from_live_edge(playlist)
    asked_s = fresh_s = now()
    while True:
        for segment in todo:
            async with aclosing(segments.pieces(segment)) as pieces:
                async for piece in pieces:
                    yield piece
            fresh_s = now()
        if playlist.ended:
            segments.finish()
            return
        # A list that has not changed is asked for sooner (RFC 8216, 6.3.4).
        pause_s = playlist.target_s * (1.0 if todo else 0.5)
        await asyncio.sleep(max(0.0, asked_s + pause_s - now()))
        asked_s = now()
        error = JobError("SOURCE_STALLED", "The source's playlist does not go on.")
        try:
            text, url = await _text(access, url)
            playlist = await _media(text, url)
            todo = segments.new_ones(playlist)
        except JobError as failed:
            if failed.failure.reason not in _PASSING:
                raise
            todo, error = [], failed
        if not todo and now() - fresh_s > max(access.stall_s, 3 * playlist.target_s):
            if playlist.ended:
                return
            raise error


class _Segments:
    """Fetches segments in order, and knows where a part begins."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._next_number: int | None = None
        self._header: Header | None = None
        self._broken = False
        """What comes next does not go on where the last one ended."""
        self._in_part = 0
        self._given = False
        self._lost: JobError | None = None
        """Why the latest segments could not be had."""
        self._lost_in_a_row = 0
        self._keys: OrderedDict[str, bytes] = OrderedDict()

    def new_ones(self, playlist: MediaPlaylist) -> list[Segment]:
        """What a playlist adds."""
        if self._next_number is None:
            return from_live_edge(playlist)
        if not playlist.segments:
            return []
        if playlist.segments[-1].number < self._next_number - 1:
            # It counts from the beginning again: the source was started anew.
            self._broken = True
            return from_live_edge(playlist)
        new = [one for one in playlist.segments if one.number >= self._next_number]
        if new and new[0].number > self._next_number:
            # They were dropped before they could be fetched.
            self._broken = True
        return new

    async def pieces(self, segment: Segment) -> Pieces:
        """The bytes of a segment. One that cannot be had is left out.

        Raises JobError when that happens several times in a row.
        """
        self._next_number = segment.number + 1
        if segment.missing:
            self._broken = True
            return
        error = JobError("SOURCE_STALLED", "The source's segments do not arrive.")
        for _ in range(_TRIES):
            given = False
            try:
                begin = await self._begin(segment)
                async with aclosing(self._bytes(segment.part, segment.key, segment)) as chunks:
                    async for chunk in chunks:
                        if not given:
                            given = True
                            self._began(segment, begin)
                            for piece in begin:
                                yield piece
                        yield chunk
            except JobError as failed:
                if failed.failure.reason not in _PASSING:
                    raise
                error = failed
            else:
                self._lost, self._lost_in_a_row = None, 0
                return
            if given:
                break
            await asyncio.sleep(_RETRY_S)
        self._broken = True
        self._lost, self._lost_in_a_row = error, self._lost_in_a_row + 1
        if self._lost_in_a_row >= _MAX_LOST_IN_A_ROW:
            raise error

    def finish(self) -> None:
        """There is no more. Raises JobError when none of the segments could be had."""
        if self._lost is not None and not self._given:
            raise self._lost

    async def _begin(self, segment: Segment) -> list[NewPart | bytes]:
        """What has to come before the segment: a new part, and its header."""
        renewed = segment.header is not None and self._in_part >= _RENEW_SEGMENTS
        goes_on = not (self._broken or segment.breaks or segment.header != self._header or renewed)
        if goes_on and self._in_part:
            return []
        found: list[NewPart | bytes] = [NewPart()] if self._in_part else []
        if segment.header is not None:
            found.append(await self._whole(segment.header, segment))
        return found

    def _began(self, segment: Segment, begin: list[NewPart | bytes]) -> None:
        self._in_part = 1 if begin else self._in_part + 1
        self._header, self._broken, self._given = segment.header, False, True

    async def _whole(self, header: Header, segment: Segment) -> bytes:
        held = bytearray()
        async with aclosing(self._bytes(header.part, header.key, segment)) as chunks:
            async for chunk in chunks:
                held += chunk
                if len(held) > _MAX_HEADER_BYTES:
                    raise JobError(
                        "LIVE_FORMAT", "The header of the source's segments is too long."
                    )
        return bytes(held)

    async def _bytes(
        self, part: Part, key: Key | None, segment: Segment
    ) -> AsyncGenerator[bytes, None]:
        plain = _range(self._access, part)
        if key is not None:
            iv = key.iv or segment.number.to_bytes(16, "big")
            plain = _decrypted(plain, await self._key(key), iv)
        async with aclosing(plain) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _key(self, key: Key) -> bytes:
        if key.url not in self._keys:
            held = b""
            try:
                async with asyncio.timeout(_TEXT_S), answer_of(self._access, key.url) as answer:
                    while len(held) <= 16 and (data := await answer.some()):
                        held += data
            except TimeoutError:
                raise JobError("SOURCE_STALLED", "The source's key does not arrive.") from None
            if len(held) != 16:
                raise JobError("LIVE_FORMAT", "The key of the source's segments is not 16 bytes.")
            self._keys[key.url] = held
            while len(self._keys) > _MAX_KEYS:
                self._keys.popitem(last=False)
        return self._keys[key.url]


async def _media(text: str, url: str) -> MediaPlaylist:
    if len(text) < _LONG_CHARS:
        return media_playlist(text, url)
    # Hours of segments take a while to read, and others want to be heard meanwhile.
    return await asyncio.to_thread(media_playlist, text, url)


async def _text(access: Access, url: str) -> tuple[str, str]:
    """A playlist, and where it was found in the end."""
    try:
        async with asyncio.timeout(_TEXT_S), answer_of(access, url) as answer:
            text = await answer.text()
    except TimeoutError:
        raise JobError("SOURCE_STALLED", "The source's playlist does not arrive.") from None
    if not text.lstrip().startswith("#EXTM3U"):
        raise JobError("LIVE_FORMAT", "The source's playlist is none.")
    return text, answer.url


async def _range(access: Access, part: Part) -> AsyncGenerator[bytes, None]:
    asked, skip, left = {}, 0, -1
    if part.start is not None:
        asked["Range"] = f"bytes={part.start}-{part.start + part.size - 1}"
        skip, left = part.start, part.size
    async with answer_of(access, part.url, asked) as answer:
        if "content-range" in answer.headers:
            skip = 0
        while left and (data := await answer.some()):
            dropped = min(skip, len(data))
            skip -= dropped
            data = data[dropped:] if left < 0 else data[dropped : dropped + left]
            left -= len(data) if left > 0 else 0
            if data:
                yield data


async def _decrypted(
    chunks: AsyncGenerator[bytes, None], key: bytes, iv: bytes
) -> AsyncGenerator[bytes, None]:
    """AES-128 in CBC mode with PKCS #7 padding."""
    cipher = AES.new(key, AES.MODE_CBC, iv)
    held = b""
    async with aclosing(chunks):
        async for chunk in chunks:
            held += chunk
            # The last block may be padding.
            whole = max(0, (len(held) - 1) // 16 * 16)
            if whole:
                yield cipher.decrypt(held[:whole])
                held = held[whole:]
    if len(held) != 16:
        raise JobError("NETWORK_ERROR", "A segment of the source breaks off.")
    last = cipher.decrypt(held)
    if 1 <= last[-1] <= 16:
        yield last[: -last[-1]]
