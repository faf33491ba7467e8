"""Every call of the API, described once for both clients: what is sent and what comes back."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from soundhash import _convert as convert
from soundhash import _types as t
from soundhash._course import Course
from soundhash._explanation import Explanation, explanation
from soundhash._media import MediaReader
from soundhash.v1 import (
    admin_pb2,
    catalog_pb2,
    channels_pb2,
    clips_pb2,
    fingerprint_pb2,
    ingest_pb2,
    match_pb2,
    media_pb2,
)

T = TypeVar("T")

_PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A call with one answer.

    service: the name of its stub in Stubs. method: the RPC. convert: from the answer's
    message. idempotent: whether doing it twice is the same as doing it once.
    """

    service: str
    method: str
    request: Message
    convert: Callable[[Any], T]
    idempotent: bool = False


@dataclass(frozen=True, slots=True)
class MediaCall(Generic[T]):
    """A call that sends media in chunks.

    head: the messages before the chunks, which begin at this byte of the media. arrived: asks
    how much has arrived of media that the server knows from before; None: it never does.
    """

    service: str
    method: str
    head: Callable[[int], tuple[Message, ...]]
    wrap: Callable[[bytes], Message]
    convert: Callable[[Any], T]
    arrived: Call[t.UploadStatus] | None = None


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """A call whose answer comes in pages. field: where a page holds its items."""

    service: str
    method: str
    request: Message
    field: str
    convert: Callable[[Any], T]
    limit: int | None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be 1 or more, not {self.limit}")

    def first_page(self) -> Call[Page[T]]:
        """The call for the first page."""
        return self._page("", self.limit)

    def next_page(self, page: Page[T], n_seen: int) -> Call[Page[T]] | None:
        """The call for the page after this one, or None at the end or the limit."""
        left = None if self.limit is None else self.limit - n_seen
        if not page.next_token or left == 0:
            return None
        return self._page(page.next_token, left)

    def _page(self, token: str, left: int | None) -> Call[Page[T]]:
        request: Any = type(self.request)()
        request.CopyFrom(self.request)
        request.page_size = _PAGE_SIZE if left is None else min(left, _PAGE_SIZE)
        request.page_token = token
        return Call(self.service, self.method, request, self._convert_page, idempotent=True)

    def _convert_page(self, message: Any) -> Page[T]:
        items = tuple(self.convert(item) for item in getattr(message, self.field))
        return Page(items, message.next_page_token)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items, and the token of the page that follows (empty: none)."""

    items: Sequence[T]
    next_token: str


def upload(
    reader: MediaReader,
    *,
    title: str,
    external_id: str,
    channel: str,
    source_url: str,
    file_name: str,
    content_sha256: str,
    request_id: str,
) -> MediaCall[t.Job]:
    """An upload; without a request id it gets one, so that repeating it is safe. A large one
    goes on where it was cut."""
    content_sha256 = content_sha256 or reader.identity()
    config = ingest_pb2.UploadConfig(
        file_name=file_name or reader.file_name,
        title=title,
        external_id=external_id,
        channel=channel,
        source_url=source_url,
        content_sha256=content_sha256,
        size_bytes=reader.size_bytes or 0,
        request_id=request_id or uuid.uuid4().hex,
    )

    def head(offset: int) -> tuple[Message, ...]:
        config.offset = offset
        return (ingest_pb2.UploadRequest(config=config),)

    return MediaCall(
        "ingest",
        "Upload",
        head,
        lambda chunk: ingest_pb2.UploadRequest(chunk=chunk),
        convert.job,
        get_upload(content_sha256) if reader.large and content_sha256 else None,
    )


def get_upload(content_sha256: str) -> Call[t.UploadStatus]:
    request = ingest_pb2.GetUploadRequest(content_sha256=content_sha256)
    return Call("ingest", "GetUpload", request, convert.upload_status, idempotent=True)


def compute() -> MediaCall[t.Fingerprint]:
    return MediaCall(
        "fingerprint",
        "Compute",
        lambda _: (),
        lambda chunk: fingerprint_pb2.ComputeRequest(chunk=chunk),
        convert.fingerprint,
    )


def submit_url(
    url: str,
    search: str,
    title: str,
    external_id: str,
    channel: str,
    options: t.FetchOptions | None,
    request_id: str,
) -> Call[t.Job]:
    request = ingest_pb2.SubmitUrlRequest(
        url=url,
        search=search,
        options=None if options is None else convert.to_fetch_options(options),
        title=title,
        external_id=external_id,
        channel=channel,
        request_id=request_id or uuid.uuid4().hex,
    )
    return Call("ingest", "SubmitUrl", request, convert.job, idempotent=True)


def scan_folder(
    path: str | os.PathLike[str], channel: str, dry_run: bool, watch: bool
) -> Call[t.Job]:
    request = ingest_pb2.ScanFolderRequest(
        path=os.fspath(path), channel=channel, dry_run=dry_run, watch=watch
    )
    return Call("ingest", "ScanFolder", request, convert.job, idempotent=True)


def submit_channel(
    channel: str,
    max_videos: int,
    since: datetime | None,
    dry_run: bool,
    only_process: bool,
    options: t.FetchOptions | None,
) -> Call[t.Job]:
    request = ingest_pb2.SubmitChannelRequest(
        channel=channel,
        max_videos=max_videos,
        since=None if since is None else convert.to_timestamp(since),
        dry_run=dry_run,
        only_process=only_process,
        options=None if options is None else convert.to_fetch_options(options),
    )
    return Call("ingest", "SubmitChannel", request, convert.job, idempotent=True)


def get_channel(channel_id: str) -> Call[t.Channel]:
    request = channels_pb2.GetChannelRequest(id=channel_id)
    return Call("channels", "GetChannel", request, convert.channel, idempotent=True)


def list_channels(limit: int | None) -> Listing[t.Channel]:
    request = channels_pb2.ListChannelsRequest()
    return Listing("channels", "ListChannels", request, "channels", convert.channel, limit)


def update_channel(
    channel_id: str, schedule: str | None, options: t.FetchOptions | None
) -> Call[t.Channel]:
    """Changes what is not None."""
    given = {"schedule": schedule, "options": options}
    request = channels_pb2.UpdateChannelRequest(
        id=channel_id,
        schedule=schedule or "",
        options=None if options is None else convert.to_fetch_options(options),
        update_mask=FieldMask(paths=[name for name, value in given.items() if value is not None]),
    )
    return Call("channels", "UpdateChannel", request, convert.channel, idempotent=True)


def delete_channel(channel_id: str) -> Call[None]:
    request = channels_pb2.DeleteChannelRequest(id=channel_id)
    return Call("channels", "DeleteChannel", request, lambda _: None)


def list_channel_videos(channel_id: str, limit: int | None) -> Listing[t.ChannelVideo]:
    request = channels_pb2.ListChannelVideosRequest(id=channel_id)
    return Listing("channels", "ListChannelVideos", request, "videos", convert.channel_video, limit)


def get_quota() -> Call[t.Quota]:
    request = channels_pb2.GetQuotaRequest()
    return Call("channels", "GetQuota", request, convert.quota, idempotent=True)


def get_job(job_id: str) -> Call[t.Job]:
    return Call(
        "ingest", "GetJob", ingest_pb2.GetJobRequest(id=job_id), convert.job, idempotent=True
    )


def list_jobs(
    states: Iterable[str],
    failure_reason: str,
    kinds: Iterable[str],
    parent_id: str,
    limit: int | None,
) -> Listing[t.Job]:
    request = ingest_pb2.ListJobsRequest(
        states=[convert.state_number(state) for state in states],
        failure_reason=failure_reason,
        kinds=[convert.kind_number(kind) for kind in kinds],
        parent_id=parent_id,
    )
    return Listing("ingest", "ListJobs", request, "jobs", convert.job, limit)


def cancel_job(job_id: str) -> Call[t.Job]:
    return Call("ingest", "CancelJob", ingest_pb2.CancelJobRequest(id=job_id), convert.job)


def retry_job(job_id: str) -> Call[t.Job]:
    return Call("ingest", "RetryJob", ingest_pb2.RetryJobRequest(id=job_id), convert.job)


def submit_clips(clips: Iterable[str], options: t.FetchOptions | None) -> Call[tuple[t.Clip, ...]]:
    request = clips_pb2.SubmitClipsRequest(
        clips=_texts(clips), options=None if options is None else convert.to_fetch_options(options)
    )
    return Call(
        "clips",
        "SubmitClips",
        request,
        lambda m: tuple(convert.clip(one) for one in m.clips),
        idempotent=True,
    )


def process_clips(
    clips: Iterable[str], options: t.FetchOptions | None
) -> clips_pb2.ProcessClipsRequest:
    return clips_pb2.ProcessClipsRequest(
        clips=_texts(clips), options=None if options is None else convert.to_fetch_options(options)
    )


def _texts(clips: Iterable[str]) -> list[str]:
    # Each letter of a text would be a clip.
    return [clips] if isinstance(clips, str) else list(clips)


def get_clip(clip_id: str, download_urls: bool) -> Call[t.Clip]:
    request = clips_pb2.GetClipRequest(id=clip_id, download_urls=download_urls)
    return Call("clips", "GetClip", request, convert.clip, idempotent=True)


def list_clips(limit: int | None) -> Listing[t.Clip]:
    request = clips_pb2.ListClipsRequest()
    return Listing("clips", "ListClips", request, "clips", convert.clip, limit)


def delete_clip(clip_id: str) -> Call[None]:
    request = clips_pb2.DeleteClipRequest(id=clip_id)
    return Call("clips", "DeleteClip", request, lambda _: None)


def kept_objects(video_id: str, sign_for_s: float | None) -> Call[tuple[t.KeptObject, ...]]:
    request = media_pb2.ListObjectsRequest(
        video_id=video_id, sign_for=None if sign_for_s is None else convert.to_duration(sign_for_s)
    )
    return Call(
        "media",
        "ListObjects",
        request,
        lambda m: tuple(convert.kept_object(one) for one in m.objects),
        idempotent=True,
    )


def delete_kept_objects(video_id: str) -> Call[int]:
    request = media_pb2.DeleteObjectsRequest(video_id=video_id)
    return Call("media", "DeleteObjects", request, lambda m: int(m.deleted))


def retry_jobs(failure_reason: str, channel_id: str) -> Call[t.RetriedJobs]:
    request = ingest_pb2.RetryJobsRequest(failure_reason=failure_reason, channel_id=channel_id)
    return Call("ingest", "RetryJobs", request, convert.retried_jobs)


def failure_summary(channel_id: str) -> Call[t.FailureSummary]:
    request = ingest_pb2.SummarizeFailuresRequest(channel_id=channel_id)
    return Call("ingest", "SummarizeFailures", request, convert.failure_summary, idempotent=True)


def match_clip(content: bytes, top: int, min_confidence: float) -> Call[t.MatchResult]:
    request = match_pb2.MatchClipRequest(
        content=content,
        options=match_pb2.MatchOptions(top=top, min_confidence=min_confidence),
    )
    return Call("match", "MatchClip", request, convert.match_result, idempotent=True)


def stream(
    pcm: t.PcmFormat | None,
    top: int,
    min_confidence: float,
    stop_after_first: bool,
    window_s: float | None,
    resume: bool,
    timeout_s: float | None,
) -> Course:
    """A stream that begins now."""
    config = match_pb2.MatchStreamConfig(
        pcm=None if pcm is None else convert.pcm_format(pcm),
        options=match_pb2.MatchOptions(top=top, min_confidence=min_confidence),
        stop_after_first=stop_after_first,
        window=None if window_s is None else convert.to_duration(window_s),
    )
    return Course(config, pcm, resume=resume, timeout_s=timeout_s)


def match_url(
    url: str,
    start_s: float,
    length_s: float | None,
    top: int,
    min_confidence: float,
    options: t.FetchOptions | None,
) -> match_pb2.MatchUrlRequest:
    """The request of a question by URL."""
    return match_pb2.MatchUrlRequest(
        url=url,
        options=match_pb2.MatchOptions(top=top, min_confidence=min_confidence),
        start=convert.to_duration(start_s),
        length=None if length_s is None else convert.to_duration(length_s),
        fetch=None if options is None else convert.to_fetch_options(options),
    )


def get_match(match_id: str) -> Call[t.Match]:
    return Call(
        "match", "GetMatch", match_pb2.GetMatchRequest(id=match_id), convert.match, idempotent=True
    )


def explain(match_id: str, content: bytes, video_id: str) -> Call[Explanation]:
    request = match_pb2.ExplainMatchRequest(match_id=match_id, content=content, video_id=video_id)
    return Call("match", "ExplainMatch", request, explanation, idempotent=True)


def list_matches(video_id: str, query_id: str, limit: int | None) -> Listing[t.Match]:
    request = match_pb2.ListMatchesRequest(video_id=video_id, query_id=query_id)
    return Listing("match", "ListMatches", request, "matches", convert.match, limit)


def compare(
    first: fingerprint_pb2.FingerprintSource, second: fingerprint_pb2.FingerprintSource
) -> Call[t.Comparison]:
    request = fingerprint_pb2.CompareRequest(first=first, second=second)
    return Call("fingerprint", "Compare", request, convert.comparison, idempotent=True)


def get_fingerprint(video_id: str, full: bool) -> Call[t.Fingerprint]:
    view = fingerprint_pb2.FINGERPRINT_VIEW_FULL if full else fingerprint_pb2.FINGERPRINT_VIEW_BASIC
    request = fingerprint_pb2.GetFingerprintRequest(video_id=video_id, view=view)
    return Call("fingerprint", "GetFingerprint", request, convert.fingerprint, idempotent=True)


def list_fingerprints(limit: int | None) -> Listing[t.Fingerprint]:
    request = fingerprint_pb2.ListFingerprintsRequest()
    return Listing(
        "fingerprint", "ListFingerprints", request, "fingerprints", convert.fingerprint, limit
    )


def get_video(video_id: str) -> Call[t.Video]:
    request = catalog_pb2.GetVideoRequest(id=video_id)
    return Call("catalog", "GetVideo", request, convert.video, idempotent=True)


def list_videos(
    channel: str, external_id: str, monitor_id: str, limit: int | None
) -> Listing[t.Video]:
    request = catalog_pb2.ListVideosRequest(
        channel=channel, external_id=external_id, monitor_id=monitor_id
    )
    return Listing("catalog", "ListVideos", request, "videos", convert.video, limit)


def search_videos(query: str, limit: int | None) -> Listing[t.Video]:
    request = catalog_pb2.SearchVideosRequest(query=query)
    return Listing("catalog", "SearchVideos", request, "videos", convert.video, limit)


def update_video(video_id: str, **fields: str | None) -> Call[t.Video]:
    """Changes the fields that are not None."""
    changed = {name: value for name, value in fields.items() if value is not None}
    request = catalog_pb2.UpdateVideoRequest(id=video_id, update_mask=FieldMask(paths=changed))
    for name, value in changed.items():
        setattr(request, name, value)
    return Call("catalog", "UpdateVideo", request, convert.video)


def delete_video(video_id: str) -> Call[None]:
    request = catalog_pb2.DeleteVideoRequest(id=video_id)
    return Call("catalog", "DeleteVideo", request, lambda _: None)


def find_duplicates(video_ids: Iterable[str], min_shared_s: float | None) -> Call[t.Job]:
    request = catalog_pb2.FindDuplicatesRequest(
        video_ids=video_ids,
        min_shared=None if min_shared_s is None else convert.to_duration(min_shared_s),
    )
    return Call("catalog", "FindDuplicates", request, convert.job, idempotent=True)


def list_duplicates(
    job_id: str, video_id: str, kinds: Iterable[str], limit: int | None
) -> Listing[t.DuplicatePair]:
    request = catalog_pb2.ListDuplicatesRequest(
        job_id=job_id,
        video_id=video_id,
        kinds=[convert.duplicate_kind_number(kind) for kind in kinds],
    )
    return Listing("catalog", "ListDuplicates", request, "pairs", convert.duplicate_pair, limit)


def stats() -> Call[t.Stats]:
    return Call("admin", "GetStats", admin_pb2.GetStatsRequest(), convert.stats, idempotent=True)


def index_status() -> Call[t.IndexStatus]:
    request = admin_pb2.GetIndexStatusRequest()
    return Call("admin", "GetIndexStatus", request, convert.index_status, idempotent=True)


def compact_index() -> Call[t.IndexStatus]:
    return Call("admin", "CompactIndex", admin_pb2.CompactIndexRequest(), convert.index_status)


def health(service: str) -> Call[t.Health]:
    request = health_pb2.HealthCheckRequest(service=service)
    return Call("health", "Check", request, convert.health, idempotent=True)
