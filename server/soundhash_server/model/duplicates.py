"""Videos that are alike."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from uuid import UUID

from soundhash_server.model.catalogue import Page, Video


class DuplicateKind(enum.Enum):
    """How two videos are alike; see soundhash.v1.DuplicateKind."""

    FULL = "FULL"
    CONTAINS = "CONTAINS"
    PARTIAL = "PARTIAL"


@dataclass(frozen=True, slots=True)
class SharedRange:
    """A passage that is in two videos; see soundhash.v1.SharedRange."""

    first_start_s: float
    first_end_s: float
    second_start_s: float
    second_end_s: float
    speed: float
    pitch: float
    confidence: float


@dataclass(frozen=True, slots=True)
class FoundPair:
    """Two recordings that are alike, by their keys in the match index; the longer one first."""

    kind: DuplicateKind
    first_recording: int
    second_recording: int
    ranges: tuple[SharedRange, ...]
    shared_s: float
    first_share: float
    second_share: float


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two videos that are alike; see soundhash.v1.DuplicatePair."""

    kind: DuplicateKind
    first: Video
    second: Video
    ranges: tuple[SharedRange, ...]
    first_share: float
    second_share: float


@dataclass(frozen=True, slots=True)
class DuplicatesPage:
    """A page of what a DUPLICATES job has found. complete: no more will come."""

    job_id: UUID
    complete: bool
    pairs: Page[DuplicatePair]
