"""What is indexed: videos, fingerprints, and what two of them share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from soundhash._types._matches import ScoreParts


@dataclass(frozen=True, slots=True)
class Video:
    """One indexed recording.

    id: its UUID. title, source_url, external_id, channel: what is known of it. duration_s:
    length of its audio. content_sha256: of the media bytes it was made from. segment_count,
    landmark_count: size of its fingerprint. params_digest: the parameters it was made with.
    create_time, update_time: when it was added and last changed. service, media_id: where it was
    fetched from and its id there (yt-dlp's names, the service in lower case). description,
    publish_time, thumbnail_url: as the source gives them. monitor_id, air_time: which monitor
    heard it, and when its first second was on the air (empty and None for all other videos).
    """

    id: str
    title: str
    source_url: str
    external_id: str
    channel: str
    duration_s: float
    content_sha256: str
    segment_count: int
    landmark_count: int
    params_digest: str
    create_time: datetime | None
    update_time: datetime | None
    service: str = ""
    media_id: str = ""
    description: str = ""
    publish_time: datetime | None = None
    thumbnail_url: str = ""
    monitor_id: str = ""
    air_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """The fingerprint of 90 s of audio (the last one shorter).

    landmarks, descriptor, vector: opaque bytes as the API describes them. md5: of the first
    two, uncompressed.
    """

    index: int
    start_s: float
    duration_s: float
    landmark_count: int
    landmarks: bytes
    descriptor: bytes
    vector: bytes
    md5: str


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What identifies a recording.

    video_id: empty for audio that is not stored. segments: empty unless asked for in full.
    """

    video_id: str
    params_digest: str
    duration_s: float
    landmark_count: int
    segment_count: int
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True)
class SharedPassage:
    """A stretch of audio that two recordings have in common.

    first_start_s, first_end_s: where it lies in the first. second_start_s, second_end_s: in the
    second. speed, pitch: of the second against the first. also_at_s: other places in the first
    that sound the same, as second_start_s would lie there.
    """

    first_start_s: float
    first_end_s: float
    second_start_s: float
    second_end_s: float
    speed: float
    pitch: float
    confidence: float
    parts: ScoreParts
    also_at_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether two recordings share audio, and where.

    offset_s: where the start of the second lies in the first; negative when it begins
    earlier; meaningful only with same_audio. speed, pitch: of the second against the first.
    correlation (-1 to 1), distance (0 to 2): at that place. vector_similarity: -1 to 1.
    passages: what they share, most certain first.
    """

    same_audio: bool
    confidence: float
    offset_s: float
    speed: float
    pitch: float
    correlation: float
    distance: float
    vector_similarity: float
    passages: tuple[SharedPassage, ...]
