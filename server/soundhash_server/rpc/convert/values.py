"""Times, lengths and ids."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_NANOS = 10**9


def duration(seconds: float) -> Duration:
    """Seconds, rounded to nanoseconds."""
    whole, nanos = divmod(abs(round(seconds * _NANOS)), _NANOS)
    sign = -1 if seconds < 0 else 1
    return Duration(seconds=sign * whole, nanos=sign * nanos)


def seconds(value: Duration) -> float:
    """A duration in seconds."""
    return value.seconds + value.nanos / _NANOS


def timestamp(moment: datetime | None) -> Timestamp | None:
    """None stays unset."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def uuid_or_none(text: str) -> UUID | None:
    """Empty means none."""
    return UUID(text) if text else None


def id_text(value: UUID | None) -> str:
    return "" if value is None else str(value)
