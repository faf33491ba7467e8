"""The YouTube Data API v3: channels, their lists of uploads, and what it says about videos.

The client library is synchronous and its connections belong to one thread each, so calls run in
threads with a service object of their own. Every call costs one unit of the daily quota, which
is counted before it is made.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import google_auth_httplib2
import httplib2
import structlog
from google.auth.exceptions import RefreshError, TransportError
from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from soundhash_server.channel_refs import YOUTUBE, ChannelRef, RefKind
from soundhash_server.fetching.failures import JobError
from soundhash_server.model import ChannelFacts, ListedVideo
from soundhash_server.settings import Settings
from soundhash_server.sources import clean_text
from soundhash_server.store.quota import QuotaUses
from soundhash_workers.youtube_auth import TokenError, load_token, save_token

PAGE_SIZE = 50
"""Most videos of a page of the API, and most ids of a question for details."""
MAX_DESCRIPTION_CHARS = 5000
_TIMEOUT_S = 30.0
_UNITS = 1

_DURATION = re.compile(
    r"P(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?"
)
_QUOTA = frozenset({"quotaExceeded", "dailyLimitExceeded", "dailyLimitExceededUnreg"})
_RATE = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
_MISSING = frozenset({"playlistNotFound", "channelNotFound", "notFound"})
_PAGE_GONE = frozenset({"invalidPageToken"})

T = TypeVar("T")
log = structlog.get_logger(__name__)


class PageGoneError(Exception):
    """A page's mark is not known any more: the list has to be begun anew."""


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
        self._local = threading.local()
        self._saving = threading.Lock()

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
                description=_long_text(snippet.get("description", "")),
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
            description=_long_text(snippet.get("description", "")),
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
        except _QuotaError:
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
        """In a thread. No text of the library's errors is passed on: they hold the key."""
        try:
            service, credentials = self._service()
            token = credentials.token if credentials else None
            try:
                return ask(service).execute(num_retries=0)
            finally:
                if credentials is not None and credentials.token != token:
                    self._save(credentials)
        except HttpError as error:
            raise _from_http(error) from None
        except RefreshError as error:
            self._forget()
            if error.retryable:
                raise JobError("NETWORK_ERROR", "Google gives no new token just now.") from None
            raise _auth_expired("Google refuses to renew the token.") from None
        except TokenError as error:
            raise _auth_expired(str(error)) from None
        except TimeoutError:
            self._forget()
            raise JobError("FETCH_STALLED", "The YouTube Data API does not answer.") from None
        except (OSError, TransportError, httplib2.HttpLib2Error) as error:
            self._forget()
            name = type(error).__name__
            raise JobError(
                "NETWORK_ERROR", f"The connection to the YouTube Data API failed ({name})."
            ) from None

    def _service(self) -> tuple[Any, Credentials | None]:
        """This thread's service, and the token it uses; made anew when the token's file is."""
        settings = self._settings
        version = 0
        with suppress(OSError):
            version = settings.youtube_token_path.stat().st_mtime_ns
        if getattr(self._local, "version", None) == version:
            return self._local.service, self._local.credentials
        http: Any = httplib2.Http(timeout=_TIMEOUT_S)
        credentials = None
        if not settings.youtube_api_key:
            credentials = load_token(settings.youtube_token_path)
            http = google_auth_httplib2.AuthorizedHttp(credentials, http=http)
        options = {"api_endpoint": settings.youtube_api_url} if settings.youtube_api_url else None
        service = build(
            "youtube",
            "v3",
            http=http,
            developerKey=settings.youtube_api_key or None,
            client_options=options,
            static_discovery=True,
            cache_discovery=False,
        )
        self._local.service, self._local.credentials = service, credentials
        self._local.version = version
        return service, credentials

    def _forget(self) -> None:
        """The next call of this thread begins with a fresh connection."""
        self._local.version = None

    def _save(self, credentials: Credentials) -> None:
        path = self._settings.youtube_token_path
        try:
            with self._saving:
                save_token(path, credentials)
                self._local.version = path.stat().st_mtime_ns
        except OSError as error:
            # The old one still has what is needed for the next refresh.
            log.warning("token not stored", error=error.strerror)


class _QuotaError(Exception):
    """The API says that the day's quota is used up."""


def _from_http(error: HttpError) -> Exception:
    status = int(error.resp.status)
    reason = ""
    with suppress(ValueError, LookupError, TypeError, AttributeError):
        reason = str(json.loads(error.content)["error"]["errors"][0]["reason"])
    if reason in _QUOTA:
        return _QuotaError()
    if reason in _PAGE_GONE:
        return PageGoneError()
    if status == 401:
        return _auth_expired("The YouTube Data API does not accept the token.")
    if status == 429 or reason in _RATE:
        return JobError(
            "HTTP_TOO_MANY_REQUESTS",
            "The YouTube Data API asks for fewer requests.",
            retry_after_s=_seconds(error.resp.get("retry-after", "")),
        )
    if status == 404 or reason in _MISSING:
        return JobError("CHANNEL_NOT_FOUND", "YouTube knows no such channel or list.")
    if status >= 500:
        return JobError("HTTP_SERVER_ERROR", f"The YouTube Data API answers {status}.")
    shown = reason if re.fullmatch(r"[A-Za-z]{1,60}", reason) else "no reason"
    return JobError("YOUTUBE_API_REFUSED", f"The YouTube Data API answers {status} ({shown}).")


def _seconds(text: str) -> float | None:
    return float(text) if text.isdecimal() else None


def _auth_expired(message: str) -> JobError:
    return JobError("YOUTUBE_AUTH_EXPIRED", message)


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
        description=_long_text(snippet.get("description", "")),
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


def _long_text(text: str) -> str:
    return text.replace("\0", "")[:MAX_DESCRIPTION_CHARS]


def _watch_url(media_id: str) -> str:
    return f"https://www.youtube.com/watch?v={media_id}"
