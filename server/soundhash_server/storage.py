"""Object storage: S3 and what speaks like it, Google, Azure, or a folder, through obstore.

Credentials, regions and endpoints come from the environment, under the names that each service's
own tools use (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``,
``AZURE_STORAGE_ACCOUNT_NAME``, ...). Nothing of them is in a message or a log line.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog

from soundhash_server.errors import ErrorKind, PlatformError, not_found
from soundhash_server.settings import Settings, SettingsError

if TYPE_CHECKING:  # a large library, for those who keep audio only
    from obstore.store import ObjectStore

PART_BYTES = 8 << 20
"""Large objects are sent in parts of this size, some at once."""
_PARTS_AT_ONCE = 3
MAX_SIGNED_S = 7 * 24 * 3600.0
"""What S3 allows."""
_TRIES = 3
_TRY_FOR_S = 60.0
_REQUEST_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 5.0
_KEY = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*\.[a-z0-9]{1,8}")
_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "file", "memory")
_ALLOW_HTTP = ("AWS_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP", "AZURE_ALLOW_HTTP")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_FORMS = "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder"
_STATUS = re.compile(r"status code: (\d{3})")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_PASSING_OS_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it was stored."""

    size_bytes: int
    content_sha256: str


def open_storage(settings: Settings) -> Storage | None:
    """The storage of the settings; None when audio is not kept.

    Nothing is connected to yet. Raises SettingsError (STORAGE_URL_INVALID) for an address of no
    known form, or one that lacks what its service needs.
    """
    return Storage(settings.storage_url) if settings.storage_url else None


class Storage:
    """One place for objects. Any number of tasks may use it.

    Keys are parts of letters, digits, ``_`` and ``-`` between slashes, with an ending. Every
    method raises PlatformError: STORAGE_UNAVAILABLE (UNAVAILABLE), STORAGE_REFUSED
    (FAILED_PRECONDITION).
    """

    def __init__(self, url: str) -> None:
        self.name, self._folder = _parse(url)
        self._store: ObjectStore = _connect(url)

    @property
    def signs(self) -> bool:
        """Whether it can hand out addresses to download from."""
        return urlsplit(self.name).scheme not in ("file", "memory")

    async def put(
        self,
        key: str,
        file: Path,
        content_type: str,
        *,
        head: bytes = b"",
        start: int = 0,
        size: int | None = None,
    ) -> Stored:
        """Stores ``head`` and then a file's ``size`` bytes (None: all) from ``start`` on.

        An object is there as a whole or not at all. What is counted is what is sent: the digest
        is that of the bytes as they were read. Raises OSError for the file.
        """
        _check_key(key)
        if size is None:
            size = (await asyncio.to_thread(file.stat)).st_size - start
        source = _Source(file, head, start, size)
        with _translated("put", key, missing_is_gone=False):
            import obstore  # noqa: PLC0415 - large

            try:
                await obstore.put_async(
                    self._store,
                    key,
                    await source.whole() if source.is_small else source.parts(),
                    attributes={} if self._folder else {"Content-Type": content_type},
                    chunk_size=PART_BYTES,
                    max_concurrency=_PARTS_AT_ONCE,
                )
            except BaseException:
                if source.error is not None:
                    raise _ReadError(source.error) from None
                raise
        return source.stored

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """An object's bytes, in parts. Raises PlatformError NOT_FOUND (OBJECT_NOT_FOUND)."""
        _check_key(key)
        with _translated("get", key):
            import obstore  # noqa: PLC0415 - large

            try:
                found = await obstore.get_async(self._store, key)
            except FileNotFoundError:
                raise not_found("object", key) from None
            async for part in found.stream(min_chunk_size=1 << 20):
                yield bytes(part)

    async def delete(self, key: str) -> None:
        """Deletes an object, and what a killed process has left of it; it need not be there."""
        _check_key(key)
        with _translated("delete", key):
            import obstore  # noqa: PLC0415 - large

            await obstore.delete_async(self._store, key)
        if self._folder is not None:
            await asyncio.to_thread(_clean_up, self._folder, key)

    async def sign(self, keys: list[str], for_s: float) -> list[str]:
        """Addresses from which objects can be downloaded for so long, at most MAX_SIGNED_S.

        Raises PlatformError FAILED_PRECONDITION (SIGNING_NOT_SUPPORTED) where there is no such
        thing: for folders.
        """
        if not self.signs:
            raise PlatformError(
                ErrorKind.FAILED_PRECONDITION,
                "SIGNING_NOT_SUPPORTED",
                "Audio is kept in a folder, which has no addresses to download from.",
                "Ask without download addresses; serve the folder yourself, or use S3, Google "
                "or Azure storage.",
            )
        if not keys:
            return []
        with _translated("sign", keys[0]):
            import obstore  # noqa: PLC0415 - large

            store: Any = self._store
            return list(
                await obstore.sign_async(store, "GET", keys, expires_in=timedelta(seconds=for_s))
            )


