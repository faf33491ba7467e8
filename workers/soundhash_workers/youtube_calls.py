"""Calls of the YouTube Data API through Google's client library.

The library is synchronous and its connections belong to one thread each: every thread has a
service object of its own.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import google_auth_httplib2
import httplib2
import structlog
from google.auth.exceptions import RefreshError, TransportError
from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from soundhash_server.fetching.failures import JobError
from soundhash_server.settings import Settings
from soundhash_workers.youtube_auth import TokenError, load_token, save_token
from soundhash_workers.youtube_errors import PageGoneError, QuotaUsedUpError

_TIMEOUT_S = 30.0
_QUOTA = frozenset({"quotaExceeded", "dailyLimitExceeded", "dailyLimitExceededUnreg"})
_RATE = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
_MISSING = frozenset({"playlistNotFound", "channelNotFound", "notFound"})
_PAGE_GONE = frozenset({"invalidPageToken"})

log = structlog.get_logger(__name__)


class Caller:
    """Makes calls with the key or the token of the settings, from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._local = threading.local()
        self._saving = threading.Lock()

    def execute(self, ask: Callable[[Any], Any]) -> Any:
        """Asks one question; blocks. No text of the library's errors is passed on: they hold the
        key. Raises JobError, PageGoneError, QuotaUsedUpError."""
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


def _from_http(error: HttpError) -> Exception:
    status = int(error.resp.status)
    reason = ""
    with suppress(ValueError, LookupError, TypeError, AttributeError):
        reason = str(json.loads(error.content)["error"]["errors"][0]["reason"])
    if reason in _QUOTA:
        return QuotaUsedUpError()
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
