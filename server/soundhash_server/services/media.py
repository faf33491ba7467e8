"""What is kept of videos in object storage: list, sign, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from soundhash_server.errors import ErrorKind, PlatformError, not_found
from soundhash_server.model import KeptObject
from soundhash_server.storage import MAX_SIGNED_S, Storage, unavailable
from soundhash_server.store.objects import Objects
from soundhash_server.store.videos import Videos

_DELETE_S = 10.0
_REMOVE_S = 30.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """An object and, where it was asked for, an address to download it from for a while."""

    kept: KeptObject
    download_url: str


class Media:
    """storage: None when no audio is kept."""

    def __init__(self, videos: Videos, objects: Objects, storage: Storage | None) -> None:
        self._videos = videos
        self._objects = objects
        self._storage = storage

    async def list(self, video_id: UUID, sign_for_s: float | None) -> tuple[Kept, ...]:
        """What is kept of a video; signed for so long, if it is said.

        Raises PlatformError NOT_FOUND (VIDEO_NOT_FOUND), INVALID_ARGUMENT, FAILED_PRECONDITION
        (STORAGE_NOT_CONFIGURED, SIGNING_NOT_SUPPORTED), and those of the storage.
        """
        _check_signing(sign_for_s)
        await self._check_video(video_id)
        return await self.sign(await self._objects.of_video(video_id), sign_for_s)

    async def sign(self, found: Sequence[KeptObject], for_s: float | None) -> tuple[Kept, ...]:
        """The objects with their addresses. Raises as `list`."""
        if for_s is None:
            return tuple(Kept(one, "") for one in found)
        if self._storage is None:
            raise PlatformError(
                ErrorKind.FAILED_PRECONDITION,
                "STORAGE_NOT_CONFIGURED",
                "This server has no object storage.",
                "Set SOUNDHASH_STORAGE_URL for the server as for the workers.",
            )
        urls = await self._storage.sign([one.key for one in found], for_s)
        return tuple(Kept(one, url) for one, url in zip(found, urls, strict=True))

    async def delete(self, video_id: UUID) -> int:
        """Deletes what is kept of a video; returns how many objects that are.

        They are gone from every answer when this returns. A storage that is away gets rid of
        them later. Raises PlatformError NOT_FOUND (VIDEO_NOT_FOUND).
        """
        await self._check_video(video_id)
        deleted = await self._objects.doom(video_id)
        await self.remove(video_id)
        return deleted

    async def remove(self, video_id: UUID) -> None:
        """Removes what is left of a video's objects now, as far as the storage is there."""
        if self._storage is None:
            return
        try:
            async with asyncio.timeout(_DELETE_S):
                await remove_objects(self._objects, self._storage, video_id)
        except (PlatformError, TimeoutError) as error:
            why = getattr(error, "reason", type(error).__name__)
            log.warning("objects are deleted later", video_id=str(video_id), why=why)

    async def _check_video(self, video_id: UUID) -> None:
        if await self._videos.get(video_id) is None:
            raise not_found("video", str(video_id))


async def remove_objects(
    objects: Objects, storage: Storage, video_id: UUID | None = None, *, limit: int = 1000
) -> int:
    """Removes objects that have to go: doomed, expired or abandoned; returns how many.

    video_id: only of this video. Raises PlatformError (STORAGE_UNAVAILABLE,
    DATABASE_UNAVAILABLE): the rest has to wait.
    """
    for removed in range(limit):
        async with objects.removal(video_id) as removal:
            if removal is None:
                return removed
            try:
                async with asyncio.timeout(_REMOVE_S):
                    await storage.delete(removal.key)
            except TimeoutError:
                raise unavailable() from None
            except PlatformError as error:
                if error.kind is ErrorKind.UNAVAILABLE:
                    raise
                # One that cannot be removed must not stand before the others.
                await removal.put_off()
                continue
            await removal.done()
    return limit


def _check_signing(for_s: float | None) -> None:
    if for_s is not None and not 1 <= for_s <= MAX_SIGNED_S:
        text = "must be 1 second to 7 days"
        raise PlatformError(
            ErrorKind.INVALID_ARGUMENT,
            "INVALID_REQUEST",
            f"The request is not valid: sign_for {text}.",
            "Correct the named field.",
            violations={"sign_for": text},
        )
