"""Which videos are alike."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from soundhash._types._catalogue import Video


class DuplicateKind(enum.StrEnum):
    """How two videos are alike. FULL: the same from begin to end. CONTAINS: all of the second is
    in the first. PARTIAL: they share passages. UNKNOWN: something that this client does not
    know yet."""

    UNKNOWN = "UNKNOWN"
    FULL = "FULL"
    CONTAINS = "CONTAINS"
    PARTIAL = "PARTIAL"


@dataclass(frozen=True, slots=True)
class SharedRange:
    """A passage that is in two videos, in the seconds of each.

    speed, pitch: how the first plays against the second; 1.05 is 5 % faster, or higher.
    confidence: 0 to 1, that it is the same sound.
    """

    first_start_s: float
    first_end_s: float
    second_start_s: float
    second_end_s: float
    speed: float
    pitch: float
    confidence: float


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two videos that are alike. first: the longer one; of equal ones the older.

    ranges: what they share, in the order of the first. first_share, second_share: part of each
    that the ranges cover, 0 to 1.
    """

    kind: DuplicateKind
    first: Video
    second: Video
    ranges: tuple[SharedRange, ...]
    first_share: float
    second_share: float


@dataclass(frozen=True, slots=True)
class DuplicatesParameters:
    """What a comparison of videos was asked to do. video_ids: only pairs with one of these;
    empty for all. min_shared_s: shortest passage that is told."""

    video_ids: tuple[str, ...]
    min_shared_s: float


@dataclass(frozen=True, slots=True)
class DuplicatesResult:
    """What a comparison of videos has found. videos, duration_s: what was compared. full,
    contains, partial: pairs."""

    videos: int
    duration_s: float
    full: int
    contains: int
    partial: int
