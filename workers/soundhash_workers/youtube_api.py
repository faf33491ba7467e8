"""The YouTube Data API v3: channels, their lists of uploads, and what it says about videos.

Calls run in threads (`youtube_calls`). Each costs one unit of the daily quota, which is counted
before it is made.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from soundhash_server.channel_refs import YOUTUBE, ChannelRef, RefKind
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.listing import long_text
from soundhash_server.model import ChannelFacts, ListedVideo
from soundhash_server.settings import Settings
from soundhash_server.sources import clean_text
from soundhash_server.store.quota import QuotaUses
from soundhash_workers.youtube_errors import PageGoneError, QuotaUsedUpError

if TYPE_CHECKING:
    from soundhash_workers.youtube_calls import Caller

__all__ = ["PAGE_SIZE", "ListedPage", "PageGoneError", "YouTubeApi", "duration_s"]

PAGE_SIZE = 50
"""Most videos of a page of the API, and most ids of a question for details."""
_UNITS = 1

_DURATION = re.compile(
    r"P(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?"
)


@dataclass(frozen=True, slots=True)
class ListedPage:
    """A page of a list. next_page: the mark of the page behind it, empty at the end.
    quota_units: what it has cost."""

    videos: tuple[ListedVideo, ...]
    next_page: str
    quota_units: int


class YouTubeApi:
    """One for all jobs of a worker. Methods raise JobError (QUOTA_EXCEEDED, CHANNEL_NOT_FOUND,
    YOUTUBE_AUTH_EXPIRED, YOUTUBE_API_REFUSED, and those of the network) and PlatformError
    DATABASE_UNAVAILABLE."""

    def __init__(self, settings: Settings, quota: QuotaUses) -> None:
        self._settings = settings
        self._quota = quota
        self._threads = ThreadPoolExecutor(settings.max_channels, thread_name_prefix="youtube")
        self._loading = threading.Lock()
        self._caller: Caller | None = None

    @property
    def configured(self) -> bool:
        """Whether there is a key or a token."""
        return bool(self._settings.youtube_api_key) or self._settings.youtube_token_path.exists()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def describe(self, ref: ChannelRef) -> ChannelFacts:
        """What a channel or playlist is. Costs one unit."""
        if ref.kind is RefKind.PLAYLIST:
            answer = await self._call(
                lambda api: api.playlists().list(part="snippet", id=ref.name, maxResults=1)
            )
            snippet = _first(answer, ref)["snippet"]
            return ChannelFacts(
                service_id=ref.name,
                title=clean_text(snippet.get("title", "")),
                url=ref.url,
                description=long_text(snippet.get("description", "")),
                thumbnail_url=_thumbnail(snippet),
                uploads_id=ref.name,
            )
        chosen = {
            RefKind.CHANNEL: ("id", ref.name),
            RefKind.HANDLE: ("forHandle", ref.name),
            RefKind.USER: ("forUsername", ref.name.removeprefix("user/")),
        }[ref.kind]
        answer = await self._call(
            lambda api: api.channels().list(
                part="snippet,contentDetails", maxResults=1, **dict([chosen])
            )
        )
        item = _first(answer, ref)
        snippet = item["snippet"]
        return ChannelFacts(
            service_id=item["id"],
            title=clean_text(snippet.get("title", "")),
            url=f"https://www.youtube.com/channel/{item['id']}",
            description=long_text(snippet.get("description", "")),
            thumbnail_url=_thumbnail(snippet),
            uploads_id=item["contentDetails"]["relatedPlaylists"]["uploads"],
        )

    async def page(self, playlist_id: str, mark: str) -> ListedPage:
        """A page of a playlist with the details of its videos, in the list's order. Costs two
        units. Raises also PageGoneError."""
        answer = await self._call(
            lambda api: api.playlistItems().list(
                part="snippet,contentDetails,status",
                playlistId=playlist_id,
                maxResults=PAGE_SIZE,
                **({"pageToken": mark} if mark else {}),
            )
        )
        items = [item for item in answer.get("items", ()) if _video_id(item)]
        units = _UNITS
        details: dict[str, ListedVideo] = {}
        if items:
            details = await self.videos([_video_id(item) for item in items])
            units += _UNITS
        listed = (details.get(_video_id(item)) or _without_details(item) for item in items)
        return ListedPage(tuple(listed), answer.get("nextPageToken", ""), units)

    async def videos(self, ids: Sequence[str]) -> dict[str, ListedVideo]:
        """What is known of at most 50 videos; those that cannot be seen are left out. Costs one
        unit."""
        answer = await self._call(
            lambda api: api.videos().list(
                part="snippet,contentDetails,status", id=",".join(ids), maxResults=PAGE_SIZE
            )
        )
        return {item["id"]: _to_listed(item) for item in answer.get("items", ())}

    async def _call(self, ask: Callable[[Any], Any]) -> Any:
        """One question; one unit."""
        if not await self._quota.take(_UNITS, self._settings.youtube_daily_units):
            raise await self._quota_exceeded()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._execute, ask)
        except QuotaUsedUpError:
            await self._quota.exhausted(self._settings.youtube_daily_units)
            raise await self._quota_exceeded() from None

    async def _quota_exceeded(self) -> JobError:
        today = await self._quota.today()
        return JobError(
            "QUOTA_EXCEEDED",
            "The YouTube Data API's quota of today is used up.",
            retry_after_s=today.wait_s,
        )

    def _execute(self, ask: Callable[[Any], Any]) -> Any:
        """In a thread."""
        # Google's libraries are slow to load, and most workers never need them.
        from soundhash_workers.youtube_calls import Caller  # noqa: PLC0415

        with self._loading:
            if self._caller is None:
                self._caller = Caller(self._settings)
        return self._caller.execute(ask)


def _first(answer: Any, ref: ChannelRef) -> Any:
    items = answer.get("items") or ()
    if not items:
        raise JobError("CHANNEL_NOT_FOUND", f"YouTube knows no {ref.name!r}.")
    return items[0]


def _video_id(item: Any) -> str:
    details = item.get("contentDetails") or {}
    snippet = item.get("snippet") or {}
    found: str = details.get("videoId") or (snippet.get("resourceId") or {}).get("videoId") or ""
    return found


def _to_listed(item: Any) -> ListedVideo:
    snippet, status = item.get("snippet") or {}, item.get("status") or {}
    skip_reason = ""
    if status.get("privacyStatus") == "private":
        skip_reason = "MEDIA_PRIVATE"
    elif status.get("uploadStatus") in ("deleted", "failed", "rejected"):
        skip_reason = "MEDIA_REMOVED"
    elif snippet.get("liveBroadcastContent") == "live":
        skip_reason = "LIVE_NOT_SUPPORTED"
    elif snippet.get("liveBroadcastContent") == "upcoming":
        skip_reason = "NOT_YET_AVAILABLE"
    return ListedVideo(
        service=YOUTUBE,
        media_id=item["id"],
        url=_watch_url(item["id"]),
        title=clean_text(snippet.get("title", "")),
        description=long_text(snippet.get("description", "")),
        thumbnail_url=_thumbnail(snippet),
        publish_time=_moment(snippet.get("publishedAt", "")),
        duration_s=duration_s((item.get("contentDetails") or {}).get("duration", "")) or None,
        skip_reason=skip_reason,
    )


def _without_details(item: Any) -> ListedVideo:
    """A video that the list names and the API shows no details of: private or gone."""
    snippet = item.get("snippet") or {}
    private = (item.get("status") or {}).get("privacyStatus") == "private"
    return ListedVideo(
        service=YOUTUBE,
        media_id=_video_id(item),
        url=_watch_url(_video_id(item)),
        title=clean_text(snippet.get("title", "")),
        publish_time=_moment((item.get("contentDetails") or {}).get("videoPublishedAt", "")),
        skip_reason="MEDIA_PRIVATE" if private else "MEDIA_REMOVED",
    )


def duration_s(text: str) -> float:
    """An ISO 8601 duration as the API writes it (P1DT2H3M4S), seconds; 0 for anything else."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return 0.0
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


def _thumbnail(snippet: Any) -> str:
    """The largest picture's address."""
    pictures = (snippet.get("thumbnails") or {}).values()
    best: Any = max(pictures, key=lambda one: one.get("width") or 0, default={})
    return str(best.get("url", ""))[:2048]


def _watch_url(media_id: str) -> str:
    return f"https://www.youtube.com/watch?v={media_id}"