class _ReadError(Exception):
    """The local file could not be read: not the storage's fault."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Source:
    """The bytes of an object on their way, counted."""

    def __init__(self, file: Path, head: bytes, start: int, size: int) -> None:
        self._file = file
        self._head = head
        self._start = start
        self._left = size
        self._hash = hashlib.sha256()
        self._size_bytes = 0
        self.error: OSError | None = None

    @property
    def stored(self) -> Stored:
        return Stored(self._size_bytes, self._hash.hexdigest())

    @property
    def is_small(self) -> bool:
        """Whether it goes in one request."""
        return len(self._head) + self._left <= PART_BYTES

    async def whole(self) -> bytes:
        return b"".join([part async for part in self.parts()])

    async def parts(self) -> AsyncIterator[bytes]:
        try:
            with await asyncio.to_thread(self._file.open, "rb") as file:
                file.seek(self._start)
                part = self._head
                while True:
                    wanted = min(PART_BYTES - len(part), self._left)
                    read = await asyncio.to_thread(file.read, wanted) if wanted else b""
                    if wanted and not read:
                        raise OSError("the file is shorter than it was")
                    self._left -= len(read)
                    part += read
                    if not part:
                        return
                    await asyncio.to_thread(self._hash.update, part)
                    self._size_bytes += len(part)
                    yield part
                    part = b""
        except OSError as error:
            self.error = error
            raise


def _parse(url: str) -> tuple[str, Path | None]:
    """The name of a storage, and its folder if it is one."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _invalid("is no URL") from None
    if parts.scheme not in _SCHEMES:
        raise _invalid(f"has the scheme {parts.scheme[:16]!r}")
    if parts.username is not None or parts.password is not None or parts.query:
        raise _invalid("holds credentials or options")
    if parts.scheme == "file":
        if parts.netloc or not parts.path.strip("/"):
            raise _invalid("names no folder")
        return f"file://{parts.path.rstrip('/')}", Path(parts.path)
    if parts.scheme != "memory" and not parts.netloc:
        raise _invalid("names no bucket")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", None


def _connect(url: str) -> ObjectStore:
    from obstore.exceptions import BaseError  # noqa: PLC0415 - large
    from obstore.store import LocalStore, from_url  # noqa: PLC0415 - large

    scheme = urlsplit(url).scheme
    try:
        if scheme == "file":
            return LocalStore(urlsplit(url).path, mkdir=True)
        if scheme == "memory":
            return from_url(url)
        plain = any(os.environ.get(name, "").lower() in ("1", "true") for name in _ALLOW_HTTP)
        plain = plain or any(os.environ.get(n, "").startswith("http://") for n in _ENDPOINTS)
        return from_url(
            url,
            client_options={
                "timeout": timedelta(seconds=_REQUEST_TIMEOUT_S),
                "connect_timeout": timedelta(seconds=_CONNECT_TIMEOUT_S),
                # Only where the operator has said so.
                "allow_http": plain,
            },
            retry_config={
                "max_retries": _TRIES - 1,
                "retry_timeout": timedelta(seconds=_TRY_FOR_S),
            },
        )
    except (BaseError, ValueError, OSError) as error:
        # The first line says it; what follows are internals.
        raise _invalid(f"cannot be used ({_first_line(error)})") from None


def _invalid(what: str) -> SettingsError:
    return SettingsError(
        f"SOUNDHASH_STORAGE_URL {what}; it must be {_FORMS}, with credentials in the service's "
        "own variables (AWS_*, GOOGLE_*, AZURE_*). STORAGE_URL_INVALID"
    )


def _check_key(key: str) -> None:
    # Keys are made by us; this is the last line of defence for folders.
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a key: {key!r}")


def _clean_up(folder: Path, key: str) -> None:
    """A put that was killed leaves KEY#1 and the like."""
    path = folder / key
    for left in path.parent.glob(f"{path.name}#*"):
        left.unlink(missing_ok=True)


@contextmanager
def _translated(what: str, key: str, *, missing_is_gone: bool = True) -> Iterator[None]:
    from obstore.exceptions import (  # noqa: PLC0415 - large
        BaseError,
        GenericError,
        JoinError,
    )

    try:
        yield
    except _ReadError as error:
        raise error.cause from None
    except FileNotFoundError as error:
        if missing_is_gone:
            return
        log.warning("object storage refuses", what=what, key=key, why="not found")
        raise _refused() from error
    except BaseError as error:
        why = _first_line(error)
        passing = isinstance(error, (GenericError, JoinError)) and _passes(str(error))
        log.warning("object storage fails", what=what, key=key, why=why, passing=passing)
        raise (unavailable() if passing else _refused()) from None


def _passes(text: str) -> bool:
    """Whether a failure may be gone by itself: no answer, a busy or broken server, a full disk."""
    if status := _STATUS.search(text):
        return status[1] in ("408", "429") or status[1] >= "500"
    if number := _OS_ERROR.search(text):
        # Of a folder; a lost connection has a number, too.
        return "LocalFileSystem" not in text or int(number[1]) in _PASSING_OS_ERRORS
    return True


def _first_line(error: Exception) -> str:
    """What happened, without addresses: they may hold more than they should."""
    line = str(error).split("\n", 1)[0]
    return re.sub(r"https?://\S+", "", line)[:200]


def unavailable() -> PlatformError:
    """STORAGE_UNAVAILABLE."""
    return PlatformError(
        ErrorKind.UNAVAILABLE,
        "STORAGE_UNAVAILABLE",
        "The object storage does not answer.",
        "Wait; if it lasts, see whether the storage of SOUNDHASH_STORAGE_URL can be reached.",
        retry_after_s=1.0,
    )


def _refused() -> PlatformError:
    return PlatformError(
        ErrorKind.FAILED_PRECONDITION,
        "STORAGE_REFUSED",
        "The object storage refuses: the bucket is not there, or its key may not be used so.",
        "Check the bucket, region and credentials of SOUNDHASH_STORAGE_URL, then retry the jobs "
        "that failed for this reason.",
    )
