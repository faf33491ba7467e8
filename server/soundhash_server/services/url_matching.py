"""Where does the clip behind a URL come from: fetch as much of it as is needed, then match."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from soundhash_engine.errors import EngineError
from soundhash_engine.matcher import MatchOptions
from soundhash_engine.params import PARAMS
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.fetching.failures import JobError, failure_of
from soundhash_server.fetching.ways import check_options
from soundhash_server.model import FetchOptions, MatchRecord
from soundhash_server.services.matching import ClipAnswer, Matching
from soundhash_server.services.url_clips import ClipFetcher, UrlClip
from soundhash_server.url_guard import check_url

DEFAULT_LENGTH_S = 60.0
_PROGRESS_S = 0.5
_NO_OPTIONS = FetchOptions()
_OWN_REASONS = frozenset({"DISK_FULL", "OUT_OF_MEMORY"})
"""What this server lacks and the source is not to blame for."""


@dataclass(frozen=True, slots=True)
class UrlQuestion:
    """What to fetch and what to answer. length_s: None for the default."""

    url: str
    options: MatchOptions
    start_s: float = 0.0
    length_s: float | None = None
    fetch: FetchOptions = _NO_OPTIONS


@dataclass(frozen=True, slots=True)
class UrlProgress:
    """How far the clip has come."""

    bytes_done: int
    audio_done_s: float


@dataclass(frozen=True, slots=True)
class UrlMatch:
    """A match; best first."""

    match: MatchRecord


@dataclass(frozen=True, slots=True)
class UrlEnd:
    """The last event. title: what the source calls the clip, may be empty. elapsed_s: with
    fetching."""

    title: str
    answer: ClipAnswer
    elapsed_s: float


UrlEvent: TypeAlias = UrlProgress | UrlMatch | UrlEnd


class UrlMatching:
    """Matches clips that are fetched for the purpose and not kept."""

    def __init__(
        self,
        fetcher: ClipFetcher,
        matching: Matching,
        *,
        max_clip_s: float,
        allow_private_urls: bool,
    ) -> None:
        self._fetcher = fetcher
        self._matching = matching
        self._max_clip_s = max_clip_s
        self._allow_private_urls = allow_private_urls

    async def run(self, question: UrlQuestion) -> AsyncGenerator[UrlEvent, None]:
        """Progress, then the matches, then one UrlEnd. Close the iterator (aclosing) to stop.

        Raises PlatformError: INVALID_ARGUMENT (URL_NOT_ALLOWED, URL_HOST_UNKNOWN, URL_INVALID,
        CLIP_TOO_LONG, FETCH_OPTIONS_INVALID, CLIP_TOO_SHORT for what is asked), RESOURCE_EXHAUSTED
        (TOO_MANY_MATCHES, SERVER_BUSY, DISK_FULL), FAILED_PRECONDITION with a reason of the
        failure catalogue.
        """
        begun = time.monotonic()
        length_s = self._length_s(question)
        await check_options(question.fetch, self._allow_private_urls)
        try:
            await check_url(question.url, self._allow_private_urls)
            latest = [UrlProgress(0, 0.0)]

            def on_progress(bytes_done: int, audio_s: float) -> None:
                latest[0] = UrlProgress(bytes_done, audio_s)

            fetching = asyncio.create_task(
                self._fetcher.fetch(
                    question.url,
                    question.fetch,
                    on_progress,
                    start_s=question.start_s,
                    length_s=length_s,
                ),
                name="fetch-clip",
            )
            try:
                told: UrlProgress | None = None
                while not fetching.done():
                    await asyncio.wait({fetching}, timeout=_PROGRESS_S)
                    if told != latest[0]:
                        told = latest[0]
                        yield told
                clip: UrlClip = fetching.result()
            finally:
                # Until it has cleaned up.
                fetching.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await fetching
            answer = await self._matching.match_audio(clip.pcm, question.options)
        except (JobError, EngineError) as error:
            raise _refused(error) from error
        for found in answer.matches:
            yield UrlMatch(found)
        yield UrlEnd(clip.title, answer, time.monotonic() - begun)

    def _length_s(self, question: UrlQuestion) -> float:
        length_s = question.length_s
        if question.start_s < 0:
            raise _invalid(
                "CLIP_START_INVALID", "start", "The start is negative.", "Use 0 or more."
            )
        if length_s is None:
            return min(DEFAULT_LENGTH_S, self._max_clip_s)
        if length_s < PARAMS.min_clip_s:
            raise _invalid(
                "CLIP_TOO_SHORT",
                "length",
                f"A clip of {length_s:g} s cannot be matched.",
                f"Ask for at least {PARAMS.min_clip_s:g} s; three to ten seconds match best.",
            )
        if length_s > self._max_clip_s:
            raise _invalid(
                "CLIP_TOO_LONG",
                "length",
                f"A clip of {length_s:g} s is longer than {self._max_clip_s:g} s.",
                "Ask for less; an operator can raise SOUNDHASH_MAX_CLIP_S.",
            )
        return length_s


def _invalid(reason: str, field: str, message: str, remedy: str) -> PlatformError:
    return PlatformError(
        ErrorKind.INVALID_ARGUMENT, reason, message, remedy, violations={field: message}
    )


def _refused(error: JobError | EngineError) -> PlatformError:
    """What the caller is told about a source that gives no clip."""
    failure, retry_after_s = failure_of(error)
    own = failure.reason in _OWN_REASONS
    return PlatformError(
        ErrorKind.RESOURCE_EXHAUSTED if own else ErrorKind.FAILED_PRECONDITION,
        failure.reason,
        failure.message,
        failure.remedy,
        retry_after_s=retry_after_s,
        metadata={"transient": str(failure.transient).lower()},
    )
