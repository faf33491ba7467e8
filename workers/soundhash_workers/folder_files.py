"""Looks into files of a folder: whether they are media, and what their bytes are."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import PurePosixPath

from soundhash_server.fetching.failures import JobError
from soundhash_workers.children import converse
from soundhash_workers.folder_walk import Found

PROBE_STALL_S = 30.0
_READ_BYTES = 1 << 20
_HEAD_BYTES = 16
# fmt: off
_ENDINGS = frozenset({
    ".3gp", ".aac", ".ac3", ".aif", ".aiff", ".amr", ".ape", ".asf", ".avi", ".caf", ".flac",
    ".flv", ".m2ts", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4",
    ".mpeg", ".mpg", ".mts", ".mxf", ".oga", ".ogg", ".ogv", ".opus", ".vob", ".wav", ".webm",
    ".wma", ".wmv", ".wv",
})
# fmt: on
_MAGIC = (b"RIFF", b"RF64", b"OggS", b"fLaC", b"ID3", b"\x1aE\xdf\xa3", b"caff", b"wvpk")

NOT_MEDIA = "NOT_MEDIA"


class FileMoves(Exception):  # noqa: N818 - a condition, not a mistake
    """The file is being written, or another one than was found."""


def sort_out(files: Sequence[Found], cancel: threading.Event) -> list[tuple[str, str]]:
    """For each file ("", "") when there is sound in it, (NOT_MEDIA, "") for what does not even
    claim to be media, else (reason, message). Blocks.

    A file that hangs or crashes the decoder costs itself alone. Raises ChildCancelled.
    """
    found: list[tuple[str, str]] = []
    while len(found) < len(files):
        paths = [file.path for file in files[len(found) :]]
        left = len(paths)
        try:
            talk = converse(_run_child, (paths,), cancel=cancel, stall_s=PROBE_STALL_S)
            with closing(talk):
                for answer in talk:
                    found.append(answer)
                    left -= 1
                    if not left:
                        break
        except JobError as error:
            found.append((error.failure.reason, error.failure.message))
    return [
        (NOT_MEDIA, "") if reason and not _claims(file, reason) else (reason, message)
        for file, (reason, message) in zip(files, found, strict=True)
    ]


def digest_of(file: Found, cancel: threading.Event) -> str:
    """The SHA-256 of its bytes, in lower-case hexadecimal. Blocks.

    Raises FileMoves when it is not the file that was found, or changes; OSError.
    """
    digest = hashlib.sha256()
    # A pipe that has taken its place must not be waited for.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        number = os.open(file.path, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR):
            raise FileMoves from None
        raise
    try:
        _check_same(file, number)
        while part := os.read(number, _READ_BYTES):
            if cancel.is_set():
                raise FileMoves
            digest.update(part)
        _check_same(file, number)
    finally:
        os.close(number)
    return digest.hexdigest()


def _check_same(file: Found, number: int) -> None:
    status = os.fstat(number)
    if not file.is_as(status.st_size, status.st_mtime_ns) or not stat.S_ISREG(status.st_mode):
        raise FileMoves


def _claims(file: Found, reason: str) -> bool:
    """Whether a file that is no usable media looks as if it should be."""
    if reason in ("FILE_GONE", "FILE_UNREADABLE"):
        return True
    if PurePosixPath(file.name).suffix.lower() in _ENDINGS:
        return True
    try:
        with open(file.path, "rb", buffering=0, opener=_opener) as opened:
            head = opened.read(_HEAD_BYTES) or b""
    except OSError:
        return True
    return head.startswith(_MAGIC) or head[4:8] == b"ftyp"


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _run_child(answers: Connection, paths: Sequence[str]) -> None:
    # Loaded where the children are forked from, not in the worker itself.
    from soundhash_workers.folder_child import run  # noqa: PLC0415

    run(answers, paths)
