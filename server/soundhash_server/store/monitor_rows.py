"""Monitors as rows: their columns, and what a worker's report may bring into them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import asyncpg

from soundhash_server.live_urls import without_secrets
from soundhash_server.model import (
    Failure,
    FetchOptions,
    Monitor,
    MonitorConfig,
    MonitorReport,
    MonitorState,
    MonitorStats,
)
from soundhash_server.sources import clean_text

STATE = """CASE WHEN m.paused THEN 'PAUSED'
    WHEN m.lease_expires IS NULL OR m.lease_expires < clock_timestamp() THEN 'WAITING'
    ELSE m.state END"""
MONITOR_COLUMNS = f"""m.id, m.url, m.name, m.min_confidence, m.min_duration_s, m.silence_after_s,
    m.loss_after_s, m.keep_air_s, m.fetch_options, {STATE} AS state,
    CASE WHEN NOT m.paused AND m.lease_expires < clock_timestamp() THEN m.lease_expires
        ELSE m.state_time END AS state_time,
    m.failure, m.retry_time, m.failed_attempts, m.heard_s, m.silent_s, m.recognised_s,
    m.detections, m.connections, m.level_db, m.source_title, m.audio_time, m.create_time,
    m.retry_now"""


def to_monitor(row: asyncpg.Record) -> Monitor:
    """A row with MONITOR_COLUMNS."""
    state = MonitorState(row["state"])
    return Monitor(
        id=row["id"],
        url=row["url"],
        config=MonitorConfig(
            name=row["name"],
            min_confidence=row["min_confidence"],
            min_duration_s=row["min_duration_s"],
            silence_after_s=row["silence_after_s"],
            loss_after_s=row["loss_after_s"],
            keep_air_s=row["keep_air_s"],
            options=FetchOptions(**row["fetch_options"]),
        ),
        state=state,
        state_time=row["state_time"],
        failure=None if row["failure"] is None else _to_failure(row["failure"], row["url"]),
        retry_time=row["retry_time"] if state is MonitorState.RETRYING else None,
        stats=MonitorStats(
            heard_s=row["heard_s"],
            silent_s=row["silent_s"],
            recognised_s=row["recognised_s"],
            detections=row["detections"],
            connections=row["connections"],
            failed_attempts=row["failed_attempts"],
            level_db=row["level_db"],
            source_title=row["source_title"],
            audio_time=row["audio_time"],
        ),
        create_time=row["create_time"],
        retry_now=row["retry_now"],
    )


def _to_failure(values: dict[str, Any], url: str) -> Failure:
    failure = Failure(**values)
    return dataclasses.replace(failure, message=without_secrets(failure.message, url))


def options_json(options: FetchOptions) -> dict[str, Any]:
    """Options of fetching as the column has them."""
    return dataclasses.asdict(options)


def cleaned(report: MonitorReport) -> MonitorReport:
    """The report with nothing in it that the database refuses: one such would lose a worker all
    its leases."""
    failure = report.failure
    return dataclasses.replace(
        report,
        heard_s=_positive(report.heard_s),
        silent_s=_positive(report.silent_s),
        recognised_s=_positive(report.recognised_s),
        level_db=min(0.0, max(-120.0, report.level_db)) if math.isfinite(report.level_db) else -120,
        source_title=clean_text(report.source_title),
        failure=failure and dataclasses.replace(failure, message=clean_text(failure.message)),
    )


def _positive(value: float) -> float:
    return max(0.0, value) if math.isfinite(value) else 0.0
