"""Failures to gRPC statuses with google.rpc details; nothing else crosses the border."""

from __future__ import annotations

import errno

import asyncpg
import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from soundhash_engine.errors import EngineError
from soundhash_server.errors import ErrorKind, PlatformError, from_engine

DOMAIN = "soundhash"
_MAX_MESSAGE_CHARS = 400
_MAX_VALUE_CHARS = 256
_MAX_VIOLATIONS = 16
_MAX_DETAILS_BYTES = 3000
"""Details travel in the trailers, for which clients accept 8 KiB by default; a message is in
them twice, once percent-encoded."""


def to_platform_error(error: BaseException) -> PlatformError | None:
    """The failure as the caller may see it, or None for one that nobody foresaw."""
    if isinstance(error, PlatformError):
        return error
    if isinstance(error, EngineError):
        return from_engine(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PlatformError(
            ErrorKind.RESOURCE_EXHAUSTED,
            "DISK_FULL",
            "The server's disk is full.",
            "Free space on the server's data directory, then try again.",
        )
    if isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError)):
        transient = isinstance(
            error,
            (
                asyncpg.PostgresConnectionError,
                asyncpg.InterfaceError,
                asyncpg.OperatorInterventionError,
                asyncpg.InsufficientResourcesError,
                asyncpg.TransactionRollbackError,
            ),
        )
        if transient:
            return PlatformError(
                ErrorKind.UNAVAILABLE,
                "DATABASE_UNAVAILABLE",
                "The database does not answer.",
                "Try again; if it lasts, see whether PostgreSQL runs.",
                retry_after_s=1.0,
            )
    return None


def unforeseen(error_id: str) -> PlatformError:
    """What a caller is told about a failure that nobody foresaw: an id to find it in the log."""
    return PlatformError(
        ErrorKind.INTERNAL,
        "INTERNAL",
        f"The server failed in a way that it should not have (error {error_id}).",
        "Try again; if it lasts, report the error's id.",
        metadata={"error_id": error_id},
    )


def to_status(error: PlatformError, request_id: str) -> grpc.Status:
    """A rich status: one ErrorInfo, and what else google.rpc has for the kind of failure."""
    message = _shortened(error.message, _MAX_MESSAGE_CHARS)
    metadata = {k: _shortened(v, _MAX_VALUE_CHARS) for k, v in error.metadata.items()}
    metadata |= {"remedy": _shortened(error.remedy, _MAX_VALUE_CHARS), "request_id": request_id}
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    ]
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.violations:
        listed = list(error.violations.items())[:_MAX_VIOLATIONS]
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=field, description=_shortened(text, _MAX_VALUE_CHARS)
                    )
                    for field, text in listed
                ]
            )
        )
    if error.kind is ErrorKind.RESOURCE_EXHAUSTED:
        details.append(
            error_details_pb2.QuotaFailure(
                violations=[
                    error_details_pb2.QuotaFailure.Violation(
                        subject=error.reason, description=message
                    )
                ]
            )
        )
    if error.resource is not None:
        kind, name = error.resource
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=kind, resource_name=_shortened(name, _MAX_VALUE_CHARS)
            )
        )
    while sum(detail.ByteSize() for detail in details) > _MAX_DETAILS_BYTES and len(details) > 1:
        details.pop()
    packed = []
    for detail in details:
        wrapper = any_pb2.Any()
        wrapper.Pack(detail)
        packed.append(wrapper)
    status = status_pb2.Status(
        code=code_pb2.Code.Value(error.kind.value), message=message, details=packed
    )
    rich: grpc.Status = rpc_status.to_status(status)
    return rich


def _shortened(text: str, chars: int) -> str:
    """At most so many characters, and twice as many bytes."""
    if len(text) > chars or len(text.encode()) > 2 * chars:
        return text.encode()[: 2 * chars].decode(errors="ignore")[: chars - 1] + "…"
    return text
