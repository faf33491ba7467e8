"""Volumes of the match index on disk: a folder of raw arrays with a manifest.

Volumes are a cache: whatever is wrong with one, the caller builds it again from the database.
A volume appears whole or not at all, and never changes afterwards.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from soundhash_server.locks import FileLock

FORMAT = 2
"""Of the manifest; volumes of another one are made again."""
MANIFEST = "manifest.json"
LOCK = "writer.lock"
_UNFINISHED = ".unfinished-"
_ARRAY_NAME = re.compile(r"[a-z0-9_]+")
_CHUNK_BYTES = 4 << 20


class VolumeDamaged(Exception):  # noqa: N818 - a condition of the volume
    """A volume is incomplete, changed, or of another format; the message says which."""


class WriterLock(FileLock):
    """The right to write volumes in a folder; ends with its holder."""


def try_writer_lock(directory: Path) -> WriterLock | None:
    """The right to write volumes in ``directory``; None while another process has it.

    Whoever gets it has removed what writers that died have left unfinished.
    """
    lock = WriterLock(directory / LOCK)
    if not lock.try_acquire():
        return None
    for left in directory.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    return lock


class _ArrayFile:
    """One array on its way to disk."""

    def __init__(self, path: Path, first: NDArray[Any]) -> None:
        if first.dtype.hasobject:
            raise ValueError("Object arrays cannot be saved")
        self.dtype = first.dtype
        self.tail = first.shape[1:]
        self.length = 0
        self.crc32 = 0
        self.file: IO[bytes] = path.open("wb", buffering=1 << 20)

    def append(self, part: NDArray[Any]) -> None:
        if part.dtype != self.dtype or part.shape[1:] != self.tail:
            raise ValueError("the parts of an array do not fit one another")
        data = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
        self.crc32 = zlib.crc32(data, self.crc32)
        self.file.write(data)
        self.length += len(part)

    def finish(self, cold: bool) -> dict[str, Any]:
        self.file.flush()
        os.fsync(self.file.fileno())
        if cold and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self.file.close()
        return {
            "dtype": self.dtype.str,
            "shape": [self.length, *self.tail],
            "crc32": self.crc32,
        }


class VolumeWriter:
    """Writes a volume part by part; it appears, durably and at once, with `finish`.

    A context manager: what is not finished when it ends leaves nothing. ``cold``: arrays that are
    not to stay in the system's memory once they are written. Raises OSError, FileExistsError when
    the volume exists.
    """

    def __init__(self, path: Path, cold: Collection[str] = ()) -> None:
        self._path = path
        self._cold = cold
        self._folder = path.parent / f"{_UNFINISHED}{uuid.uuid4().hex}"
        self._folder.mkdir(parents=True, mode=0o700)
        self._files: dict[str, _ArrayFile] = {}

    def append(self, name: str, part: NDArray[Any]) -> None:
        """The next part, of a plain (not object) type, of the array ``name`` of [a-z0-9_]."""
        if name not in self._files:
            if not _ARRAY_NAME.fullmatch(name):
                raise ValueError(f"not an array's name: {name!r}")
            self._files[name] = _ArrayFile(self._folder / f"{name}.bin", part)
        self._files[name].append(part)

    def finish(self, meta: Mapping[str, Any]) -> None:
        """Makes the volume appear. ``meta``: JSON."""
        files = {name: file.finish(name in self._cold) for name, file in self._files.items()}
        content = {"format": FORMAT, "meta": dict(meta), "files": files}
        manifest = {"crc32": _content_crc32(content), "volume": content}
        with (self._folder / MANIFEST).open("w", encoding="utf-8") as text:
            json.dump(manifest, text)
            text.flush()
            os.fsync(text.fileno())
        _sync_folder(self._folder)
        if self._path.exists():
            raise FileExistsError(self._path)
        self._folder.rename(self._path)
        _sync_folder(self._path.parent)

    def __enter__(self) -> VolumeWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            # What has failed to be written fails again; the folder goes anyway.
            with contextlib.suppress(OSError):
                file.file.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def save(path: Path, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes a volume of whole arrays."""
    with VolumeWriter(path) as writer:
        for name, array in arrays.items():
            writer.append(name, array)
        writer.finish(meta)


def remove(path: Path) -> None:
    """Removes a volume at once: nobody sees a part of it. Mapped arrays stay valid."""
    gone = path.parent / f"{_UNFINISHED}{uuid.uuid4().hex}"
    with contextlib.suppress(OSError):
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def open(
    path: Path, *, checked: Collection[str] = (), scattered: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Meta and memory-mapped read-only arrays of a volume.

    Compares the manifest, the files' sizes and the contents of the arrays ``checked`` with their
    checksums; `verify` compares the rest. ``scattered``: arrays that are read here and there, so
    that reading ahead would fill memory for nothing. The arrays stay valid when the volume's
    files are removed. Raises VolumeDamaged.
    """
    with _damage(path):
        content = _read_manifest(path)
        arrays = {}
        for name, expected in content["files"].items():
            if name in checked:
                for _ in _verify_file(path, name, expected):
                    pass
            arrays[name] = _map(path, name, expected, name in scattered)
        return dict(content["meta"]), arrays


def verify(path: Path, *, bytes_per_s: float = math.inf) -> Iterator[int]:
    """Compares every file of a volume with its checksum, step by step.

    Yields how many bytes each step has read, and reads no faster than ``bytes_per_s``. Raises
    VolumeDamaged.
    """
    with _damage(path):
        files = _read_manifest(path)["files"]
        begun, done = time.monotonic(), 0
        for name in files:
            for size in _verify_file(path, name, files[name]):
                done += size
                yield size
                time.sleep(max(0.0, begun + done / bytes_per_s - time.monotonic()))


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VolumeDamaged(f"{path.name}: {type(error).__name__}: {error}") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    content: dict[str, Any] = manifest["volume"]
    if manifest["crc32"] != _content_crc32(content):
        raise VolumeDamaged(f"{path.name}: the manifest was changed")
    if content["format"] != FORMAT:
        raise VolumeDamaged(f"{path.name}: format {content['format']}, not {FORMAT}")
    return content


def _content_crc32(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _array_path(path: Path, name: str, expected: Mapping[str, Any]) -> Path:
    file = path / f"{name}.bin"
    size = math.prod(expected["shape"]) * np.dtype(expected["dtype"]).itemsize
    if not _ARRAY_NAME.fullmatch(name) or file.stat().st_size != size:
        raise VolumeDamaged(f"{path.name}: {name} has another size")
    return file


def _verify_file(path: Path, name: str, expected: Mapping[str, Any]) -> Iterator[int]:
    value = 0
    with _array_path(path, name, expected).open("rb", buffering=0) as data:
        while chunk := data.read(_CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
            yield len(chunk)
    if value != expected["crc32"]:
        raise VolumeDamaged(f"{path.name}: {name} was changed")


def _map(path: Path, name: str, expected: Mapping[str, Any], scattered: bool) -> NDArray[Any]:
    shape, dtype = tuple(expected["shape"]), np.dtype(expected["dtype"])
    file = _array_path(path, name, expected)
    if not math.prod(shape):
        empty = np.empty(shape, dtype)
        empty.flags.writeable = False
        return empty
    with file.open("rb") as data:
        mapped = mmap.mmap(data.fileno(), 0, access=mmap.ACCESS_READ)
    if scattered:
        mapped.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(mapped, dtype).reshape(shape)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        # Some file systems cannot; the rename itself is atomic all the same.
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)
