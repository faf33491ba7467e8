"""What is indexed: look up, change, remove."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

from soundhash_server.errors import ErrorKind, PlatformError, not_found
from soundhash_server.model import Page, Video
from soundhash_server.store.videos import Videos

CHANGEABLE = frozenset({"title", "source_url", "external_id", "channel"})


class Hides(Protocol):
    """The match index, as far as removing needs it."""

    async def hide(self, *recording_ids: int) -> None:
        """Leaves recordings out of every answer from now on."""


class Catalog:
    """The videos."""

    def __init__(self, videos: Videos, index: Hides) -> None:
        self._videos = videos
        self._index = index

    async def get(self, video_id: UUID) -> Video:
        """Raises PlatformError NOT_FOUND (VIDEO_NOT_FOUND)."""
        video = await self._videos.get(video_id)
        if video is None:
            raise not_found("video", str(video_id))
        return video

    async def list(
        self,
        page_size: int,
        page_token: str,
        *,
        channel: str = "",
        external_id: str = "",
        monitor_id: UUID | None = None,
    ) -> Page[Video]:
        """Newest first; with ``monitor_id`` what this monitor has heard, else none of that."""
        return await self._videos.list(
            page_size,
            page_token,
            channel=channel,
            external_id=external_id,
            monitor_id=monitor_id,
        )

    async def search(self, query: str, page_size: int, page_token: str) -> Page[Video]:
        """Videos that have all words of the query, best first."""
        if not query.split():
            raise _violation("query", "must have at least one word")
        return await self._videos.search(query, page_size, page_token)

    async def update(self, video_id: UUID, changes: Mapping[str, str]) -> Video:
        """Sets the named fields.

        Raises PlatformError NOT_FOUND (VIDEO_NOT_FOUND), ALREADY_EXISTS (EXTERNAL_ID_TAKEN),
        INVALID_ARGUMENT.
        """
        if "title" in changes and not changes["title"].strip():
            raise _violation("title", "must have 1 to 500 characters")
        video = await self._videos.update(video_id, **changes)
        if video is None:
            raise not_found("video", str(video_id))
        return video

    async def delete(self, video_id: UUID) -> None:
        """Removes a video; it is gone from this server's answers when this returns.

        Raises PlatformError NOT_FOUND (VIDEO_NOT_FOUND).
        """
        recording_id = await self._videos.delete(video_id)
        if recording_id is None:
            raise not_found("video", str(video_id))
        await self._index.hide(recording_id)


def _violation(field: str, text: str) -> PlatformError:
    return PlatformError(
        ErrorKind.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        f"The request is not valid: {field} {text}.",
        "Correct the named field.",
        violations={field: text},
    )
