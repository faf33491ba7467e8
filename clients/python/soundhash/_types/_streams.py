"""What a stream of live audio is told."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from soundhash._types._matches import Match, MissingPart

if TYPE_CHECKING:
    from soundhash._errors import SoundHashError


class StreamWarning(enum.StrEnum):
    """Something about the audio that makes finding harder.

    SILENCE: silence, or next to it, for 3 s or more. CLIPPING: the source is overdriven. LATE:
    the server is busy, searching falls behind the audio. UNKNOWN: what a newer server has
    invented.
    """

    SILENCE = "SILENCE"
    CLIPPING = "CLIPPING"
    LATE = "LATE"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The server has taken the stream: at its begin, and whenever the client is back.

    heard_s: where in the stream it goes on. resume_token: names the stream, a secret.
    received_bytes: audio that the server has. resume_within_s: how long it waits for a client
    whose connection broke. resumed: it goes on after a break. Without that, the server had
    forgotten the stream, and a new one goes on in its place from here.
    """

    heard_s: float
    resume_token: str = field(repr=False)
    received_bytes: int
    resume_within_s: float
    resumed: bool


@dataclass(frozen=True, slots=True)
class StreamInterrupted:
    """The connection broke; the client is about to go on with the stream.

    error: why. retry_in_s: when it tries next; None: when there is more audio, for the server has
    ended a stream that sent nothing for long (STREAM_IDLE). The next event says that the stream
    is open again; when the client gives up, the last error is raised.
    """

    heard_s: float
    error: SoundHashError
    retry_in_s: float | None


@dataclass(frozen=True, slots=True)
class Heard:
    """Half a second of audio was searched, whatever was found.

    heard_s: audio heard so far. level_db: level of the last half second, peak_db: its highest
    sample; both dB of full scale, 0 and below. warnings: what is wrong with the audio now.
    """

    heard_s: float
    level_db: float
    peak_db: float = 0.0
    warnings: tuple[StreamWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class ProvisionalMatch:
    """What the stream seems to be now. stability: how likely it is to stay, 0 to 1."""

    heard_s: float
    match: Match
    stability: float


@dataclass(frozen=True, slots=True)
class FinalMatch:
    """A match that will not change."""

    heard_s: float
    match: Match


@dataclass(frozen=True, slots=True)
class Gap:
    """A part of the stream that holds nothing known, from start_s to end_s.

    It comes when later audio cannot change that any more; one gap may come in parts that touch.
    """

    heard_s: float
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """The end of a stream; nothing follows.

    match_count: how many final matches there were. missing: parts of the index that did not
    answer at some time of the stream.
    """

    heard_s: float
    query_id: str
    match_count: int
    missing: tuple[MissingPart, ...] = ()


StreamEvent = (
    StreamOpened | StreamInterrupted | Heard | ProvisionalMatch | FinalMatch | Gap | StreamSummary
)
"""What `stream` yields."""
