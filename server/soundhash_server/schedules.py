"""When a cron expression is due: five fields, UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from soundhash_server.errors import ErrorKind, PlatformError

_FIELDS = 5


def next_run(expression: str, after: datetime) -> datetime:
    """The first time after ``after`` (aware) at which the expression is due, in UTC.

    Raises PlatformError INVALID_ARGUMENT (SCHEDULE_INVALID) for what is no cron expression of
    five fields, or never comes true.
    """
    if len(expression.split()) != _FIELDS:
        raise _invalid("it must have five fields: minute, hour, day, month, day of the week")
    try:
        found: datetime = next(CronSim(expression, after.astimezone(UTC)))
    except CronSimError as error:
        raise _invalid(str(error)) from None
    except StopIteration:
        raise _invalid("it is never due") from None
    return found


def _invalid(why: str) -> PlatformError:
    text = f"The schedule is not a cron expression: {why}."
    return PlatformError(
        ErrorKind.INVALID_ARGUMENT,
        "SCHEDULE_INVALID",
        text,
        'Use for example "0 4 * * *": every day at 04:00 UTC.',
        violations={"schedule": text},
    )
