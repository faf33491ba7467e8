"""A stream that outlives its connection: events with numbers, the last ones kept."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
from collections import deque
from collections.abc import AsyncIterator
from typing import TypeAlias

from soundhash_engine import EngineError
from soundhash_server.errors import ErrorKind, PlatformError, draining
from soundhash_server.services.live.answers import Answers
from soundhash_server.services.live.events import (
    FinalMatch,
    Gap,
    Opened,
    StreamEvent,
    Summary,
    Told,
)
from soundhash_server.services.live.stream import Stream
from soundhash_server.tasks import end

MOST_KEPT = 256
"""So many of the latest matches and gaps are told again to a client that comes back."""
MOST_UNREAD = 16
"""The search waits for a client that leaves so many events unread."""

Link: TypeAlias = object
"""Stands for one connection of a session."""


class Session:
    """One stream and what it has told. At most one connection reads it and feeds it."""

    def __init__(self, stream: Stream, answers: Answers) -> None:
        self.token = secrets.token_urlsafe(24)
        self._stream = stream
        self._answers = answers
        self._sequence = 0
        self._kept: deque[Told] = deque(maxlen=MOST_KEPT)
        self._unread: deque[Told] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._link: Link | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._wound_up = False
        self._over = False
        self._task: asyncio.Task[None]

    @property
    def attached(self) -> bool:
        """Whether a client is there."""
        return self._link is not None

    @property
    def over(self) -> bool:
        """Whether nothing new will come: all is told, or has failed."""
        return self._over

    def start(self) -> None:
        """Begins; to be closed."""
        self._stream.open()
        self._task = asyncio.create_task(self._run(), name="stream")

    async def close(self) -> None:
        """Ends it, whatever it is doing."""
        self.detach(self._link)
        await self._end_feeding()
        await end(self._task)
        await self._stream.close()

    async def attach(self, audio: AsyncIterator[bytes], last_sequence: int | None) -> Link:
        """Connects a client and takes its audio from now on; who was connected is sent away.

        last_sequence: of the last event that it has; None for a new stream.
        """
        link: Link = object()
        self._link = link
        self._unread.clear()
        self._news.set()
        try:
            await self._end_feeding()
        except BaseException:
            self.detach(link)
            raise
        if self._link is not link:
            return link
        self._feeder = asyncio.create_task(self._feed(audio), name="stream-feeder")
        self._unread.clear()
        self._room.set()
        if last_sequence is not None:
            missed = [told for told in self._kept if told.sequence > last_sequence]
            self._unread.extend(
                dataclasses.replace(told, received_bytes=self._stream.received_bytes)
                for told in missed
            )
        return link

    def detach(self, link: Link | None) -> None:
        """The client of this connection is gone."""
        if self._link is link:
            self._link = None
            self._unread.clear()
            self._room.set()
            self._news.set()
            if self._feeder is not None:
                self._feeder.cancel()

    def opened(self, resume_within_s: float, last_sequence: int | None) -> Told:
        """The first event of a connection."""
        if last_sequence is None:
            self._sequence += 1
        event = Opened(
            heard_s=self._stream.heard_s,
            token=self.token,
            received_bytes=self._stream.received_bytes,
            resume_within_s=resume_within_s,
            resumed=last_sequence is not None,
        )
        # Events that are told again have their old numbers: this one must not be above them.
        number = self._sequence if last_sequence is None else min(last_sequence, self._sequence)
        return Told(number, self._stream.received_bytes, event)

    async def next(self, link: Link) -> Told:
        """The next event for this connection.

        Raises what went wrong with the stream or with the client's audio, and PlatformError
        ABORTED (STREAM_TAKEN_OVER) when another client goes on with it.
        """
        while True:
            if self._link is not link:
                raise _taken_over()
            if self._unread:
                self._room.set()
                return self._unread.popleft()
            if self._error is not None:
                raise self._error
            feeder = self._feeder
            if feeder is not None and feeder.done() and not feeder.cancelled() and not self._over:
                error = feeder.exception()
                if error is not None:
                    raise error
            self._news.clear()
            await self._news.wait()

    async def wait(self) -> None:
        """Until it is over."""
        await asyncio.wait({self._task})

    def wind_up(self) -> None:
        """Tells what is known so far, then ends with SERVER_DRAINING."""
        self._wound_up = True
        self._stream.wind_up()

    async def _run(self) -> None:
        try:
            await self._answer()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._error = error
        finally:
            self._over = True
            self._news.set()
            # What a client may still ask for needs neither audio nor a thread.
            await self._stream.close()

    async def _answer(self) -> None:
        while not self._answers.over:
            step = await self._stream.next_step()
            for event in await self._answers.of(step):
                await self._tell(event)
            if step.error is not None:
                await self._answers.end()
                raise step.error
        summary = await self._answers.end()
        if self._wound_up:
            raise draining()
        await self._tell(summary)

    async def _tell(self, event: StreamEvent) -> None:
        while self._link is not None and len(self._unread) >= MOST_UNREAD:
            self._room.clear()
            await self._room.wait()
        self._sequence += 1
        told = Told(self._sequence, self._stream.received_bytes, event)
        if isinstance(event, FinalMatch | Gap | Summary):
            self._kept.append(told)
        if self._link is not None:
            self._unread.append(told)
            self._news.set()

    async def _feed(self, audio: AsyncIterator[bytes]) -> None:
        try:
            async for data in audio:
                await self._stream.feed(data)
            self._stream.end()
        except EngineError:
            # Who takes the steps gets it from the decoder, after the audio before it.
            pass
        finally:
            self._news.set()

    async def _end_feeding(self) -> None:
        feeder, self._feeder = self._feeder, None
        if feeder is not None:
            feeder.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await feeder


def _taken_over() -> PlatformError:
    return PlatformError(
        ErrorKind.ABORTED,
        "STREAM_TAKEN_OVER",
        "Another client goes on with this stream.",
        "Nothing is to be done, if that was you; else keep the stream's token to yourself.",
    )
