"""Where does the audio come from that is arriving right now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.services.cpu import CpuPool
from soundhash_server.services.live.answers import Answers, Desk
from soundhash_server.services.live.events import Opened, StreamConfig, StreamEvent, Summary, Told
from soundhash_server.services.live.load import too_many
from soundhash_server.services.live.session import Link, Session
from soundhash_server.services.live.stream import Stream
from soundhash_server.services.live.turns import Turns
from soundhash_server.services.matching import Keeping, Searchable
from soundhash_server.store.matches import Matches
from soundhash_server.store.videos import Videos
from soundhash_server.tasks import end

MOST_OVER = 256
"""So many streams that are over are remembered for clients that have missed the end."""

_NOT_THE_END = frozenset({"STREAM_IDLE", "STREAM_TAKEN_OVER"})


class LiveMatching:
    """Matches streams while they arrive and keeps what they were found to be.

    cpu          where the streams' steps run; what else runs there makes them late
    max_streams  hard bound of streams at once
    refuse_late  fewer are taken when one more would make events late
    resume_s     a stream whose client is gone waits this long for it; 0: not at all
    """

    def __init__(
        self,
        cpu: CpuPool,
        index: Searchable,
        videos: Videos,
        matches: Matches,
        keeper: Keeping,
        *,
        max_streams: int,
        refuse_late: bool = True,
        resume_s: float = 0.0,
    ) -> None:
        self._index = index
        self._desk = Desk(videos, matches, keeper)
        self._max_streams = max_streams
        self._refuse_late = refuse_late
        self._resume_s = resume_s
        self._turns = Turns(cpu)
        self._running: set[Session] = set()
        # Sessions that may be resumed, by token; those whose clients left first come first.
        self._waiting: dict[str, asyncio.TimerHandle] = {}
        self._by_token: dict[str, Session] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def streams(self) -> int:
        """Streams that clients are connected to now."""
        return sum(session.attached for session in self._running)

    async def run(
        self, config: StreamConfig, audio: AsyncIterator[bytes], *, record: bool = True
    ) -> AsyncGenerator[StreamEvent, None]:
        """Events for the bytes that ``audio`` gives; ends with a Summary.

        record: whether matches are stored as answers to a question. Without, they have no ids,
        and nothing is kept to explain them.
        Nothing is read ahead of a slow reader beyond a fixed bound. Raises EngineError for audio
        that cannot be read, PlatformError RESOURCE_EXHAUSTED (SERVER_BUSY), and what ``audio``
        raises. Close the iterator (aclosing) to free its thread.
        """
        session = self._begin(config, record=record)
        try:
            link = await session.attach(audio, None)
            async for told in _events(session, link):
                if not isinstance(told.event, Opened):
                    yield told.event
        finally:
            self._forget(session)
            await session.close()

    async def open(
        self, config: StreamConfig, audio: AsyncIterator[bytes]
    ) -> AsyncGenerator[Told, None]:
        """Like `run`, recorded, numbered and resumable; begins with Opened.

        When the iterator is closed before its end, or ``audio`` raises STREAM_IDLE, the stream
        waits for its client to `resume`.
        """
        session = self._begin(config, record=True)
        async with aclosing(self._connect(session, audio, None)) as events:
            async for told in events:
                yield told

    async def resume(
        self, token: str, last_sequence: int, audio: AsyncIterator[bytes]
    ) -> AsyncGenerator[Told, None]:
        """Goes on with a stream, also with one whose client seems to be there still.

        Begins with Opened, which says from which byte on ``audio`` is wanted, and repeats what the
        client has missed of matches and gaps. Raises PlatformError NOT_FOUND (STREAM_NOT_FOUND),
        ABORTED (STREAM_TAKEN_OVER) when yet another client goes on, and what `run` raises.
        """
        session = self._by_token.get(token)
        if session is None:
            raise _unknown()
        if (timer := self._waiting.pop(token, None)) is not None:
            timer.cancel()
        async with aclosing(self._connect(session, audio, last_sequence)) as events:
            async for told in events:
                yield told

    async def drain(self, patience_s: float) -> None:
        """Lets streams end by themselves for ``patience_s``, then tells what is known of them."""
        for session in [s for s in self._running if not s.attached]:
            self._forget(session)
            await session.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await asyncio.gather(*(session.wait() for session in self._running))
        for session in self._running:
            session.wind_up()

    async def close(self) -> None:
        """Ends every stream at once."""
        sessions = {*self._running, *self._by_token.values()}
        for session in sessions:
            self._forget(session)
        await asyncio.gather(*(session.close() for session in sessions))
        await end(*self._closing)

    def _begin(self, config: StreamConfig, *, record: bool) -> Session:
        self._admit()
        stream = Stream(config, self._turns, self._index)
        session = Session(stream, Answers(stream, config, self._desk, record=record))
        session.start()
        self._running.add(session)
        return session

    def _admit(self) -> None:
        """Raises SERVER_BUSY; a stream that only waits for its client makes room."""
        running = {session for session in self._running if not session.over}
        if len(running) >= self._max_streams:
            gone = next((s for t in self._waiting if (s := self._by_token[t]) in running), None)
            if gone is None:
                raise too_many(len(running))
            self._discard(gone)
        if self._refuse_late:
            self._turns.load.admit(self.streams)

    async def _connect(
        self, session: Session, audio: AsyncIterator[bytes], last_sequence: int | None
    ) -> AsyncGenerator[Told, None]:
        self._by_token[session.token] = session
        keep = self._resume_s > 0
        link: Link | None = None
        try:
            link = await session.attach(audio, last_sequence)
            yield session.opened(self._resume_s, last_sequence)
            async for told in _events(session, link):
                yield told
        except PlatformError as error:
            # Nothing from the client may be a connection that has died without a word. What went
            # wrong with the stream itself is told again; what is wrong with the client is not.
            keep = keep and (session.over or error.reason in _NOT_THE_END)
            raise
        finally:
            if link is not None:
                session.detach(link)
            if not session.attached and keep:
                self._let_wait(session)
            elif not session.attached:
                self._discard(session)

    def _let_wait(self, session: Session) -> None:
        if session.over:
            self._running.discard(session)
        token = session.token
        if token not in self._by_token:
            return
        loop = asyncio.get_running_loop()
        self._waiting[token] = loop.call_later(self._resume_s, self._discard, session)
        over = [t for t in self._waiting if self._by_token[t].over]
        if len(over) > MOST_OVER:
            self._discard(self._by_token[over[0]])

    def _discard(self, session: Session) -> None:
        self._forget(session)
        task = asyncio.create_task(session.close(), name="stream-end")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _forget(self, session: Session) -> None:
        self._running.discard(session)
        self._by_token.pop(session.token, None)
        if (timer := self._waiting.pop(session.token, None)) is not None:
            timer.cancel()


async def _events(session: Session, link: Link) -> AsyncIterator[Told]:
    """All events for a connection, to the summary."""
    while True:
        told = await session.next(link)
        yield told
        if isinstance(told.event, Summary):
            return


def _unknown() -> PlatformError:
    return PlatformError(
        ErrorKind.NOT_FOUND,
        "STREAM_NOT_FOUND",
        "There is no such stream to go on with.",
        "Begin a new stream: the server has waited too long, was restarted, or is another one.",
    )
