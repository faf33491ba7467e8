"""RTSP and RTSPS: the sound of a camera or a server, its packets over the one connection.

FFmpeg's own RTSP would connect by itself, and go where the source sends it. Here every connection
is a guarded one, and the decoder sees bytes only. Packets over UDP are not asked for.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from urllib.parse import SplitResult, urljoin, urlsplit

from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live.access import NETWORK_ERRORS, Access, of_error, of_status
from soundhash_server.fetching.live.pieces import Pieces
from soundhash_server.fetching.live.raw import connected
from soundhash_server.fetching.live.rtp import unpacker
from soundhash_server.fetching.live.rtsp_talk import Packet, Reply, Talk
from soundhash_server.fetching.live.sdp import Track, tracks_of
from soundhash_server.url_guard import LIVE_PORTS, split_url

_MAX_REDIRECTS = 3
_SESSION_S = 60.0
"""How long a server waits for a sign of life that does not say (RFC 2326, 12.37)."""
_BYE = 203
_INTERLEAVED = re.compile(r"interleaved=(\d{1,3})")
_TIMEOUT = re.compile(r"timeout=(\d{1,5})")


async def open_rtsp(stack: AsyncExitStack, access: Access, parts: SplitResult) -> Pieces:
    """Connects, and has the source play. Raises JobError, PlatformError (URL_NOT_ALLOWED)."""
    for _ in range(_MAX_REDIRECTS + 1):
        async with AsyncExitStack() as attempt:
            try:
                player = await _described(attempt, access, parts)
                if isinstance(player, SplitResult):
                    parts = player
                    continue
                await player.play()
            except NETWORK_ERRORS as error:
                raise of_error(error) from None
            stack.push_async_exit(attempt.pop_all())
            return player.pieces()
    raise JobError("TOO_MANY_REDIRECTS", "The source redirects without end.")


async def _described(
    stack: AsyncExitStack, access: Access, parts: SplitResult
) -> _Player | SplitResult:
    """What is to be played, or where the source sends us instead."""
    scheme = parts.scheme.lower()
    port = parts.port or LIVE_PORTS[scheme]
    opened = connected(access, parts.hostname or "", port, tls=scheme == "rtsps")
    talk = Talk(await stack.enter_async_context(opened), parts)
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    reply = await talk.ask("DESCRIBE", url, {"Accept": "application/sdp"})
    if 300 <= reply.status < 400 and reply.headers.get("location"):
        target = split_url(urljoin(url, reply.headers["location"]), live=True)
        if target.hostname == parts.hostname and target.username is None and "@" in parts.netloc:
            user = parts.netloc.rpartition("@")[0]
            target = target._replace(netloc=f"{user}@{target.netloc}")
        return target
    _check(reply)
    tracks, control = tracks_of(reply.body)
    base = reply.headers.get("content-base") or reply.headers.get("content-location") or url
    track, unpack = _chosen(tracks)
    session = _address(base, control)
    return _Player(talk, session, _address(session, track.control), unpack)


def _chosen(tracks: list[Track]) -> tuple[Track, Callable[[bytes], bytes]]:
    """The first sound that can be read."""
    error = JobError("NO_AUDIO_STREAM", "The source offers no sound.")
    for track in tracks:
        if track.kind == "audio" or track.encoding == "MP2T":
            try:
                return track, unpacker(track)
            except JobError as failed:
                error = failed
    raise error


def _address(base: str, control: str) -> str:
    """Where a control attribute leads: it is appended, whatever stands at the end of the base."""
    if control in ("", "*"):
        return base
    if urlsplit(control).scheme.lower() in ("rtsp", "rtsps"):
        return control
    return f"{base.removesuffix('/')}/{control.removeprefix('/')}"


class _Player:
    def __init__(
        self, talk: Talk, session: str, track: str, unpack: Callable[[bytes], bytes]
    ) -> None:
        self._talk = talk
        self._session_url = session
        self._track_url = track
        self._unpack = unpack
        self._channel = 0
        self._alive_s = _SESSION_S / 2

    async def play(self) -> None:
        wanted = {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1"}
        reply = await self._talk.ask("SETUP", self._track_url, wanted)
        if reply.status == 461:
            raise JobError("LIVE_FORMAT", "The source sends over UDP only, not over TCP.")
        _check(reply)
        if found := _INTERLEAVED.search(reply.headers.get("transport", "")):
            self._channel = int(found[1])
        if found := _TIMEOUT.search(reply.headers.get("session", "")):
            self._alive_s = max(5.0, int(found[1]) / 2)
        _check(await self._talk.ask("PLAY", self._session_url, {"Range": "npt=0.000-"}))

    async def pieces(self) -> Pieces:
        now = asyncio.get_running_loop().time
        told_s = now()
        try:
            while True:
                if now() - told_s > self._alive_s:
                    told_s = now()
                    await self._talk.tell("GET_PARAMETER", self._session_url)
                match await self._talk.next():
                    case None:
                        return
                    case Packet(channel, data) if channel == self._channel:
                        if piece := self._unpack(data):
                            yield piece
                    case Packet(channel, data) if channel == self._channel + 1:
                        if _says_bye(data):
                            return
                    case Reply(status=0, first=first) if first.startswith("TEARDOWN"):
                        return
        except NETWORK_ERRORS as error:
            raise of_error(error) from None
        finally:
            self._talk.leave(self._session_url)


def _says_bye(data: bytes) -> bool:
    """Whether a packet of RTCP says that the source leaves (RFC 3550, 6.6)."""
    at = 0
    while at + 4 <= len(data):
        if data[at + 1] == _BYE:
            return True
        at += 4 + 4 * int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _check(reply: Reply) -> None:
    if reply.status != 200:
        raise of_status(reply.status or 502)
