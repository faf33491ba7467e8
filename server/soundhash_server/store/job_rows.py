"""Jobs as rows: how their parts are written as JSON and read back.

What is missing in JSON has its default: rows of earlier versions are read as they are.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from soundhash_server.model import (
    BatchProgress,
    BatchResult,
    ChannelParameters,
    DuplicatesParameters,
    DuplicatesResult,
    Failure,
    FetchOptions,
    FolderParameters,
    IngestParameters,
    IngestResult,
    Job,
    JobKind,
    JobParameters,
    JobProgress,
    JobResult,
    JobState,
    JobStep,
)

JOB_COLUMNS = (
    "id, kind, state, parameters, progress, failure, result, attempt, max_attempts,"
    " next_attempt_time, create_time, update_time, start_time, finish_time,"
    " parent_id, channel_id, source_host"
)


def to_job(row: asyncpg.Record) -> Job:
    """A row with JOB_COLUMNS."""
    kind, state = JobKind(row["kind"]), JobState(row["state"])
    # While a job waits for others, its result is not yet one.
    result = row["result"] if state is JobState.SUCCEEDED else None
    return Job(
        id=row["id"],
        kind=kind,
        state=state,
        parameters=to_parameters(kind, row["parameters"]),
        progress=_to_progress(row["progress"]),
        failure=None if row["failure"] is None else Failure(**row["failure"]),
        result=None if result is None else to_result(result),
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        next_attempt_time=row["next_attempt_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        start_time=row["start_time"],
        finish_time=row["finish_time"],
        parent_id=row["parent_id"],
        channel_id=row["channel_id"],
        source_host=row["source_host"],
    )


def parameters_json(parameters: JobParameters) -> dict[str, Any]:
    values = dataclasses.asdict(parameters)
    match parameters:
        case IngestParameters():
            defaults = dataclasses.asdict(FetchOptions())
            changed = {k: v for k, v in values.pop("options").items() if v != defaults[k]}
            if changed:
                values["options"] = changed
        case ChannelParameters():
            values["channel_id"] = str(parameters.channel_id)
            values["since"] = None if parameters.since is None else parameters.since.isoformat()
        case DuplicatesParameters():
            values["video_ids"] = [str(video_id) for video_id in parameters.video_ids]
    return values


def to_parameters(kind: JobKind, values: dict[str, Any]) -> JobParameters:
    match kind:
        case JobKind.INGEST:
            options = FetchOptions(**values.get("options", {}))
            return IngestParameters(**{**values, "options": options})
        case JobKind.CHANNEL:
            since = values.get("since")
            given = {
                "channel_id": UUID(values["channel_id"]),
                "since": None if since is None else datetime.fromisoformat(since),
            }
            return ChannelParameters(**{**values, **given})
        case JobKind.FOLDER:
            return FolderParameters(**values)
        case JobKind.DUPLICATES:
            ids = tuple(UUID(video_id) for video_id in values["video_ids"])
            return DuplicatesParameters(**{**values, "video_ids": ids})


def progress_json(progress: JobProgress) -> dict[str, Any]:
    values = dataclasses.asdict(progress)
    values["step"] = None if progress.step is None else progress.step.value
    del values["batch"]
    if progress.batch is not None:
        values["batch"] = batch_json(progress.batch)
    return values


def batch_json(batch: BatchProgress) -> dict[str, Any]:
    """Without what workers have at the moment: that is read from their jobs."""
    values = dataclasses.asdict(batch)
    del values["running_items"]
    return values


def result_json(result: JobResult) -> dict[str, Any]:
    match result:
        case IngestResult():
            return {"video_id": str(result.video_id), "already_indexed": result.already_indexed}
        case BatchResult():
            return {**dataclasses.asdict(result), "counts": batch_json(result.counts)}
        case DuplicatesResult():
            return dataclasses.asdict(result)


def to_result(values: dict[str, Any]) -> JobResult:
    if "video_id" in values:
        return IngestResult(UUID(values["video_id"]), values["already_indexed"])
    if "counts" not in values:
        return DuplicatesResult(**values)
    given = {
        "counts": BatchProgress(**values["counts"]),
        "new_items": tuple(values.get("new_items", ())),
        "unreadable_items": tuple(values.get("unreadable_items", ())),
    }
    return BatchResult(**{**values, **given})


def to_step(value: str | None) -> JobStep | None:
    return None if value is None else JobStep(value)


def _to_progress(values: dict[str, Any]) -> JobProgress:
    batch = values.get("batch")
    given = {
        "step": to_step(values.get("step")),
        "batch": None if batch is None else BatchProgress(**batch),
    }
    return JobProgress(**{**values, **given})
