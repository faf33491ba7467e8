"""Typed exceptions that keep everything a server says about a failure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of a request, by its path, and what it must be."""

    field: str
    description: str


def with_remedy(text: str, remedy: str) -> str:
    """What happened and what to do about it, in one line."""
    if not remedy or not text:
        return text or remedy
    if text[-1] in ".!?":
        return f"{text} {remedy}"
    return f"{text}{'.' if remedy[0].isupper() else ':'} {remedy}"


class SoundHashError(Exception):
    """Base of all failures of a call.

    code: the gRPC status. reason: stable, in UPPER_SNAKE, to test on. message: what happened.
    remedy: what to do about it (may be empty). metadata: every variable of the message.
    field_violations: what is wrong with which field of the request. retry_after_s: when
    trying again can help, else None. resource: (type, name) of what is missing or taken.
    """

    default_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        remedy: str = "",
        code: grpc.StatusCode | None = None,
        metadata: Mapping[str, str] | None = None,
        field_violations: tuple[FieldViolation, ...] = (),
        retry_after_s: float | None = None,
        resource: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.reason = reason or self.code.name
        self.remedy = remedy
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.field_violations = field_violations
        self.retry_after_s = retry_after_s
        self.resource = resource

    @property
    def explanation(self) -> str:
        """The message, with what is wrong with which field where it does not say so itself."""
        unsaid = [v for v in self.field_violations if v.description not in self.message]
        if not unsaid:
            return self.message
        fields = "; ".join(f"{v.field} {v.description}" for v in unsaid)
        return f"{self.message.rstrip('.')} ({fields})."

    def __str__(self) -> str:
        return with_remedy(self.explanation, self.remedy)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.__dict__))


def _rebuild(kind: type[SoundHashError], fields: dict[str, object]) -> SoundHashError:
    error = kind(str(fields["message"]))
    error.__dict__.update(fields)
    return error


class InvalidArgument(SoundHashError):  # noqa: N818 - named after the status, as all below
    """The request, or the audio in it, cannot be used as it is."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(SoundHashError):  # noqa: N818
    """There is nothing with this id."""

    default_code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(SoundHashError):  # noqa: N818
    """Something else has this identifier."""

    default_code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(SoundHashError):  # noqa: N818
    """The thing asked about is in a state that does not allow it."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class OutOfRange(SoundHashError):  # noqa: N818
    """A position is past the end."""

    default_code = grpc.StatusCode.OUT_OF_RANGE


class ResourceExhausted(SoundHashError):  # noqa: N818
    """A limit is reached; with retry_after_s it is a passing one."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Aborted(SoundHashError):  # noqa: N818
    """Something else that is under way excludes this."""

    default_code = grpc.StatusCode.ABORTED


class Unavailable(SoundHashError):  # noqa: N818
    """The server cannot be reached (SERVER_UNREACHABLE) or cannot answer just now."""

    default_code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(SoundHashError):  # noqa: N818
    """There was no answer in time."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class Cancelled(SoundHashError):  # noqa: N818
    """The call was cancelled, by the caller or the server."""

    default_code = grpc.StatusCode.CANCELLED


class Unauthenticated(SoundHashError):  # noqa: N818
    """The server wants to know who calls."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(SoundHashError):  # noqa: N818
    """The caller may not do this."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class Unimplemented(SoundHashError):  # noqa: N818
    """The server does not know this call: it is older than the client."""

    default_code = grpc.StatusCode.UNIMPLEMENTED


class DataLoss(SoundHashError):  # noqa: N818
    """Stored data is damaged."""

    default_code = grpc.StatusCode.DATA_LOSS


class Internal(SoundHashError):  # noqa: N818
    """The server failed in a way that it should not have."""

    default_code = grpc.StatusCode.INTERNAL


_KINDS: Mapping[grpc.StatusCode, type[SoundHashError]] = {
    kind.default_code: kind
    for kind in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        OutOfRange,
        ResourceExhausted,
        Aborted,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        Unauthenticated,
        PermissionDenied,
        Unimplemented,
        DataLoss,
        Internal,
    )
}


@runtime_checkable
class _Failed(Protocol):
    """What the errors of grpc and of grpc.aio have in common."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def from_rpc_error(error: Exception, address: str) -> SoundHashError:
    """The typed form of a failed call to `address`, with all its google.rpc details.

    A status without details comes from gRPC itself, not from a SoundHash server; the common
    ones get a reason and a remedy here.
    """
    if not isinstance(error, _Failed):
        return Cancelled("The call was cancelled.")
    code, text = error.code(), error.details() or "The call failed."
    info: error_details_pb2.ErrorInfo | None = None
    violations: list[FieldViolation] = []
    retry_after_s: float | None = None
    resource: tuple[str, str] | None = None
    for detail in _details(error):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            request = error_details_pb2.BadRequest.FromString(detail.value)
            violations += [FieldViolation(v.field, v.description) for v in request.field_violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            retry_after_s = delay.seconds + delay.nanos / 1e9
        elif detail.Is(error_details_pb2.ResourceInfo.DESCRIPTOR):
            named = error_details_pb2.ResourceInfo.FromString(detail.value)
            resource = (named.resource_type, named.resource_name)
    if info is None:
        return _plain(code, text, address)
    metadata = dict(info.metadata)
    remedy = metadata.pop("remedy", "")
    return _KINDS.get(code, SoundHashError)(
        text,
        code=code,
        reason=info.reason,
        remedy=remedy,
        metadata=metadata,
        field_violations=tuple(violations),
        retry_after_s=retry_after_s,
        resource=resource,
    )


def _details(error: _Failed) -> list[AnyMessage]:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            return list(status_pb2.Status.FromString(value).details)
    return []


def _plain(code: grpc.StatusCode, text: str, address: str) -> SoundHashError:
    """The error for a status that gRPC itself has made."""
    kind = _KINDS.get(code, SoundHashError)
    if code is grpc.StatusCode.UNAVAILABLE:
        if any(sign in text for sign in ("failed to connect", "resolution", "resolving")):
            return kind(
                f"no server at {address}",
                reason="SERVER_UNREACHABLE",
                remedy="start one with `soundhash up`",
                metadata={"address": address},
            )
        return kind(
            f"The connection to {address} was lost: {text}",
            reason="CONNECTION_LOST",
            remedy="Try again.",
            metadata={"address": address},
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return kind(
            f"The server at {address} did not answer in time.",
            remedy="Try again, or allow more time.",
            metadata={"address": address},
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return kind(
            f"A message is larger than is allowed: {text}",
            reason="MESSAGE_TOO_LARGE",
            remedy="Send less at once.",
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return kind(
            f"The server at {address} does not know this call.",
            remedy="Check that it is a SoundHash server, as new as this client.",
            metadata={"address": address},
        )
    return kind(text, code=code)


def client_closed() -> SoundHashError:
    """A call on a client that is closed."""
    return FailedPrecondition(
        "The client is closed.",
        reason="CLIENT_CLOSED",
        remedy="Make a new one, or keep this one open for as long as it is used.",
    )


def job_not_finished(job_id: str, timeout_s: float | None) -> SoundHashError:
    """A wait for a job that ended before the job did."""
    within = "" if timeout_s is None else f" within {timeout_s:g} s"
    return DeadlineExceeded(
        f"The job {job_id} was not finished{within}.",
        reason="JOB_NOT_FINISHED",
        remedy="It goes on; look at it again, or wait longer.",
        metadata={"job": job_id},
    )
