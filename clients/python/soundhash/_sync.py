"""The plain client."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterable, Iterator
from datetime import datetime
from types import TracebackType

from soundhash import _calls as calls
from soundhash import _convert as convert
from soundhash import _types as t
from soundhash._config import ClientConfig, TlsConfig, resolve_address
from soundhash._explanation import Explanation
from soundhash._media import (
    Comparable,
    Media,
    MediaReader,
    Progress,
    comparison_side,
    fingerprint_side,
    read_clip,
)
from soundhash._stubs import Stubs
from soundhash._transport import Transport
from soundhash.v1 import fingerprint_pb2


class Client:
    """A connection to a SoundHash server; use it as a context manager, or close it.

    address: "host:port" or "unix:path"; by default SOUNDHASH_ADDRESS, else 127.0.0.1:50051.
    timeout_s: limit of a call that answers once, with its retries. tls: None for plain text.
    token: sent as a bearer token. max_retries: of calls that are safe to repeat.

    Any number of threads (AsyncClient: of tasks of one event loop) may use it. Nothing is sent
    until the first call. Every failure is a SoundHashError; a file that cannot be read is an
    OSError as usual.
    `timeout_s` of a method overrides the client's; where nothing else is said, None takes it.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        timeout_s: float = 30.0,
        tls: TlsConfig | None = None,
        token: str | None = None,
        max_retries: int = 3,
    ) -> None:
        config = ClientConfig(resolve_address(address), timeout_s, tls, token, max_retries)
        self._transport = Transport(config)

    @property
    def address(self) -> str:
        """The server's address."""
        return self._transport.config.address

    @property
    def raw(self) -> Stubs:
        """The generated stubs on this client's channel, for what the methods do not offer."""
        return self._transport.stubs

    def close(self) -> None:
        """Ends all calls and the connection. Closing again does nothing."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        transport = getattr(self, "_transport", None)
        if transport is not None and transport.is_open:
            text = f"unclosed {self!r}: use it in a with statement, or close it"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"<soundhash.{type(self).__name__} {self.address}>"

    # ---- ingest ----

    def upload(
        self,
        source: Media,
        *,
        title: str = "",
        external_id: str = "",
        channel: str = "",
        source_url: str = "",
        file_name: str = "",
        content_sha256: str = "",
        request_id: str = "",
        progress: Progress | None = None,
        timeout_s: float | None = None,
    ) -> t.Job:
        """Sends one media file to be indexed and returns its job, which goes on by itself.

        source: a path, bytes, or a binary file object (read from where it stands). title
        defaults to the file's name without its ending. external_id: your own identifier,
        unique over the catalogue. content_sha256: lower-case hexadecimal, checked by the
        server when given. request_id: makes repeating safe over several calls; within one
        call it is safe anyway. progress: called with bytes sent and total (None: unknown),
        in the plain client from another thread. timeout_s: None for no limit.

        Tried again while the server is away, when the source can be read again. Large media
        (8 MiB and more) are read once before, for their SHA-256, and go on where they were cut:
        also by a later call with the same media, within a day. progress then begins there.
        """
        with MediaReader(source) as reader:
            call = calls.upload(
                reader,
                title=title,
                external_id=external_id,
                channel=channel,
                source_url=source_url,
                file_name=file_name,
                content_sha256=content_sha256,
                request_id=request_id,
            )
            return self._transport.send_media(call, reader, progress, timeout_s)

    def get_upload(self, content_sha256: str, *, timeout_s: float | None = None) -> t.UploadStatus:
        """Tells how much of a file has arrived whose upload was cut.

        content_sha256: of the whole file, in lower-case hexadecimal. `upload` asks by itself.
        """
        return self._transport.unary(calls.get_upload(content_sha256), timeout_s)

    def submit_url(
        self,
        url: str = "",
        *,
        search: str = "",
        title: str = "",
        external_id: str = "",
        channel: str = "",
        options: t.FetchOptions | None = None,
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> t.Job:
        """Has the server fetch and index what is behind an http or https URL.

        search: words such as "artist title", instead of a URL: the first result of a YouTube
        search. options: how to fetch it. The same recording under another URL is the same video.
        """
        call = calls.submit_url(url, search, title, external_id, channel, options, request_id)
        return self._transport.unary(call, timeout_s)

    def scan_folder(
        self,
        path: str | os.PathLike[str],
        *,
        channel: str = "",
        dry_run: bool = False,
        watch: bool = False,
        timeout_s: float | None = None,
    ) -> t.Job:
        """Makes the catalogue equal to a folder of the workers' machine; returns the job.

        path: absolute, below a folder that the operator allows (SOUNDHASH_FOLDERS). What is gone
        from the folder is deleted from the catalogue, unless it came by another way too.
        channel: of its recordings. dry_run: the job's result only says what would be done.
        watch: goes on until the job is cancelled.
        """
        call = calls.scan_folder(path, channel, dry_run, watch)
        return self._transport.unary(call, timeout_s)

    def submit_channel(
        self,
        channel: str,
        *,
        max_videos: int = 0,
        since: datetime | None = None,
        dry_run: bool = False,
        only_process: bool = False,
        options: t.FetchOptions | None = None,
        timeout_s: float | None = None,
    ) -> t.Job:
        """Has the workers list a channel and index what is new of it, as one CHANNEL job.

        channel: channel id (UC...), @handle, or URL of a channel, playlist or user page.
        max_videos: most new ones, the newest first (0: all). since: only those published at or
        after it. dry_run: only list; the result says what would be done. only_process: do not
        list, index what was listed before. options: kept with the channel; None leaves its own.
        """
        call = calls.submit_channel(channel, max_videos, since, dry_run, only_process, options)
        return self._transport.unary(call, timeout_s)

    def get_job(self, job_id: str, *, timeout_s: float | None = None) -> t.Job:
        """Returns one job."""
        return self._transport.unary(calls.get_job(job_id), timeout_s)

    def jobs(
        self,
        *,
        states: Iterable[t.JobState | str] = (),
        failure_reason: str = "",
        kinds: Iterable[t.JobKind | str] = (),
        parent_id: str = "",
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[t.Job]:
        """Yields jobs, newest first: of these states and kinds (empty: all), failed for this
        reason, started by this channel or folder job."""
        call = calls.list_jobs(states, failure_reason, kinds, parent_id, limit)
        return self._transport.pages(call, timeout_s)

    def watch_job(
        self, job_id: str, *, timeout_s: float | None = None
    ) -> Generator[t.Job, None, None]:
        """Yields a job as it is now and at every change, until it is finished.

        Comes back by itself when the connection is lost. timeout_s: None for no limit.
        """
        return self._transport.watch(job_id, timeout_s)

    def wait_for_job(self, job_id: str, *, timeout_s: float | None = None) -> t.Job:
        """Returns a job once it is finished, well or not: look at its state.

        timeout_s: None for no limit. Raises DeadlineExceeded (JOB_NOT_FINISHED) after it.
        """
        return self._transport.wait(job_id, timeout_s)

    def cancel_job(self, job_id: str, *, timeout_s: float | None = None) -> t.Job:
        """Cancels a job; a finished one is returned unchanged."""
        return self._transport.unary(calls.cancel_job(job_id), timeout_s)

    def retry_job(self, job_id: str, *, timeout_s: float | None = None) -> t.Job:
        """Queues a failed or cancelled job again."""
        return self._transport.unary(calls.retry_job(job_id), timeout_s)

    def retry_jobs(
        self,
        *,
        failure_reason: str = "",
        channel_id: str = "",
        timeout_s: float | None = None,
    ) -> t.RetriedJobs:
        """Queues all failed jobs again that failed for a reason, belong to a channel, or both.

        At least one of the two has to be given.
        """
        call = calls.retry_jobs(failure_reason, channel_id)
        return self._transport.unary(call, timeout_s)

    def failure_summary(
        self, *, channel_id: str = "", timeout_s: float | None = None
    ) -> t.FailureSummary:
        """Groups jobs that failed or wait to be tried again by reason, with what can be done.

        channel_id: only those of a channel. Tells also which hosts are left alone for a while.
        """
        return self._transport.unary(calls.failure_summary(channel_id), timeout_s)

    # ---- Twitch clips ----

    def submit_clips(
        self,
        clips: Iterable[str],
        *,
        options: t.FetchOptions | None = None,
        timeout_s: float | None = None,
    ) -> tuple[t.Clip, ...]:
        """Has Twitch clips fetched and indexed in the background.

        clips: ids or addresses, 1 to 10. options: how to fetch them. Raises InvalidArgument
        (CLIP_ID_INVALID) that names every one that is none.
        """
        return self._transport.unary(calls.submit_clips(clips, options), timeout_s)

    def process_clips(
        self,
        clips: Iterable[str],
        *,
        options: t.FetchOptions | None = None,
        timeout_s: float | None = None,
    ) -> Generator[t.Clip, None, None]:
        """As `submit_clips`, and yields each clip as soon as it is finished, well or not.

        Comes back by itself when the connection is lost. Closing the iterator leaves the clips
        to go on in the background. timeout_s: None for no limit.
        """
        return self._transport.process_clips(calls.process_clips(clips, options), timeout_s)

    def get_clip(
        self, clip_id: str, *, download_urls: bool = False, timeout_s: float | None = None
    ) -> t.Clip:
        """Returns how a clip stands. download_urls: sign addresses of what is kept of it."""
        return self._transport.unary(calls.get_clip(clip_id, download_urls), timeout_s)

    def clips(
        self, *, limit: int | None = None, timeout_s: float | None = None
    ) -> Iterator[t.Clip]:
        """Yields clips, newest first."""
        return self._transport.pages(calls.list_clips(limit), timeout_s)

    def delete_clip(self, clip_id: str, *, timeout_s: float | None = None) -> None:
        """Removes a clip: its job, what is kept of it, and its video."""
        self._transport.unary(calls.delete_clip(clip_id), timeout_s)

    # ---- what is kept ----

    def kept_objects(
        self,
        video_id: str,
        *,
        sign_for_s: float | None = None,
        timeout_s: float | None = None,
    ) -> tuple[t.KeptObject, ...]:
        """Returns what is kept of a video in object storage.

        sign_for_s: sign download addresses that hold for so long, at most 7 days.
        """
        return self._transport.unary(calls.kept_objects(video_id, sign_for_s), timeout_s)

    def delete_kept_objects(self, video_id: str, *, timeout_s: float | None = None) -> int:
        """Deletes all that is kept of a video, which stays; returns how many objects."""
        return self._transport.unary(calls.delete_kept_objects(video_id), timeout_s)

    # ---- match ----

    def match(
        self,
        clip: Media,
        *,
        top: int = 0,
        min_confidence: float = 0.0,
        timeout_s: float | None = None,
    ) -> t.MatchResult:
        """Finds the videos that a clip is from; finding none is a normal answer.

        clip: a path, bytes, or a binary file object; at most 32 MiB and 10 minutes. top: most
        videos to return, 1 to 100 (0: the server's 5). min_confidence: 0 to 1, can only raise
        the server's threshold.
        """
        content = read_clip(clip)
        call = calls.match_clip(content, top, min_confidence)
        return self._transport.unary(call, timeout_s)

    def stream(
        self,
        chunks: Iterable[bytes],
        *,
        pcm: t.PcmFormat | None = None,
        top: int = 0,
        min_confidence: float = 0.0,
        stop_after_first: bool = False,
        timeout_s: float | None = None,
    ) -> Generator[t.StreamEvent, None, None]:
        """Finds videos in audio that is still arriving; yields what is heard as it comes.

        chunks: audio in pieces of any size, taken as fast as the server takes them (in the
        plain client from another thread). pcm: the format of raw audio; None: a container
        that is recognised by its bytes. stop_after_first: end at the first match that is
        certain enough to publish. timeout_s: None for no limit.

        Closing the iterator ends the stream. What `chunks` raises is raised here. A stream
        is not tried again.
        """
        config = calls.stream_config(pcm, top, min_confidence, stop_after_first)
        return self._transport.stream(config, chunks, timeout_s)

    def match_url(
        self,
        url: str,
        *,
        start_s: float = 0.0,
        length_s: float | None = None,
        top: int = 0,
        min_confidence: float = 0.0,
        options: t.FetchOptions | None = None,
        timeout_s: float | None = None,
    ) -> t.MatchResult:
        """Has the server fetch a clip from a URL and finds the videos that it is from.

        url: a media file, or a page of a site that yt-dlp knows; only as much of it is fetched
        as is needed, and nothing is kept. start_s, length_s: the part of it to use (None: a
        minute; at most 10 minutes). options: how to fetch it. top and min_confidence are as in
        `match`. timeout_s: None for no limit. Not tried again.
        """
        request = calls.match_url(url, start_s, length_s, top, min_confidence, options)
        return convert.url_result(self._transport.stream_url(request, timeout_s))

    def stream_url(
        self,
        url: str,
        *,
        start_s: float = 0.0,
        length_s: float | None = None,
        top: int = 0,
        min_confidence: float = 0.0,
        options: t.FetchOptions | None = None,
        timeout_s: float | None = None,
    ) -> Generator[t.UrlEvent, None, None]:
        """As `match_url`, event by event: progress, the matches, one UrlEnd.

        Closing the iterator ends the call.
        """
        request = calls.match_url(url, start_s, length_s, top, min_confidence, options)
        return self._transport.stream_url(request, timeout_s)

    def get_match(self, match_id: str, *, timeout_s: float | None = None) -> t.Match:
        """Returns one past match."""
        return self._transport.unary(calls.get_match(match_id), timeout_s)

    def explain(
        self,
        match_id: str = "",
        *,
        clip: Media | None = None,
        video_id: str = "",
        timeout_s: float | None = None,
    ) -> Explanation:
        """Tells why a match is a match.

        match_id: of a past match. clip: it again, as of `match`, when the server has kept too
        little of it, or not for long enough (CLIP_NEEDED); without match_id the clip's best
        match is explained, or with video_id its best place in that video. Nothing is stored.
        """
        content = b"" if clip is None else read_clip(clip)
        return self._transport.unary(calls.explain(match_id, content, video_id), timeout_s)

    def matches(
        self,
        *,
        video_id: str = "",
        query_id: str = "",
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[t.Match]:
        """Yields past matches, newest first: of one video, or those of one question."""
        return self._transport.pages(calls.list_matches(video_id, query_id, limit), timeout_s)

    # ---- fingerprints ----

    def compute_fingerprint(
        self,
        source: Media,
        *,
        progress: Progress | None = None,
        timeout_s: float | None = None,
    ) -> t.Fingerprint:
        """Fingerprints audio without storing anything; at most 64 MiB and 1 hour.

        source and progress are as in `upload`. timeout_s: None for no limit.
        """
        with MediaReader(source) as reader:
            return self._transport.send_media(calls.compute(), reader, progress, timeout_s)

    def compare(
        self,
        first: Comparable,
        second: Comparable,
        *,
        timeout_s: float | None = None,
    ) -> t.Comparison:
        """Tells whether two recordings share audio, and where the second lies in the first.

        Each is a path, bytes, a binary file object, a Fingerprint, a Video, or a video's id
        (a UUID, also as text). Media above 16 MiB are fingerprinted first.
        """
        sides = [self._side(side, timeout_s) for side in (first, second)]
        return self._transport.unary(calls.compare(sides[0], sides[1]), timeout_s)

    def _side(self, side: Comparable, timeout_s: float | None) -> fingerprint_pb2.FingerprintSource:
        sent = comparison_side(side)
        if isinstance(sent, fingerprint_pb2.FingerprintSource):
            return sent
        return fingerprint_side(self.compute_fingerprint(sent, timeout_s=timeout_s))

    def get_fingerprint(
        self, video_id: str, *, full: bool = False, timeout_s: float | None = None
    ) -> t.Fingerprint:
        """Returns the stored fingerprint of a video. full: with its segments' data."""
        return self._transport.unary(calls.get_fingerprint(video_id, full), timeout_s)

    def fingerprints(
        self, *, limit: int | None = None, timeout_s: float | None = None
    ) -> Iterator[t.Fingerprint]:
        """Yields the stored fingerprints without their segments, newest first."""
        return self._transport.pages(calls.list_fingerprints(limit), timeout_s)

    # ---- channels ----

    def get_channel(self, channel_id: str, *, timeout_s: float | None = None) -> t.Channel:
        """Returns one channel."""
        return self._transport.unary(calls.get_channel(channel_id), timeout_s)

    def channels(
        self, *, limit: int | None = None, timeout_s: float | None = None
    ) -> Iterator[t.Channel]:
        """Yields channels, newest first."""
        return self._transport.pages(calls.list_channels(limit), timeout_s)

    def update_channel(
        self,
        channel_id: str,
        *,
        schedule: str | None = None,
        options: t.FetchOptions | None = None,
        timeout_s: float | None = None,
    ) -> t.Channel:
        """Changes what is not None.

        schedule: cron expression of five fields (UTC) by which it is listed again; empty ends it.
        """
        call = calls.update_channel(channel_id, schedule, options)
        return self._transport.unary(call, timeout_s)

    def delete_channel(self, channel_id: str, *, timeout_s: float | None = None) -> None:
        """Forgets a channel and its listing and cancels what is under way; its videos stay."""
        self._transport.unary(calls.delete_channel(channel_id), timeout_s)

    def channel_videos(
        self, channel_id: str, *, limit: int | None = None, timeout_s: float | None = None
    ) -> Iterator[t.ChannelVideo]:
        """Yields a channel's videos as its source lists them, newest first."""
        return self._transport.pages(calls.list_channel_videos(channel_id, limit), timeout_s)

    def quota(self, *, timeout_s: float | None = None) -> t.Quota:
        """Returns how much of the YouTube Data API's daily quota is used."""
        return self._transport.unary(calls.get_quota(), timeout_s)

    # ---- catalogue ----

    def get_video(self, video_id: str, *, timeout_s: float | None = None) -> t.Video:
        """Returns one video."""
        return self._transport.unary(calls.get_video(video_id), timeout_s)

    def videos(
        self,
        *,
        channel: str = "",
        external_id: str = "",
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[t.Video]:
        """Yields videos, newest first: of one channel, or the one with this external id."""
        return self._transport.pages(calls.list_videos(channel, external_id, limit), timeout_s)

    def search_videos(
        self, query: str, *, limit: int | None = None, timeout_s: float | None = None
    ) -> Iterator[t.Video]:
        """Yields videos that have every word of the query, best first."""
        return self._transport.pages(calls.search_videos(query, limit), timeout_s)

    def update_video(
        self,
        video_id: str,
        *,
        title: str | None = None,
        source_url: str | None = None,
        external_id: str | None = None,
        channel: str | None = None,
        timeout_s: float | None = None,
    ) -> t.Video:
        """Changes what is not None; empty text clears a field (the title cannot be empty)."""
        call = calls.update_video(
            video_id,
            title=title,
            source_url=source_url,
            external_id=external_id,
            channel=channel,
        )
        return self._transport.unary(call, timeout_s)

    def delete_video(self, video_id: str, *, timeout_s: float | None = None) -> None:
        """Removes a video; it is gone from answers when this returns."""
        self._transport.unary(calls.delete_video(video_id), timeout_s)

    # ---- the server ----

    def stats(self, *, timeout_s: float | None = None) -> t.Stats:
        """Returns what is stored and what is going on."""
        return self._transport.unary(calls.stats(), timeout_s)

    def index_status(self, *, timeout_s: float | None = None) -> t.IndexStatus:
        """Returns the state of the server's match index."""
        return self._transport.unary(calls.index_status(), timeout_s)

    def compact_index(self, *, timeout_s: float | None = None) -> t.IndexStatus:
        """Merges the index into one volume on disk; matching goes on meanwhile."""
        return self._transport.unary(calls.compact_index(), timeout_s)

    def health(self, service: str = "", *, timeout_s: float | None = None) -> t.Health:
        """Tells whether the server, or one service ("soundhash.v1.MatchService"), answers."""
        return self._transport.unary(calls.health(service), timeout_s)
