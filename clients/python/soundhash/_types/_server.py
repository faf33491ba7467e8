"""The server itself: its index, totals and health."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from soundhash._types._jobs import JobState


@dataclass(frozen=True, slots=True)
class PostingShard:
    """A database server that holds a part of the index's postings.

    name: "2/3" is the second of three. address: host and database. reason: why it is not asked,
    empty while it is. volume_count: how many of the server's volumes it has a part of.
    posting_count: postings in these parts.
    """

    name: str
    address: str
    reason: str
    volume_count: int
    posting_count: int


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The state of one server's match index.

    tail_video_count: matched, but not yet in a volume on disk. dead_video_count: deleted or
    replaced, still in volumes but hidden. applied_revision of catalogue_revision changes are
    taken in. posting_shards: servers that hold postings of large volumes, if there are any.
    outdated_video_count: matched, in volumes of earlier search parameters that are being made anew.
    unusable_video_count: not matched before they are ingested again, as their fingerprints were
    made with other parameters or are damaged.
    """

    video_count: int
    audio_duration_s: float
    volume_count: int
    tail_video_count: int
    dead_video_count: int
    triple_count: int
    disk_bytes: int
    tail_bytes: int
    applied_revision: int
    catalogue_revision: int
    compacting: bool
    params_digest: str
    posting_shards: tuple[PostingShard, ...] = ()
    outdated_video_count: int = 0
    unusable_video_count: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """What is stored and what is going on. jobs: their number by state."""

    server_version: str
    params_digest: str
    video_count: int
    audio_duration_s: float
    segment_count: int
    landmark_count: int
    match_count: int
    jobs: Mapping[JobState, int]
    start_time: datetime | None
    index: IndexStatus


class Health(enum.StrEnum):
    """Whether a server, or one of its services, answers."""

    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    UNKNOWN = "UNKNOWN"
