"""The client for plain code: live sources that the workers listen to."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from datetime import datetime

from soundhash import _monitor_calls as calls
from soundhash import _types as t
from soundhash._sync_connection import SyncConnection


class SyncMonitors(SyncConnection):
    """Monitors, and what is heard on them."""

    def create_monitor(
        self,
        url: str,
        *,
        name: str = "",
        min_confidence: float | None = None,
        min_duration_s: float | None = None,
        silence_after_s: float | None = None,
        loss_after_s: float | None = None,
        keep_air_s: float | None = None,
        options: t.FetchOptions | None = None,
        paused: bool = False,
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> t.Monitor:
        """Has the workers listen to a live source for as long as it exists.

        url: http(s) of a stream (Icecast, SHOUTcast, HLS), rtmp(s), rtsp(s), or a page that
        yt-dlp knows, such as a Twitch channel. name: for people; empty: the URL's host. The
        others are as in `MonitorConfig`, None for the server's choice. paused: begin so. Raises
        AlreadyExists (MONITOR_EXISTS) for a source that is monitored.
        """
        call = calls.create_monitor(
            url,
            paused,
            request_id,
            name=name,
            min_confidence=min_confidence,
            min_duration_s=min_duration_s,
            silence_after_s=silence_after_s,
            loss_after_s=loss_after_s,
            keep_air_s=keep_air_s,
            options=options,
        )
        return self._transport.unary(call, timeout_s)

    def get_monitor(self, monitor_id: str, *, timeout_s: float | None = None) -> t.Monitor:
        """Returns a monitor as it is now."""
        return self._transport.unary(calls.get_monitor(monitor_id), timeout_s)

    def monitors(
        self,
        *,
        states: Iterable[t.MonitorState | str] = (),
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[t.Monitor]:
        """Yields monitors, newest first; in these states (empty: all)."""
        return self._transport.pages(calls.list_monitors(states, limit), timeout_s)

    def update_monitor(
        self,
        monitor_id: str,
        *,
        name: str | None = None,
        min_confidence: float | None = None,
        min_duration_s: float | None = None,
        silence_after_s: float | None = None,
        loss_after_s: float | None = None,
        keep_air_s: float | None = None,
        options: t.FetchOptions | None = None,
        timeout_s: float | None = None,
    ) -> t.Monitor:
        """Changes what is not None, while the monitor goes on. options: all of them anew."""
        call = calls.update_monitor(
            monitor_id,
            name=name,
            min_confidence=min_confidence,
            min_duration_s=min_duration_s,
            silence_after_s=silence_after_s,
            loss_after_s=loss_after_s,
            keep_air_s=keep_air_s,
            options=options,
        )
        return self._transport.unary(call, timeout_s)

    def pause_monitor(self, monitor_id: str, *, timeout_s: float | None = None) -> t.Monitor:
        """Stops listening until `resume_monitor`; what goes on ends. Twice is no error."""
        return self._transport.unary(calls.pause_monitor(monitor_id), timeout_s)

    def resume_monitor(self, monitor_id: str, *, timeout_s: float | None = None) -> t.Monitor:
        """Listens again. One that waits to connect again does so at once."""
        return self._transport.unary(calls.resume_monitor(monitor_id), timeout_s)

    def delete_monitor(self, monitor_id: str, *, timeout_s: float | None = None) -> None:
        """Removes a monitor, its detections and alerts, and what it heard from the index."""
        self._transport.unary(calls.delete_monitor(monitor_id), timeout_s)

    def watch_detections(
        self,
        monitor_ids: Iterable[str] = (),
        *,
        since: datetime | None = None,
        timeout_s: float | None = None,
    ) -> Generator[t.MonitorEvent, None, None]:
        """Yields what goes on now, and then every change of detections and alerts, for ever.

        monitor_ids: only of these; empty: of all, also new ones. since: what changed since then
        comes first. Comes back by itself when the connection is lost, and leaves nothing out
        once an event has come. Closing the iterator ends it. timeout_s: None for no limit.
        """
        return self._transport.watch_detections(monitor_ids, since, timeout_s)

    def detections(
        self,
        *,
        monitor_id: str = "",
        video_id: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[t.Detection]:
        """Yields detections, the latest first: of a monitor, of a video, of a time.

        since: that ended after it. until: that began before it.
        """
        call = calls.list_detections(monitor_id, video_id, since, until, limit)
        return self._transport.pages(call, timeout_s)

    def monitor_alerts(
        self,
        *,
        monitor_id: str = "",
        ongoing: bool = False,
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[t.MonitorAlert]:
        """Yields alerts, the latest first: of a monitor; ongoing: that are not over."""
        return self._transport.pages(calls.list_alerts(monitor_id, ongoing, limit), timeout_s)
