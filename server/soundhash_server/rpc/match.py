"""MatchService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from uuid import UUID

from soundhash.v1 import match_pb2, match_pb2_grpc
from soundhash_engine.matcher import MatchOptions
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.rpc.convert import (
    duration,
    fetch_options,
    match_message,
    missing_message,
    pcm_format,
    seconds,
    stream_message,
    url_match_message,
    uuid_or_none,
)
from soundhash_server.rpc.explained import explained_message
from soundhash_server.rpc.interceptors import Context
from soundhash_server.services.explaining import Explaining
from soundhash_server.services.live import LiveMatching, StreamConfig, Told
from soundhash_server.services.matching import Matching, match_options
from soundhash_server.services.url_matching import UrlMatching, UrlQuestion

_BROKEN_S = 0.05


class MatchServicer(match_pb2_grpc.MatchServiceServicer):
    def __init__(
        self,
        matching: Matching,
        live: LiveMatching,
        url_matching: UrlMatching,
        explaining: Explaining,
        *,
        max_clip_s: float,
    ) -> None:
        self._matching = matching
        self._live = live
        self._url_matching = url_matching
        self._explaining = explaining
        self._max_clip_s = max_clip_s

    async def MatchClip(
        self, request: match_pb2.MatchClipRequest, context: Context
    ) -> match_pb2.MatchClipResponse:
        answer = await self._matching.match_clip(request.content, self._options(request.options))
        return match_pb2.MatchClipResponse(
            query_id=str(answer.query_id),
            matches=[match_message(match) for match in answer.matches],
            clip_duration=duration(answer.clip_duration_s),
            elapsed=duration(answer.elapsed_s),
            missing=[missing_message(part) for part in answer.missing],
        )

    async def MatchStream(
        self, request_iterator: AsyncIterator[match_pb2.MatchStreamRequest], context: Context
    ) -> AsyncIterator[match_pb2.MatchStreamResponse]:
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("config"):
            raise PlatformError(
                ErrorKind.INVALID_ARGUMENT,
                "STREAM_CONFIG_MISSING",
                "The first message of a stream has no config.",
                "Send a message with config first, then the audio.",
            )
        async with aclosing(self._stream(first.config, _audio(request_iterator))) as events:
            async for told in events:
                yield stream_message(told)

    async def MatchUrl(
        self, request: match_pb2.MatchUrlRequest, context: Context
    ) -> AsyncIterator[match_pb2.MatchUrlResponse]:
        question = UrlQuestion(
            url=request.url,
            options=self._options(request.options),
            start_s=seconds(request.start),
            length_s=seconds(request.length) if request.HasField("length") else None,
            fetch=fetch_options(request.fetch),
        )
        async with aclosing(self._url_matching.run(question)) as events:
            async for event in events:
                yield url_match_message(event)

    async def GetMatch(
        self, request: match_pb2.GetMatchRequest, context: Context
    ) -> match_pb2.Match:
        return match_message(await self._matching.get(UUID(request.id)))

    async def ListMatches(
        self, request: match_pb2.ListMatchesRequest, context: Context
    ) -> match_pb2.ListMatchesResponse:
        page = await self._matching.list(
            request.page_size,
            request.page_token,
            uuid_or_none(request.video_id),
            uuid_or_none(request.query_id),
        )
        return match_pb2.ListMatchesResponse(
            matches=[match_message(match) for match in page.items],
            next_page_token=page.next_page_token,
        )

    async def ExplainMatch(
        self, request: match_pb2.ExplainMatchRequest, context: Context
    ) -> match_pb2.ExplainMatchResponse:
        if request.match_id:
            made = self._explaining.explain_match(UUID(request.match_id), request.content)
        else:
            made = self._explaining.explain_clip(request.content, uuid_or_none(request.video_id))
        return explained_message(await made)

    def _stream(
        self, asked: match_pb2.MatchStreamConfig, audio: AsyncIterator[bytes]
    ) -> AsyncGenerator[Told, None]:
        if asked.HasField("resume"):
            return self._live.resume(asked.resume.token, asked.resume.last_sequence, audio)
        config = StreamConfig(
            pcm=pcm_format(asked.pcm) if asked.HasField("pcm") else None,
            options=self._options(asked.options),
            stop_after_first=asked.stop_after_first,
            window_s=seconds(asked.window) if asked.HasField("window") else None,
        )
        return self._live.open(config, audio)

    def _options(self, options: match_pb2.MatchOptions) -> MatchOptions:
        return match_options(options.top, options.min_confidence, self._max_clip_s)


async def _audio(requests: AsyncIterator[match_pb2.MatchStreamRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if not request.HasField("audio"):
            raise PlatformError(
                ErrorKind.INVALID_ARGUMENT,
                "STREAM_CONFIG_REPEATED",
                "A second config came after the first message.",
                "Send one config, then audio only.",
            )
        yield request.audio
    # For gRPC the messages of a broken connection end like others, and the cancellation follows:
    # the audio is over when none does.
    await asyncio.sleep(_BROKEN_S)
