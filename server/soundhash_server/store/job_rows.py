"""Jobs as rows: how their parts are written as JSON and read back."""

from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

import asyncpg

from soundhash_server.model import (
    Failure,
    IngestParameters,
    IngestResult,
    Job,
    JobKind,
    JobProgress,
    JobState,
    JobStep,
)

JOB_COLUMNS = (
    "id, kind, state, parameters, progress, failure, result, attempt, max_attempts,"
    " next_attempt_time, create_time, update_time, start_time, finish_time"
)


def to_job(row: asyncpg.Record) -> Job:
    """A row with JOB_COLUMNS."""
    return Job(
        id=row["id"],
        kind=JobKind(row["kind"]),
        state=JobState(row["state"]),
        parameters=IngestParameters(**row["parameters"]),
        progress=_to_progress(row["progress"]),
        failure=None if row["failure"] is None else Failure(**row["failure"]),
        result=None if row["result"] is None else _to_result(row["result"]),
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        next_attempt_time=row["next_attempt_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        start_time=row["start_time"],
        finish_time=row["finish_time"],
    )


def progress_json(progress: JobProgress) -> dict[str, Any]:
    values = dataclasses.asdict(progress)
    values["step"] = None if progress.step is None else progress.step.value
    return values


def result_json(result: IngestResult) -> dict[str, Any]:
    return {"video_id": str(result.video_id), "already_indexed": result.already_indexed}


def _to_progress(values: dict[str, Any]) -> JobProgress:
    step = values.get("step")
    return JobProgress(**{**values, "step": None if step is None else JobStep(step)})


def _to_result(values: dict[str, Any]) -> IngestResult:
    return IngestResult(UUID(values["video_id"]), values["already_indexed"])
