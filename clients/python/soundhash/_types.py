"""What the client answers with: frozen values, seconds as floats, times with a time zone.

Text fields are empty, not None, when there is nothing to say; fields that may be unset for
another reason are None.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


class JobKind(enum.StrEnum):
    """What a job does. UNKNOWN: something that this client does not know yet."""

    UNKNOWN = "UNKNOWN"
    INGEST = "INGEST"
    CHANNEL = "CHANNEL"
    FOLDER = "FOLDER"


class JobState(enum.StrEnum):
    """Where a job stands. UNKNOWN: a state that this client does not know yet."""

    UNKNOWN = "UNKNOWN"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    WAITING = "WAITING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def finished(self) -> bool:
        """Whether nothing happens any more unless the job is retried."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobStep(enum.StrEnum):
    """What a running job is doing. UNKNOWN: not started, or not known to this client."""

    UNKNOWN = "UNKNOWN"
    FETCH = "FETCH"
    FINGERPRINT = "FINGERPRINT"
    STORE = "STORE"
    DONE = "DONE"
    LIST = "LIST"
    KEEP = "KEEP"


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
class Video:
    """One indexed recording.

    id: its UUID. title, source_url, external_id, channel: what is known of it. duration_s:
    length of its audio. content_sha256: of the media bytes it was made from. segment_count,
    landmark_count: size of its fingerprint. params_digest: the parameters it was made with.
    create_time, update_time: when it was added and last changed. service, media_id: where it was
    fetched from and its id there (yt-dlp's names, the service in lower case). description,
    publish_time, thumbnail_url: as the source gives them.
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


@dataclass(frozen=True, slots=True)
class BatchItem:
    """A video of a batch that a worker has: its job, what is done with it, and the part of that
    step that is done (0 to 1)."""

    job_id: str
    title: str
    step: JobStep
    fraction: float


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How the videos of a channel's or folder's job stand.

    listed: found so far. known: of them, already indexed. skipped: left out. queued, running,
    retrying: under way. indexed, failed: done by this job. videos_per_minute: over the last
    minutes. eta_s: until the rest is done at that rate (None: unknown). running_items: at most
    20. quota_units: of the YouTube Data API. listing_done: whether everything is listed.
    Of a folder: updated (files with other bytes than before), deleted (videos whose file is
    gone), duplicates, and unreadable files.
    """

    listed: int = 0
    known: int = 0
    skipped: int = 0
    queued: int = 0
    running: int = 0
    retrying: int = 0
    indexed: int = 0
    failed: int = 0
    videos_per_minute: float = 0.0
    eta_s: float | None = None
    running_items: tuple[BatchItem, ...] = ()
    quota_units: int = 0
    listing_done: bool = False
    updated: int = 0
    deleted: int = 0
    duplicates: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a running job has come.

    fraction: part of the present step that is done, 0 to 1; 0 when the total is unknown.
    audio_done_s, audio_total_s: audio fingerprinted and its stated length (None: unknown).
    bytes_done, bytes_total: bytes fetched and to fetch (0: unknown).
    """

    step: JobStep = JobStep.UNKNOWN
    fraction: float = 0.0
    audio_done_s: float = 0.0
    audio_total_s: float | None = None
    bytes_done: int = 0
    bytes_total: int = 0
    batch: BatchProgress | None = None
    """Of a channel's or folder's job: how its videos stand."""


@dataclass(frozen=True, slots=True)
class JobFailure:
    """Why a job's last attempt failed: a stable reason, a sentence, and what to do.

    transient: whether trying again later can help by itself.
    """

    reason: str
    message: str
    remedy: str
    transient: bool


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """How much of a file has arrived.

    received_bytes: from the file's start. expire_time: when they are thrown away; None when
    there are none, or all.
    """

    received_bytes: int
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to fetch a source; what is empty, 0 or None comes from the server's settings.

    cookies: name of a cookies file of the workers. cookies_from_browser: "name" or
    "name:profile". proxy: http, https or socks5 URL; never shown again. player_client: YouTube's
    client that yt-dlp pretends to be. max_bytes, max_duration_s: what is larger or longer is
    refused. max_bytes_per_s: bound of the speed.
    """

    cookies: str = ""
    cookies_from_browser: str = ""
    proxy: str = field(default="", repr=False)
    player_client: str = ""
    user_agent: str = ""
    max_bytes: int = 0
    max_duration_s: float | None = None
    max_bytes_per_s: int = 0


