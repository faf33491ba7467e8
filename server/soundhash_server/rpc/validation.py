"""The rules that stand in the protos, enforced on every message that comes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import protovalidate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from soundhash_server.errors import ErrorKind, PlatformError

M = TypeVar("M", bound=Message)

_VALIDATOR = protovalidate.Validator()
_NUL = "must not hold NUL characters"


def invalid_request(violations: dict[str, str]) -> PlatformError:
    """INVALID_ARGUMENT that names each field and what it must be."""
    listed = "; ".join(f"{field}: {text}" for field, text in violations.items())
    return PlatformError(
        ErrorKind.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        f"The request is not valid: {listed}.",
        "Correct the named fields.",
        violations=violations,
    )


def parse(deserialize: Callable[[bytes], M], data: bytes) -> M:
    """Reads a message and checks it. Raises PlatformError INVALID_ARGUMENT."""
    try:
        message = deserialize(data)
    except DecodeError:
        raise PlatformError(
            ErrorKind.INVALID_ARGUMENT,
            "MALFORMED_MESSAGE",
            "The bytes are not the message that this method takes.",
            "Send the message that soundhash.v1 defines for this method.",
        ) from None
    check(message)
    return message


def check(message: Message) -> None:
    """Raises PlatformError INVALID_ARGUMENT when a rule is broken."""
    violations: dict[str, str] = {}
    for violation in _VALIDATOR.collect_violations(message):
        violations.setdefault(_path(violation), violation.proto.message)
    if not violations:
        # PostgreSQL's text has no NUL, and no name or address needs one.
        violations = dict.fromkeys(_fields_with_nul(message), _NUL)
    if violations:
        raise invalid_request(violations)


def _path(violation: protovalidate.Violation) -> str:
    field = violation.proto.field
    if field is None:
        return ""
    parts: list[str] = []
    for element in field.elements:
        name = element.field_name
        if element.subscript is not None:
            name += f"[{element.subscript.value}]"
        parts.append(name)
    return ".".join(parts)


def _fields_with_nul(message: Message, prefix: str = "") -> list[str]:
    found: list[str] = []
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        for item in values:
            if field.type == FieldDescriptor.TYPE_STRING and "\0" in item:
                found.append(prefix + field.name)
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                found += _fields_with_nul(item, f"{prefix}{field.name}.")
    return found
