"""Media on its way to the server: where the bytes come from and how they are cut."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Self

from soundhash import _convert
from soundhash._errors import InvalidArgument
from soundhash._types import Fingerprint, Video
from soundhash.v1 import fingerprint_pb2

Media = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""A path, the bytes themselves, or a binary file object."""

Comparable = Media | Fingerprint | Video | uuid.UUID
"""One side of a comparison; text in the form of a UUID is a video's id, other text a path."""

Progress = Callable[[int, int | None], object]
"""Called with the bytes sent so far and their total (None: unknown)."""

CHUNK_BYTES = 256 * 1024
MAX_CLIP_BYTES = 32 << 20
MAX_COMPARED_BYTES = 16 << 20
RESUMED_BYTES = 8 << 20
"""Uploads from this size on go on where they were cut; smaller ones begin anew."""


class MediaReader:
    """Reads media in chunks, from the start as often as the source allows.

    file_name: without folders; empty when there is none. size_bytes: None when unknown.
    rewindable: whether it can be read again. Closes only what it has opened itself.
    """

    def __init__(self, source: Media) -> None:
        self._own = True
        self.file_name = ""
        self._file: BinaryIO
        if isinstance(source, (str, os.PathLike)):
            self._file = open(source, "rb")  # noqa: SIM115, PTH123 - closed by __exit__
            self.file_name = _clean_name(os.fspath(source))
        elif isinstance(source, (bytes, bytearray, memoryview)):
            self._file = io.BytesIO(source)
        else:
            self._own = False
            self._file = source
            name = getattr(source, "name", None)
            self.file_name = _clean_name(name) if isinstance(name, str) else ""
        self.rewindable = self._file.seekable()
        self._start = self._file.tell() if self.rewindable else 0
        self.size_bytes: int | None = None
        if self.rewindable:
            self.size_bytes = self._file.seek(0, os.SEEK_END) - self._start
            self._file.seek(self._start)

    def rewind(self, offset: int = 0) -> None:
        """Goes back to where reading began, or so many bytes behind it. Only what is
        rewindable."""
        if self.rewindable:
            self._file.seek(self._start + offset)

    @property
    def large(self) -> bool:
        """Whether it can be read again and is large enough to go on where it was cut."""
        return self.size_bytes is not None and self.size_bytes >= RESUMED_BYTES

    def identity(self) -> str:
        """The SHA-256 of large media in lower-case hexadecimal, for which all of it is read;
        empty for others."""
        if not self.large:
            return ""
        self.rewind()
        digest = hashlib.sha256()
        while chunk := self.read(CHUNK_BYTES):
            digest.update(chunk)
        return digest.hexdigest()

    def read(self, n_bytes: int = CHUNK_BYTES) -> bytes:
        """The next bytes, at most this many; empty at the end."""
        return self._file.read(n_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._own:
            self._file.close()


def _clean_name(path: str) -> str:
    # Names that are no valid UTF-8 cannot travel; 255 characters are what the API takes.
    name = os.path.basename(path).encode("utf-8", "replace").decode()  # noqa: PTH119
    return name[-255:]


def read_clip(source: Media, limit_bytes: int = MAX_CLIP_BYTES) -> bytes:
    """All bytes of a clip.

    Raises InvalidArgument (CLIP_TOO_LARGE) above the limit, before anything is sent, and
    OSError when the file cannot be read.
    """
    content = bytearray()
    with MediaReader(source) as media:
        # Pipes give what is there, not what was asked for.
        while len(content) <= limit_bytes and (more := media.read(limit_bytes + 1)):
            content += more
    if len(content) > limit_bytes:
        raise InvalidArgument(
            f"The clip is larger than {limit_bytes >> 20} MiB.",
            reason="CLIP_TOO_LARGE",
            remedy="Send a part of it, or stream it (`stream`, `soundhash listen`).",
            metadata={"limit_bytes": str(limit_bytes)},
        )
    return bytes(content)


def comparison_side(side: Comparable) -> fingerprint_pb2.FingerprintSource | Media:
    """One side of a comparison as it is sent; or the media itself when it is too large to be
    sent whole and has to be fingerprinted first."""
    if isinstance(side, Fingerprint):
        return fingerprint_side(side)
    if isinstance(side, Video):
        return fingerprint_pb2.FingerprintSource(video_id=side.id)
    if isinstance(side, uuid.UUID) or (isinstance(side, str) and is_uuid(side)):
        return fingerprint_pb2.FingerprintSource(video_id=str(side))
    with MediaReader(side) as media:
        if media.size_bytes is not None and media.size_bytes > MAX_COMPARED_BYTES:
            return side
    return fingerprint_pb2.FingerprintSource(content=read_clip(side, MAX_COMPARED_BYTES))


def fingerprint_side(side: Fingerprint) -> fingerprint_pb2.FingerprintSource:
    """A fingerprint as one side of a comparison: a stored one without data by its video."""
    if side.video_id and not side.segments:
        return fingerprint_pb2.FingerprintSource(video_id=side.video_id)
    return fingerprint_pb2.FingerprintSource(fingerprint=_convert.to_fingerprint(side))


def is_uuid(text: str) -> bool:
    """Whether text has the usual form of a UUID."""
    if len(text) != 36:
        return False
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
