"""Monitors as people and machines get to see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from soundhash.cli import _output as output

if TYPE_CHECKING:
    from soundhash import Monitor

_STYLES = {
    "listening": "green",
    "connecting": "cyan",
    "waiting": "yellow",
    "retrying": "red",
    "paused": "dim",
}


def _state(monitor: Monitor) -> str:
    word = monitor.state.lower()
    style = _STYLES.get(word)
    return f"[{style}]{word}[/]" if style else word


def _now(monitor: Monitor) -> str:
    """What is on it, or why nothing is."""
    if monitor.current is not None:
        return output.linked(monitor.current.title, monitor.current.source_url)
    if monitor.failure is not None:
        return f"[red]{output.escape(monitor.failure.reason)}[/]"
    if monitor.stats.source_title and monitor.state == "LISTENING":
        return f"[dim]{output.escape(monitor.stats.source_title)}[/]"
    return ""


def print_table(found: Sequence[Monitor], as_json: bool) -> None:
    """All of them, a line each."""
    if as_json:
        for monitor in found:
            output.print_json(monitor)
        return
    if not found:
        output.console(stderr=True).print("no monitors")
        return
    rows = [
        [
            output.escape(monitor.config.name),
            _state(monitor),
            _now(monitor),
            output.length(monitor.stats.heard_s),
            f"{monitor.stats.detections:,}",
            monitor.id,
        ]
        for monitor in found
    ]
    output.print_table(
        ["name", "state", "now", "heard", "detections", "id"],
        rows,
        right=("heard", "detections"),
        whole=("state", "id"),
    )


def print_line(monitor: Monitor, as_json: bool) -> None:
    """How one stands."""
    if as_json:
        output.print_json(monitor)
        return
    name = output.escape(monitor.config.name)
    output.console().print(f"{_state(monitor):<10} {name} [dim]{monitor.id}[/]", soft_wrap=True)


def print_monitor(monitor: Monitor, as_json: bool) -> None:
    """All about one."""
    if as_json:
        output.print_json(monitor)
        return
    config, stats, failure = monitor.config, monitor.stats, monitor.failure
    on_air = monitor.current
    recognised = f", {stats.recognised_s / stats.heard_s:.0%} recognised" if stats.heard_s else ""
    retry = f", again at {output.moment(monitor.retry_time)}" if monitor.retry_time else ""
    pairs = [
        ("name", config.name),
        ("source", monitor.url),
        ("state", f"{monitor.state.lower()} since {output.moment(monitor.state_time)}{retry}"),
        ("failed", f"{failure.reason}: {failure.message}" if failure else ""),
        ("remedy", failure.remedy if failure else ""),
        ("now", f"{on_air.title} since {output.moment(on_air.start_time)}" if on_air else ""),
        ("source says", stats.source_title),
        ("level", f"{stats.level_db:.0f} dB" if stats.audio_time else ""),
        ("heard", output.length(stats.heard_s) + recognised),
        ("silent", output.length(stats.silent_s) if stats.silent_s else ""),
        ("detections", f"{stats.detections:,}"),
        ("connections", f"{stats.connections:,}, failed in a row {stats.failed_attempts:,}"),
        ("latest audio", output.moment(stats.audio_time)),
        ("keeps", _kept(monitor)),
        ("detects", f"{output.length(config.min_duration_s)} and more" + _bound(monitor)),
        (
            "alerts",
            f"after {output.length(config.silence_after_s)} of silence, "
            f"{output.length(config.loss_after_s)} without audio",
        ),
        ("added", output.moment(monitor.create_time)),
        ("id", monitor.id),
    ]
    output.print_pairs((name, value) for name, value in pairs if value)


def _kept(monitor: Monitor) -> str:
    if not monitor.config.keep_air_s and not monitor.stats.kept_air_s:
        return ""
    asked, kept = monitor.config.keep_air_s, monitor.stats.kept_air_s
    return f"the last {output.length(asked)}; {output.length(kept)} are indexed"


def _bound(monitor: Monitor) -> str:
    bound = monitor.config.min_confidence
    return f", from a confidence of {bound:.0%}" if bound else ""
