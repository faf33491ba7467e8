"""A YouTube Data API on loopback, with Google's token endpoint, that misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

CHANNEL_ID = "UC" + "a" * 22
PAGE_SIZE = 50


@dataclass
class FakeVideo:
    """A video of a channel. privacy: public, private, or gone."""

    id: str
    title: str
    published: str = "2026-01-01T00:00:00Z"
    duration: str = "PT3M5S"
    live: str = "none"
    privacy: str = "public"


def video(number: int, **more: Any) -> FakeVideo:
    """The number-th video; smaller numbers are older."""
    day = f"{2000 + number // 336}-{number // 28 % 12 + 1:02}-{number % 28 + 1:02}"
    given = {"published": f"{day}T12:00:00Z", **more}
    return FakeVideo(f"video{number:06}", f"Video {number}", **given)


@dataclass
class YouTube:
    """What there is, newest first, and what was asked."""

    key: str = "the-key"
    tokens: set[str] = field(default_factory=set)
    """Access tokens that are accepted."""
    channel_id: str = CHANNEL_ID
    handle: str = "@somebody"
    user: str = "olduser"
    title: str = "Somebody"
    videos: list[FakeVideo] = field(default_factory=list)
    playlists: dict[str, list[FakeVideo]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Status and reason of the next answers."""
    fail_after_calls: int | None = None
    """From this number of calls on everything is an error 503."""
    delay_s: float = 0.0
    refuse_refresh: bool = False
    refreshed: int = 0
    base: str = ""

    @property
    def uploads_id(self) -> str:
        return "UU" + self.channel_id[2:]

    def count(self, what: str) -> int:
        """How often a resource (``playlistItems``) was asked for."""
        return sum(path == what for path, _ in self.calls)

    def answer(self, path: str, query: dict[str, str], token: str) -> tuple[int, Any]:
        what = path.removeprefix("/youtube/v3/")
        self.calls.append((what, query))
        if self.delay_s:
            time.sleep(self.delay_s)
        if self.fail_after_calls is not None and len(self.calls) > self.fail_after_calls:
            return 503, _error(503, "backendError")
        if self.failures:
            status, reason = self.failures.pop(0)
            return status, _error(status, reason)
        if query.get("key") != self.key and token not in self.tokens:
            if query.get("key"):
                return 400, _error(400, "badRequest")
            return 401, _error(401, "authError")
        return {
            "channels": self._channels,
            "playlists": self._playlists,
            "playlistItems": self._items,
            "videos": self._videos,
        }[what](query)

    def _channels(self, query: dict[str, str]) -> tuple[int, Any]:
        asked = (query.get("id"), query.get("forHandle", "").lower(), query.get("forUsername"))
        if not any(
            given and given == own
            for given, own in zip(asked, (self.channel_id, self.handle, self.user), strict=True)
        ):
            return 200, {"items": []}
        item = {
            "id": self.channel_id,
            "snippet": {
                "title": self.title,
                "description": "About\0 it",
                "thumbnails": {
                    "default": {"url": "https://example.org/s.jpg", "width": 88},
                    "high": {"url": "https://example.org/l.jpg", "width": 800},
                },
            },
            "contentDetails": {"relatedPlaylists": {"uploads": self.uploads_id}},
        }
        return 200, {"items": [item]}

    def _playlists(self, query: dict[str, str]) -> tuple[int, Any]:
        if query["id"] not in self.playlists:
            return 200, {"items": []}
        return 200, {"items": [{"id": query["id"], "snippet": {"title": "A playlist"}}]}

    def _items(self, query: dict[str, str]) -> tuple[int, Any]:
        listed = self.videos
        if query["playlistId"] != self.uploads_id:
            if query["playlistId"] not in self.playlists:
                return 404, _error(404, "playlistNotFound")
            listed = self.playlists[query["playlistId"]]
        mark = query.get("pageToken", "at-0")
        if not mark.startswith("at-"):
            return 400, _error(400, "invalidPageToken")
        at = int(mark.removeprefix("at-"))
        page = listed[at : at + PAGE_SIZE]
        found: dict[str, Any] = {
            "items": [
                {
                    "snippet": {
                        "title": "Private video" if one.privacy == "private" else one.title
                    },
                    "contentDetails": {"videoId": one.id, "videoPublishedAt": one.published},
                    "status": {"privacyStatus": one.privacy},
                }
                for one in page
            ]
        }
        if at + PAGE_SIZE < len(listed):
            found["nextPageToken"] = f"at-{at + PAGE_SIZE}"
        return 200, found

    def _videos(self, query: dict[str, str]) -> tuple[int, Any]:
        wanted = set(query["id"].split(","))
        assert len(wanted) <= PAGE_SIZE
        everything = [*self.videos, *(one for many in self.playlists.values() for one in many)]
        return 200, {
            "items": [
                {
                    "id": one.id,
                    "snippet": {
                        "title": one.title,
                        "description": f"About {one.title}",
                        "publishedAt": one.published,
                        "liveBroadcastContent": one.live,
                        "thumbnails": {"high": {"url": f"https://example.org/{one.id}.jpg"}},
                    },
                    "contentDetails": {"duration": one.duration},
                    "status": {"privacyStatus": one.privacy, "uploadStatus": "processed"},
                }
                for one in everything
                if one.id in wanted and one.privacy == "public"
            ]
        }

    def token_answer(self) -> tuple[int, Any]:
        """Of the token endpoint."""
        if self.refuse_refresh:
            return 400, {"error": "invalid_grant", "error_description": "Token has been revoked."}
        self.refreshed += 1
        token = f"access-{self.refreshed}"
        self.tokens.add(token)
        return 200, {
            "access_token": token,
            "refresh_token": "the-refresh-token",
            "expires_in": 3600,
            "token_type": "Bearer",
        }

    def token_file(self, *, token: str = "expired", expiry: str = "2020-01-01T00:00:00Z") -> str:
        """A stored token whose refresh this server answers."""
        return json.dumps(
            {
                "token": token,
                "refresh_token": "the-refresh-token",
                "token_uri": f"{self.base}/token",
                "client_id": "client",
                "client_secret": "the-secret",
                "scopes": ["https://www.googleapis.com/auth/youtube.readonly"],
                "expiry": expiry,
            }
        )


def _error(status: int, reason: str) -> Any:
    message = "The request cannot be completed. key=the-key"
    return {"error": {"code": status, "message": message, "errors": [{"reason": reason}]}}


@contextmanager
def serving_youtube(youtube: YouTube | None = None) -> Iterator[YouTube]:
    """Serves on a free port of 127.0.0.1 until the end of the block."""
    made = youtube or YouTube()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            token = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
            self._send(*made.answer(parts.path, query, token))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._send(*made.token_answer())

        def _send(self, status: int, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
