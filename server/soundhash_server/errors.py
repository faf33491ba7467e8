"""The one error type of the platform, and its stable reasons.

Services and stores raise PlatformError; the rpc layer alone turns it into a gRPC
status with google.rpc details. Messages never hold secrets, paths or tracebacks.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the engine is heavy, and commands that never need it import this
    from soundhash_engine.errors import EngineError


class ErrorKind(enum.Enum):
    """What went wrong, in the terms of google.rpc.Code."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    ABORTED = "ABORTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


class PlatformError(Exception):
    """A failure that the caller is told about.

    kind: class of the failure. reason: stable, UPPER_SNAKE. message: what happened, one
    sentence. remedy: what to do about it. retry_after_s: set when trying again can help.
    metadata: every variable of the message, as text. resource: (type, name) for NOT_FOUND
    and ALREADY_EXISTS. violations: field path -> what it must be.
    """

    def __init__(
        self,
        kind: ErrorKind,
        reason: str,
        message: str,
        remedy: str,
        *,
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        resource: tuple[str, str] | None = None,
        violations: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.reason = reason
        self.message = message
        self.remedy = remedy
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})
        self.resource = resource
        self.violations = dict(violations or {})


def not_found(resource_type: str, name: str) -> PlatformError:
    """NOT_FOUND for a resource: reason VIDEO_NOT_FOUND for type "video", and so on."""
    return PlatformError(
        ErrorKind.NOT_FOUND,
        f"{resource_type.upper()}_NOT_FOUND",
        f"There is no {resource_type} {name}.",
        f"List the {resource_type}s to see which exist.",
        metadata={resource_type: name},
        resource=(resource_type, name),
    )


def draining() -> PlatformError:
    """UNAVAILABLE: this server ends."""
    return PlatformError(
        ErrorKind.UNAVAILABLE,
        "SERVER_DRAINING",
        "This server is shutting down.",
        "Try again; another server or the restarted one will answer.",
        retry_after_s=1.0,
    )


_PRECONDITIONS = frozenset({"PARAMS_MISMATCH"})


def from_engine(error: EngineError) -> PlatformError:
    """The caller's audio cannot be used: INVALID_ARGUMENT, or FAILED_PRECONDITION for
    fingerprints of other parameters; the engine's reason and remedy are kept."""
    kind = (
        ErrorKind.FAILED_PRECONDITION
        if error.reason in _PRECONDITIONS
        else ErrorKind.INVALID_ARGUMENT
    )
    return PlatformError(kind, error.reason, error.message, error.remedy)
