"""Monitors: live sources that workers listen to, and what is heard on them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from soundhash_server.errors import PlatformError, not_found
from soundhash_server.fetching.ways import check_options
from soundhash_server.live_urls import host_of, live_key
from soundhash_server.model import (
    Detection,
    Monitor,
    MonitorAlert,
    MonitorChange,
    MonitorConfig,
    MonitorState,
    Page,
)
from soundhash_server.services.catalog import Hides
from soundhash_server.sources import clean_text
from soundhash_server.store.air import Air
from soundhash_server.store.detections import Detections, Moment
from soundhash_server.store.listener import MONITORS, Listener
from soundhash_server.store.monitors import AirLeft, Monitors
from soundhash_server.url_guard import check_url

T = TypeVar("T")

WATCH_POLL_S = 1.0
"""Watchers look again after this even if nothing was announced: announcements can be lost."""
_CHANGES_AT_ONCE = 500
_PARTS_AT_ONCE = 200
_PATIENCE_S = 30.0
"""A watcher waits so long for a database that is away before it is told."""


class MonitorAdmin:
    """The monitors, and what they have heard."""

    def __init__(
        self,
        monitors: Monitors,
        detections: Detections,
        listener: Listener,
        air: Air,
        index: Hides,
        *,
        allow_private_urls: bool,
    ) -> None:
        self._monitors = monitors
        self._detections = detections
        self._listener = listener
        self._air = air
        self._index = index
        self._allow_private = allow_private_urls

    async def create(
        self, url: str, config: MonitorConfig, *, paused: bool = False, request_id: str = ""
    ) -> Monitor:
        """Adds a monitor; without a name it is called by the URL's host.

        Raises PlatformError ALREADY_EXISTS (MONITOR_EXISTS), INVALID_ARGUMENT (those of
        url_guard, FETCH_OPTIONS_INVALID, PROXY_NOT_ALLOWED).
        """
        await check_url(url, self._allow_private, live=True)
        await check_options(config.options, self._allow_private)
        named = dataclasses.replace(config, name=_name(config.name, url))
        return await self._monitors.create(
            url, live_key(url), named, paused=paused, request_id=request_id
        )

    async def get(self, monitor_id: UUID) -> Monitor:
        """Raises PlatformError NOT_FOUND (MONITOR_NOT_FOUND)."""
        return _found(await self._monitors.get(monitor_id), monitor_id)

    async def list(
        self, page_size: int, page_token: str, states: Sequence[MonitorState] = ()
    ) -> Page[Monitor]:
        """Newest first."""
        return await self._monitors.list(page_size, page_token, states)

    async def update(self, monitor_id: UUID, **fields: Any) -> Monitor:
        """Changes fields of its MonitorConfig, as named.

        Raises PlatformError NOT_FOUND (MONITOR_NOT_FOUND), INVALID_ARGUMENT
        (FETCH_OPTIONS_INVALID, PROXY_NOT_ALLOWED).
        """
        if "options" in fields:
            await check_options(fields["options"], self._allow_private)
        if "name" in fields:
            fields["name"] = _name(fields["name"], (await self.get(monitor_id)).url)
        return _found(await self._monitors.update(monitor_id, **fields), monitor_id)

    async def pause(self, monitor_id: UUID) -> Monitor:
        """Raises PlatformError NOT_FOUND (MONITOR_NOT_FOUND)."""
        return _found(await self._monitors.pause(monitor_id), monitor_id)

    async def resume(self, monitor_id: UUID) -> Monitor:
        """Raises PlatformError NOT_FOUND (MONITOR_NOT_FOUND)."""
        return _found(await self._monitors.resume(monitor_id), monitor_id)

    async def delete(self, monitor_id: UUID) -> None:
        """Removes a monitor with all that it has heard.

        Raises PlatformError NOT_FOUND (MONITOR_NOT_FOUND).
        """
        # From here on no worker adds anything to it, but for what is being stored right now.
        _found(await self._monitors.pause(monitor_id), monitor_id)
        while True:
            await self._forget_air(monitor_id)
            with contextlib.suppress(AirLeft):
                if not await self._monitors.delete(monitor_id):
                    raise not_found("monitor", str(monitor_id))
                return

    async def _forget_air(self, monitor_id: UUID) -> None:
        """Removes what it has heard, a bounded number at a time: whoever else changes the
        catalogue need not wait for all of a month."""
        while recording_ids := await self._air.forget(monitor_id, _PARTS_AT_ONCE):
            await self._index.hide(*recording_ids)

    async def detections(
        self,
        page_size: int,
        page_token: str,
        *,
        monitor_id: UUID | None = None,
        video_id: UUID | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Page[Detection]:
        """The latest first."""
        return await self._detections.list(
            page_size,
            page_token,
            monitor_id=monitor_id,
            video_id=video_id,
            since=since,
            until=until,
        )

    async def alerts(
        self,
        page_size: int,
        page_token: str,
        *,
        monitor_id: UUID | None = None,
        ongoing: bool = False,
    ) -> Page[MonitorAlert]:
        """The latest first."""
        return await self._detections.alerts(
            page_size, page_token, monitor_id=monitor_id, ongoing=ongoing
        )

    async def watch(
        self, monitor_ids: Sequence[UUID] = (), since: datetime | None = None
    ) -> AsyncIterator[MonitorChange]:
        """What changed since then, what goes on now, and then every change, without end.

        monitor_ids: only of these; empty: of all, also new ones. A database that is away for
        less than half a minute is waited for. Raises PlatformError NOT_FOUND
        (MONITOR_NOT_FOUND).
        """
        known = await self._monitors.names(monitor_ids)
        for monitor_id in monitor_ids:
            _found(known.get(monitor_id), monitor_id)
        with self._listener.subscribe(MONITORS) as news:
            news.clear()
            latest, ongoing = await _patiently(lambda: self._detections.now(monitor_ids))
            if since is not None:
                async for change in self._between(Moment(since), latest, monitor_ids):
                    yield change
            for change in ongoing:
                yield change
            position = latest
            while True:
                news.clear()
                changes = await self._changes(position, monitor_ids)
                for change in changes:
                    yield change
                    position = _moment(change)
                if len(changes) < _CHANGES_AT_ONCE:
                    await news.wait(WATCH_POLL_S)

    async def _between(
        self, position: Moment, latest: Moment, monitor_ids: Sequence[UUID]
    ) -> AsyncIterator[MonitorChange]:
        """What changed behind ``position`` and was last changed at ``latest`` or before."""
        while changes := await self._changes(position, monitor_ids):
            for change in changes:
                position = _moment(change)
                if position > latest:
                    return
                yield change

    async def _changes(
        self, position: Moment, monitor_ids: Sequence[UUID]
    ) -> Sequence[MonitorChange]:
        return await _patiently(
            lambda: self._detections.changes(position, monitor_ids, _CHANGES_AT_ONCE)
        )


def _moment(change: MonitorChange) -> Moment:
    return Moment(change.update_time, change.event.id)


def _found(value: T | None, monitor_id: UUID) -> T:
    if value is None:
        raise not_found("monitor", str(monitor_id))
    return value


def _name(wanted: str, url: str) -> str:
    return clean_text(wanted) or host_of(url)


async def _patiently(read: Callable[[], Awaitable[T]]) -> T:
    """What is read, however often the database has to be asked within _PATIENCE_S."""
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await read()
        except PlatformError as error:
            if error.reason != "DATABASE_UNAVAILABLE" or time.monotonic() > give_up:
                raise
        await asyncio.sleep(WATCH_POLL_S)