@dataclass(frozen=True, slots=True)
class IngestParameters:
    """What an ingest job was asked to do. url is empty for an upload, file_name for a URL.

    search: words, instead of a URL. path: of a scanned folder's file.
    """

    url: str
    file_name: str
    title: str
    external_id: str
    channel: str
    source_url: str
    content_sha256: str
    size_bytes: int
    search: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What an ingest job made. already_indexed: the recording was there before."""

    video_id: str
    already_indexed: bool


@dataclass(frozen=True, slots=True)
class ChannelParameters:
    """What a channel's job was asked to do.

    channel: as it was named. max_videos: most new ones (0: all). since: published at or after.
    dry_run: only lists. only_process: does not list.
    """

    channel_id: str
    channel: str
    max_videos: int
    since: datetime | None
    dry_run: bool
    only_process: bool


@dataclass(frozen=True, slots=True)
class FolderParameters:
    """What a folder's job was asked to do. watch: goes on until it is cancelled."""

    path: str
    channel: str
    dry_run: bool
    watch: bool


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a channel's or folder's job came to.

    counts: at the end; in a dry run `queued` is what would be ingested. new_items: the first
    titles or paths that are new. unreadable_items: the first unreadable files, with the reason.
    """

    counts: BatchProgress
    quota_units: int
    new_items: tuple[str, ...]
    unreadable_items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work that workers carry out.

    failure: why the last attempt failed, None while nothing has failed. attempt of
    max_attempts have begun. next_attempt_time: set in RETRYING only. parameters, channel,
    folder: what it was asked to do, by kind. result, batch_result: what it made, by kind, set
    in SUCCEEDED only. parent_id: of the job that started it. source_host: it fetches from it.
    """

    id: str
    kind: JobKind
    state: JobState
    progress: JobProgress
    failure: JobFailure | None
    attempt: int
    max_attempts: int
    next_attempt_time: datetime | None
    create_time: datetime | None
    update_time: datetime | None
    start_time: datetime | None
    finish_time: datetime | None
    parameters: IngestParameters | None
    result: IngestResult | None
    channel: ChannelParameters | None = None
    folder: FolderParameters | None = None
    batch_result: BatchResult | None = None
    parent_id: str = ""
    source_host: str = ""

    @property
    def source(self) -> str:
        """The URL, the words, the channel, or the name or path of the file or folder, that it is
        about."""
        if self.channel is not None:
            return self.channel.channel
        if self.folder is not None:
            return self.folder.path
        asked = self.parameters
        return asked.url or asked.search or asked.file_name or asked.path if asked else ""

    @property
    def video_id(self) -> str:
        """UUID of the video that it made or found; empty until it has succeeded."""
        return self.result.video_id if self.result else ""


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """All jobs that failed, or wait to be tried again, for one reason.

    remedy: what can be done. failed: for good. retrying: wait to be tried again. example: the
    latest message; example_job_id: its job. latest_time: when that was.
    """

    reason: str
    remedy: str
    failed: int
    retrying: int
    example: str
    example_job_id: str
    latest_time: datetime | None


@dataclass(frozen=True, slots=True)
class PausedHost:
    """A source that kept refusing and is left alone until then. refusals: in a row."""

    host: str
    until: datetime | None
    reason: str
    refusals: int


@dataclass(frozen=True, slots=True)
class FailureSummary:
    """What failed and why. groups: the most frequent first. paused_hosts: left alone now."""

    groups: tuple[FailureGroup, ...]
    paused_hosts: tuple[PausedHost, ...]


@dataclass(frozen=True, slots=True)
class RetriedJobs:
    """queued: jobs that were queued again. not_retryable: whose uploaded bytes are gone."""

    queued: int
    not_retryable: int


@dataclass(frozen=True, slots=True)
class Channel:
    """A list of videos at a source, such as a YouTube channel.

    service, service_id: where it is, and its id there. schedule: cron expression (UTC) by which
    it is listed again, empty for none. list_time: when it was last listed to its end. listed,
    indexed, failed: its videos. job_id: of its unfinished job, empty for none. options: how its
    videos are fetched; the proxy is never shown.
    """

    id: str
    service: str
    service_id: str
    title: str
    url: str
    thumbnail_url: str
    schedule: str
    next_run_time: datetime | None
    list_time: datetime | None
    listed: int
    indexed: int
    failed: int
    job_id: str
    options: FetchOptions
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class ChannelVideo:
    """A video as a channel's listing names it.

    duration_s: 0 when the listing does not say. state: of its job, None when none was made.
    video_id: empty when it is not in the catalogue. skip_reason: why it was left out
    (LIVE_NOT_SUPPORTED, MEDIA_PRIVATE, ...), empty if it was not.
    """

    media_id: str
    title: str
    url: str
    publish_time: datetime | None
    duration_s: float
    job_id: str
    state: JobState | None
    video_id: str
    skip_reason: str


@dataclass(frozen=True, slots=True)
class Quota:
    """What the YouTube Data API allows a day.

    reset_time: when its day ends. configured: whether the API is used at all.
    """

    daily_units: int
    used_units: int
    reset_time: datetime | None
    configured: bool


@dataclass(frozen=True, slots=True)
class KeptObject:
    """A file that is kept of a video in object storage.

    sha256: of its bytes, lower-case hexadecimal. download_url: empty unless it was asked for.
    expire_time: when it is deleted; None: never.
    """

    key: str
    size_bytes: int
    sha256: str
    content_type: str
    download_url: str
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class Clip:
    """A Twitch clip.

    id: its own. job_id: its job's UUID. failure: why its last attempt failed. video_id, title
    and duration_s (None) are empty until they are known. objects: what is kept of it.
    """

    id: str
    job_id: str
    state: JobState
    failure: JobFailure | None
    video_id: str
    title: str
    duration_s: float | None
    objects: tuple[KeptObject, ...]
    create_time: datetime | None


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
class Match:
    """A part of a clip is a part of a video.

    id, query_id: UUIDs of the match and of the question it answers (both empty for what is
    not stored). clip_start_s, clip_end_s: the part of the clip. video_start_s, video_end_s:
    where it lies in the video. speed: 1.05 plays 5 % faster than the video. pitch: frequency
    ratio against the video. confidence: calibrated probability that it is right. also_at_s:
    other places in the video that sound the same. source_url: deep-linked to video_start_s
    where the site allows it.
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


@dataclass(frozen=True, slots=True)
class Heard:
    """Audio arrives and nothing is recognised yet.

    heard_s: audio heard so far. level_db: level of the last half second, dB full scale.
    """

    heard_s: float
    level_db: float


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
class StreamSummary:
    """The end of a stream; nothing follows.

    match_count: how many final matches there were. missing: parts of the index that did not
    answer at some time of the stream.
    """

    heard_s: float
    query_id: str
    match_count: int
    missing: tuple[MissingPart, ...] = ()


StreamEvent = Heard | ProvisionalMatch | FinalMatch | StreamSummary
"""What `stream` yields."""


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
