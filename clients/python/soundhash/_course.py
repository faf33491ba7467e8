"""Where a stream of live audio stands: all that both clients need to go on with it after a break.

Plain state without threads or waiting; whoever uses it from several threads holds a lock.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable

from soundhash import _convert as convert
from soundhash import _types as t
from soundhash._errors import (
    Cancelled,
    FailedPrecondition,
    Internal,
    NotFound,
    SoundHashError,
)
from soundhash._retry import may_pass
from soundhash.v1 import match_pb2

READ_AHEAD_BYTES = 64 << 10
"""So much audio is taken from its source beyond what the server has been sent."""
MOST_KEPT_BYTES = 16 << 20
"""So much is kept to be sent again; and so much gathers while the connection is broken."""
MESSAGE_BYTES = 256 << 10
"""Most audio in one message; the API allows 1 MiB."""
REPLAYED_S = 30.0
"""A stream that begins anew looks at so much of raw audio again: what was playing when the
server forgot it is found whole if it had begun within that time."""

_IDLE = "STREAM_IDLE"
_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 2.0


class Tape:
    """The latest part of a long run of bytes. Positions count from the begin of the run."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self.start = 0
        """Position of the first byte that is kept."""

    @property
    def end(self) -> int:
        """Position after the last byte."""
        return self.start + len(self._kept)

    def add(self, chunk: bytes | memoryview) -> None:
        """Appends bytes."""
        self._kept += chunk

    def read(self, position: int, most: int) -> bytes:
        """Bytes from a position that is kept on, at most so many; none at the end."""
        at = position - self.start
        return bytes(self._kept[at : at + most])

    def forget(self, before: int) -> None:
        """Drops what lies before a position."""
        drop = min(max(0, before - self.start), len(self._kept))
        del self._kept[:drop]
        self.start += drop


