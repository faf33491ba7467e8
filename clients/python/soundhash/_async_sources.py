"""The client for asyncio: what brings audio in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from datetime import datetime

from soundhash import _calls as calls
from soundhash import _types as t
from soundhash._async_connection import AsyncConnection
from soundhash._media import (
    Media,
    MediaReader,
    Progress,
)


class AsyncSources(AsyncConnection):
    """Ingestion, jobs, channels, clips, and what is kept of videos."""

    # ---- ingest ----

    async def upload(
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
            call = await asyncio.to_thread(
                calls.upload,
                reader,
                title=title,
                external_id=external_id,
                channel=channel,
                source_url=source_url,
                file_name=file_name,
                content_sha256=content_sha256,
                request_id=request_id,
            )
            return await self._transport.send_media(call, reader, progress, timeout_s)

    async def get_upload(
        self, content_sha256: str, *, timeout_s: float | None = None
    ) -> t.UploadStatus:
        """Tells how much of a file has arrived whose upload was cut.

        content_sha256: of the whole file, in lower-case hexadecimal. `upload` asks by itself.
        """
        return await self._transport.unary(calls.get_upload(content_sha256), timeout_s)

    async def submit_url(
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
        return await self._transport.unary(call, timeout_s)

    async def scan_folder(
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
        return await self._transport.unary(call, timeout_s)

    async def submit_channel(
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
        return await self._transport.unary(call, timeout_s)

    async def get_job(self, job_id: str, *, timeout_s: float | None = None) -> t.Job:
        """Returns one job."""
        return await self._transport.unary(calls.get_job(job_id), timeout_s)

    def jobs(
        self,
        *,
        states: Iterable[t.JobState | str] = (),
        failure_reason: str = "",
        kinds: Iterable[t.JobKind | str] = (),
        parent_id: str = "",
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[t.Job]:
        """Yields jobs, newest first: of these states and kinds (empty: all), failed for this
        reason, started by this channel or folder job."""
        call = calls.list_jobs(states, failure_reason, kinds, parent_id, limit)
        return self._transport.pages(call, timeout_s)

    def watch_job(
        self, job_id: str, *, timeout_s: float | None = None
    ) -> AsyncGenerator[t.Job, None]:
        """Yields a job as it is now and at every change, until it is finished.

        Comes back by itself when the connection is lost. timeout_s: None for no limit.
        """
        return self._transport.watch(job_id, timeout_s)

    async def wait_for_job(self, job_id: str, *, timeout_s: float | None = None) -> t.Job:
        """Returns a job once it is finished, well or not: look at its state.

        timeout_s: None for no limit. Raises DeadlineExceeded (JOB_NOT_FINISHED) after it.
        """
        return await self._transport.wait(job_id, timeout_s)

    async def cancel_job(self, job_id: str, *, timeout_s: float | None = None) -> t.Job:
        """Cancels a job; a finished one is returned unchanged."""
        return await self._transport.unary(calls.cancel_job(job_id), timeout_s)

    async def retry_job(self, job_id: str, *, timeout_s: float | None = None) -> t.Job:
        """Queues a failed or cancelled job again."""
        return await self._transport.unary(calls.retry_job(job_id), timeout_s)

    async def retry_jobs(
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
        return await self._transport.unary(call, timeout_s)

    async def failure_summary(
        self, *, channel_id: str = "", timeout_s: float | None = None
    ) -> t.FailureSummary:
        """Groups jobs that failed or wait to be tried again by reason, with what can be done.

        channel_id: only those of a channel. Tells also which hosts are left alone for a while.
        """
        return await self._transport.unary(calls.failure_summary(channel_id), timeout_s)

    # ---- Twitch clips ----

    async def submit_clips(
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
        return await self._transport.unary(calls.submit_clips(clips, options), timeout_s)

    def process_clips(
        self,
        clips: Iterable[str],
        *,
        options: t.FetchOptions | None = None,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[t.Clip, None]:
        """As `submit_clips`, and yields each clip as soon as it is finished, well or not.

        Comes back by itself when the connection is lost. Closing the iterator leaves the clips
        to go on in the background. timeout_s: None for no limit.
        """
        return self._transport.process_clips(calls.process_clips(clips, options), timeout_s)

    async def get_clip(
        self, clip_id: str, *, download_urls: bool = False, timeout_s: float | None = None
    ) -> t.Clip:
        """Returns how a clip stands. download_urls: sign addresses of what is kept of it."""
        return await self._transport.unary(calls.get_clip(clip_id, download_urls), timeout_s)

    def clips(
        self, *, limit: int | None = None, timeout_s: float | None = None
    ) -> AsyncIterator[t.Clip]:
        """Yields clips, newest first."""
        return self._transport.pages(calls.list_clips(limit), timeout_s)

    async def delete_clip(self, clip_id: str, *, timeout_s: float | None = None) -> None:
        """Removes a clip: its job, what is kept of it, and its video."""
        await self._transport.unary(calls.delete_clip(clip_id), timeout_s)

    # ---- what is kept ----

    async def kept_objects(
        self,
        video_id: str,
        *,
        sign_for_s: float | None = None,
        timeout_s: float | None = None,
    ) -> tuple[t.KeptObject, ...]:
        """Returns what is kept of a video in object storage.

        sign_for_s: sign download addresses that hold for so long, at most 7 days.
        """
        return await self._transport.unary(calls.kept_objects(video_id, sign_for_s), timeout_s)

    async def delete_kept_objects(self, video_id: str, *, timeout_s: float | None = None) -> int:
        """Deletes all that is kept of a video, which stays; returns how many objects."""
        return await self._transport.unary(calls.delete_kept_objects(video_id), timeout_s)

    # ---- channels ----

    async def get_channel(self, channel_id: str, *, timeout_s: float | None = None) -> t.Channel:
        """Returns one channel."""
        return await self._transport.unary(calls.get_channel(channel_id), timeout_s)

    def channels(
        self, *, limit: int | None = None, timeout_s: float | None = None
    ) -> AsyncIterator[t.Channel]:
        """Yields channels, newest first."""
        return self._transport.pages(calls.list_channels(limit), timeout_s)

    async def update_channel(
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
        return await self._transport.unary(call, timeout_s)

    async def delete_channel(self, channel_id: str, *, timeout_s: float | None = None) -> None:
        """Forgets a channel and its listing and cancels what is under way; its videos stay."""
        await self._transport.unary(calls.delete_channel(channel_id), timeout_s)

    def channel_videos(
        self, channel_id: str, *, limit: int | None = None, timeout_s: float | None = None
    ) -> AsyncIterator[t.ChannelVideo]:
        """Yields a channel's videos as its source lists them, newest first."""
        return self._transport.pages(calls.list_channel_videos(channel_id, limit), timeout_s)

    async def quota(self, *, timeout_s: float | None = None) -> t.Quota:
        """Returns how much of the YouTube Data API's daily quota is used."""
        return await self._transport.unary(calls.get_quota(), timeout_s)
