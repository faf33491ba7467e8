"""What a stream is told: plain values between the service and whoever shows them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from soundhash_engine import PcmFormat
from soundhash_engine.matcher import MatchOptions
from soundhash_engine.postings import Missing
from soundhash_server.model import MatchRecord


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """How to read and what to answer.

    pcm               format of raw samples; None for media in a container
    options           see `MatchOptions`
    stop_after_first  the stream ends at the first match that is safe to publish
    window_s          how much of the latest audio is looked at together, 3 to 12; None: 10
    """

    pcm: PcmFormat | None
    options: MatchOptions
    stop_after_first: bool = False
    window_s: float | None = None


class StreamWarning(enum.Enum):
    """Something about the audio that makes finding harder; the names are those of the API."""

    SILENCE = "SILENCE"
    CLIPPING = "CLIPPING"
    LATE = "LATE"


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream has begun or goes on; only of streams that can be resumed.

    token: names the stream, a secret. received_bytes: what the server has of the audio.
    """

    heard_s: float
    token: str
    received_bytes: int
    resume_within_s: float
    resumed: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """Half a second of audio has been searched, whatever was found.

    level_db: its power, peak_db: its highest sample; both dB of full scale, -120 to 0.
    """

    heard_s: float
    level_db: float
    peak_db: float
    warnings: tuple[StreamWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class ProvisionalMatch:
    """What it seems to be; not stored. stability: 0 to 1."""

    heard_s: float
    match: MatchRecord
    stability: float


@dataclass(frozen=True, slots=True)
class FinalMatch:
    """A match that will not change; stored if the stream is recorded (else it has no id)."""

    heard_s: float
    match: MatchRecord


@dataclass(frozen=True, slots=True)
class Gap:
    """A part of the stream in which nothing known was heard, nor will be; s from its start."""

    heard_s: float
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of the stream.

    query_id: None when the stream is not recorded. missing: what of the index did not answer at
    some time.
    """

    heard_s: float
    query_id: UUID | None
    match_count: int
    missing: tuple[Missing, ...]


StreamEvent: TypeAlias = Heard | ProvisionalMatch | FinalMatch | Gap | Summary


@dataclass(frozen=True, slots=True)
class Told:
    """An event with its number in the stream, from 1, and the bytes taken when it was made."""

    sequence: int
    received_bytes: int
    event: Opened | StreamEvent