class Course:
    """One stream from its begin to its end, over any number of connections.

    config: its first message. pcm: the format of raw audio, None for a container. resume: whether
    to go on after a break. timeout_s: for all of it; None: no limit.
    """

    def __init__(
        self,
        config: match_pb2.MatchStreamConfig,
        pcm: t.PcmFormat | None,
        *,
        resume: bool,
        timeout_s: float | None,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._config = config
        self._pcm = pcm
        self._resume = resume
        self._clock = clock
        self._uniform = uniform
        self._deadline_s = None if timeout_s is None else clock() + timeout_s
        # Audio. Positions are bytes from the begin of all of it.
        self._tape = Tape()
        self._ended = False
        self._sent: int | None = None
        self._acknowledged = 0
        # The server's stream. A new one, with an origin, follows one that it has forgotten.
        self._opened: t.StreamOpened | None = None
        self._origin = 0
        self._sequence = 0
        # What was told.
        self._heard_s = 0.0
        self._final_s = 0.0
        self._finals = 0
        self._missing: dict[str, t.MissingPart] = {}
        # A break that is not overcome.
        self._idle_at: int | None = None
        self._give_up_s: float | None = None
        self._failures = 0

    @property
    def remaining_s(self) -> float | None:
        """Time left for the call that begins now; None: no limit."""
        return None if self._deadline_s is None else max(0.0, self._deadline_s - self._clock())

    # ---- audio ----

    def add(self, chunk: bytes | memoryview) -> None:
        """More audio is there."""
        self._tape.add(chunk)

    def end(self) -> None:
        """No more audio will come."""
        self._ended = True

    @property
    def has_room(self) -> bool:
        """Whether more audio may be taken from its source."""
        if self._sent is None:
            return self._tape.end - self._acknowledged < MOST_KEPT_BYTES
        return self._tape.end - self._sent < READ_AHEAD_BYTES

    @property
    def is_idle(self) -> bool:
        """Whether the next call has to wait for more audio."""
        return self._tape.end == self._idle_at and not self._ended

    def next_audio(self) -> bytes | None:
        """The next bytes to send: empty while there are none, None when all have been sent."""
        if self._sent is None:
            return b""
        audio = self._tape.read(self._sent, MESSAGE_BYTES)
        self._sent += len(audio)
        # What the server leaves for too long cannot be sent again; the stream itself goes on.
        self._tape.forget(self._sent - (MOST_KEPT_BYTES if self._resume else 0))
        return None if not audio and self._ended else audio

    # ---- calls ----

    def first_message(self) -> match_pb2.MatchStreamRequest:
        """The message that the next call begins with."""
        self._idle_at = None
        opened = self._opened
        if opened is None:
            self._sent = self._origin
            return match_pb2.MatchStreamRequest(config=self._config)
        # Where to go on is what the server says first.
        self._sent = None
        resume = match_pb2.StreamResume(token=opened.resume_token, last_sequence=self._sequence)
        return match_pb2.MatchStreamRequest(config=match_pb2.MatchStreamConfig(resume=resume))

    def take(self, message: match_pb2.MatchStreamResponse) -> t.StreamEvent | None:
        """What an answer says; None for what is known already or of an unknown kind.

        Raises SoundHashError when the server wants audio that is not kept any more.
        """
        event = convert.stream_event(message)
        if isinstance(event, t.StreamOpened):
            self._open(event)
        elif 0 < message.sequence <= self._sequence:
            return None
        else:
            self._sequence = message.sequence
            # A call that only opens and breaks again has not overcome anything.
            self._give_up_s, self._failures = None, 0
        self._acknowledge(self._origin + message.received_bytes)
        if event is None:
            return None
        event = self._placed(event)
        self._heard_s = max(self._heard_s, event.heard_s)
        return event

    def broken(self, error: SoundHashError) -> t.StreamInterrupted:
        """A call has failed: says when to call again, or raises what to give up with."""
        now_s = self._clock()
        opened = self._opened
        if self._give_up_s is None:
            if not self._resume or opened is None or not opened.resume_token:
                raise error
            self._give_up_s = now_s + opened.resume_within_s
        self._sent = None
        if error.reason == _IDLE:
            self._give_up_s, self._idle_at = None, self._tape.end
            return t.StreamInterrupted(self._heard_s, error, None)
        delay_s = error.retry_after_s or 0.0
        if isinstance(error, NotFound) and error.reason == "STREAM_NOT_FOUND":
            self._begin_anew(error)
        elif not _may_pass(error):
            raise error
        else:
            longest_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0**self._failures)
            delay_s += self._uniform(longest_s / 2, longest_s)
        self._failures += 1
        deadline_s = self._give_up_s
        if self._deadline_s is not None:
            deadline_s = min(deadline_s, self._deadline_s)
        if now_s + delay_s >= deadline_s:
            raise error
        return t.StreamInterrupted(self._heard_s, error, delay_s)

    def _open(self, opened: t.StreamOpened) -> None:
        self._opened = opened
        if self._sent is not None:
            return
        position = self._origin + opened.received_bytes
        if not self._tape.start <= position <= self._tape.end:
            raise FailedPrecondition(
                "The stream cannot go on: the audio that the server misses is not kept.",
                reason="STREAM_AUDIO_GONE",
                remedy="Begin a new stream.",
                metadata={"position": str(position), "kept_from": str(self._tape.start)},
            )
        self._sent = position

    def _begin_anew(self, error: SoundHashError) -> None:
        """The server has forgotten the stream: another takes its place, the time goes on."""
        if self._pcm is None:
            raise NotFound(
                "The server has forgotten the stream: it was restarted, or the connection was "
                "broken for too long.",
                reason=error.reason,
                remedy="Begin a new one. Only raw audio can be picked up in its middle.",
            ) from None
        frame_bytes = self._pcm.encoding.bytes_per_sample * self._pcm.channels
        # What a match was told for is not looked at again.
        begin = max(
            self._tape.start,
            self._acknowledged - self._replayed_bytes,
            round(self._final_s * self._pcm.bytes_per_s),
        )
        self._origin = -(-begin // frame_bytes) * frame_bytes
        self._opened = None
        self._sequence = 0

    def _acknowledge(self, position: int) -> None:
        self._acknowledged = max(self._acknowledged, min(position, self._tape.end))
        self._tape.forget(self._acknowledged - self._replayed_bytes)

    @property
    def _replayed_bytes(self) -> int:
        if self._pcm is None or not self._resume:
            return 0
        return min(round(REPLAYED_S * self._pcm.bytes_per_s), MOST_KEPT_BYTES // 2)

    def _placed(self, event: t.StreamEvent) -> t.StreamEvent:
        """The event in the time of the whole stream."""
        by_s = self._origin / self._pcm.bytes_per_s if self._pcm is not None else 0.0
        if isinstance(event, t.FinalMatch):
            event = t.FinalMatch(event.heard_s + by_s, _moved(event.match, by_s))
            self._finals += 1
            self._final_s = max(self._final_s, event.match.clip_end_s)
            return event
        if isinstance(event, t.StreamSummary):
            self._missing.update((part.part, part) for part in event.missing)
            return t.StreamSummary(
                event.heard_s + by_s,
                event.query_id,
                max(event.match_count, self._finals),
                tuple(self._missing.values()),
            )
        if not by_s:
            return event
        if isinstance(event, t.ProvisionalMatch):
            event = dataclasses.replace(event, match=_moved(event.match, by_s))
        elif isinstance(event, t.Gap):
            event = dataclasses.replace(
                event, start_s=event.start_s + by_s, end_s=event.end_s + by_s
            )
        return dataclasses.replace(event, heard_s=event.heard_s + by_s)


def _moved(match: t.Match, by_s: float) -> t.Match:
    if not by_s:
        return match
    return dataclasses.replace(
        match, clip_start_s=match.clip_start_s + by_s, clip_end_s=match.clip_end_s + by_s
    )


def _may_pass(error: SoundHashError) -> bool:
    """Whether the connection is what failed, or the server asks to come back."""
    # What has no reason comes from gRPC or from a proxy on the way, not from a SoundHash server.
    plain = error.reason == error.code.name
    return may_pass(error) or (plain and isinstance(error, (Cancelled, Internal)))
