"""Times, lengths and names of enums."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

_EnumT = TypeVar("_EnumT", bound=enum.StrEnum)


def seconds(duration: Duration) -> float:
    """A duration in seconds, to the nanosecond that it holds."""
    return duration.seconds + duration.nanos / 1e9


def to_duration(value_s: float) -> Duration:
    """Seconds as a duration, rounded to nanoseconds."""
    out = Duration()
    out.FromNanoseconds(round(value_s * 1e9))
    return out


def time_of(owner: Message, field: str) -> datetime | None:
    if not owner.HasField(field):
        return None
    stamp: Timestamp = getattr(owner, field)
    return stamp.ToDatetime(tzinfo=UTC)


def members(kind: type[_EnumT], numbers: list[tuple[str, int]], prefix: str) -> dict[int, _EnumT]:
    named = {number: kind.__members__.get(name.removeprefix(prefix)) for name, number in numbers}
    return {number: member for number, member in named.items() if member is not None}


def to_timestamp(value: datetime) -> Timestamp:
    """A moment as a timestamp; one without a time zone is local, as Python takes it."""
    out = Timestamp()
    out.FromDatetime(value.astimezone(UTC))
    return out
