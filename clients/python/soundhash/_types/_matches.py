"""Questions and their answers: clips, URLs, the formats of audio."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime


class PcmEncoding(enum.StrEnum):
    """The sample format of raw audio; integers and floats are little-endian."""

    S16LE = "s16le"
    S32LE = "s32le"
    F32LE = "f32le"
    U8 = "u8"

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of one sample of one channel."""
        return {"s16le": 2, "s32le": 4, "f32le": 4, "u8": 1}[self.value]


@dataclass(frozen=True, slots=True)
class PcmFormat:
    """Raw interleaved audio.

    encoding: the sample format. sample_rate_hz: 8000 to 192000. channels: 1 to 8.
    """

    encoding: PcmEncoding = PcmEncoding.S16LE
    sample_rate_hz: int = 44100
    channels: int = 2

    @property
    def bytes_per_s(self) -> int:
        """Bytes of one second of all channels."""
        return self.encoding.bytes_per_sample * self.sample_rate_hz * self.channels

    @classmethod
    def parse(cls, text: str) -> PcmFormat:
        """Reads "encoding:rate:channels", for example "s16le:44100:2".

        Raises ValueError when the text has another form or a value out of range.
        """
        parts = text.split(":")
        if len(parts) != 3:
            raise ValueError(f"{text!r} is not of the form s16le:44100:2")
        try:
            encoding = PcmEncoding(parts[0].lower())
        except ValueError:
            known = ", ".join(PcmEncoding)
            raise ValueError(f"{parts[0]!r} is not one of {known}") from None
        if not parts[1].isdecimal() or not 8000 <= int(parts[1]) <= 192_000:
            raise ValueError(f"{parts[1]!r} is not a sample rate from 8000 to 192000")
        if not parts[2].isdecimal() or not 1 <= int(parts[2]) <= 8:
            raise ValueError(f"{parts[2]!r} is not a number of channels from 1 to 8")
        return cls(encoding, int(parts[1]), int(parts[2]))


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """The evidence behind a match; each part is explained in the API's ScoreParts message."""

    score: float
    landmark_votes: float
    landmark_contrast: float
    rectified_correlation: float
    correlation: float
    distance: float
    overlap: float
    coverage: float


@dataclass(frozen=True, slots=True)
class OnAir:
    """Where and when something was on the air, as a monitor heard it.

    monitor_id, monitor_name: the monitor's. start_time, end_time: of the matching part.
    """

    monitor_id: str
    monitor_name: str
    start_time: datetime
    end_time: datetime


@dataclass(frozen=True, slots=True)
class Match:
    """A part of a clip is a part of a video.

    id, query_id: UUIDs of the match and of the question it answers (both empty for what is
    not stored). clip_start_s, clip_end_s: the part of the clip. video_start_s, video_end_s:
    where it lies in the video. speed: 1.05 plays 5 % faster than the video. pitch: frequency
    ratio against the video. confidence: calibrated probability that it is right. also_at_s:
    other places in the video that sound the same. source_url: deep-linked to video_start_s
    where the site allows it. on_air: set when the video is what a monitor has heard; the passage
    may go on beyond that video's end then.
    """

    id: str
    query_id: str
    video_id: str
    title: str
    source_url: str
    external_id: str
    clip_start_s: float
    clip_end_s: float
    video_start_s: float
    video_end_s: float
    speed: float
    pitch: float
    confidence: float
    parts: ScoreParts
    also_at_s: tuple[float, ...]
    create_time: datetime | None
    on_air: OnAir | None = None


@dataclass(frozen=True, slots=True)
class MissingPart:
    """A part of the index that did not answer: what it holds was not found.

    part: its name, for people. share: of the index's evidence, 0 to 1. reason: UNREACHABLE,
    TIMED_OUT, NOT_LOADED, STARTING or another one.
    """

    part: str
    share: float
    reason: str


@dataclass(frozen=True, slots=True)
class MatchResult:
    """The answer to a clip: the matches, most confident first; none is a normal answer.

    clip_duration_s: length of the decoded clip. elapsed_s: time that the server spent. missing:
    parts of the index that did not answer; only without any does "no match" mean "not indexed".
    title: what its source calls the clip, where it was fetched from a URL.
    """

    query_id: str
    matches: tuple[Match, ...]
    clip_duration_s: float
    elapsed_s: float
    missing: tuple[MissingPart, ...] = ()
    title: str = ""


@dataclass(frozen=True, slots=True)
class UrlProgress:
    """How far a clip has come that the server fetches: bytes, and seconds of audio at hand."""

    bytes_done: int
    audio_done_s: float


@dataclass(frozen=True, slots=True)
class UrlMatch:
    """A match of a fetched clip; the most confident comes first."""

    match: Match


@dataclass(frozen=True, slots=True)
class UrlEnd:
    """The end of the answer to a fetched clip; nothing follows.

    title: what the source calls the clip, may be empty. clip_duration_s: audio that was searched.
    elapsed_s: time that the server spent, with fetching.
    """

    query_id: str
    match_count: int
    title: str
    clip_duration_s: float
    elapsed_s: float
    missing: tuple[MissingPart, ...] = ()


UrlEvent = UrlProgress | UrlMatch | UrlEnd
"""What `stream_url` yields."""
