"""Volumes of the match index on disk: a folder of raw arrays with a manifest.

Volumes are a cache: whatever is wrong with one, the caller builds it again from the database.
A volume appears whole or not at all, and never changes afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundhash_server.locks import FileLock

FORMAT = 1
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


def save(path: Path, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes a volume as the folder ``path``, durably and at once.

    meta: JSON. arrays: of plain (not object) types, by names of [a-z0-9_]. Raises OSError,
    FileExistsError when the volume exists.
    """
    unfinished = path.parent / f"{_UNFINISHED}{uuid.uuid4().hex}"
    unfinished.mkdir(parents=True, mode=0o700)
    try:
        files = {}
        for name, array in arrays.items():
            if not _ARRAY_NAME.fullmatch(name):
                raise ValueError(f"not an array's name: {name!r}")
            file = unfinished / f"{name}.npy"
            with file.open("wb") as out:
                np.save(out, np.ascontiguousarray(array), allow_pickle=False)
                out.flush()
                os.fsync(out.fileno())
            files[name] = {"bytes": file.stat().st_size, "crc32": _crc32(file)}
        manifest = {"format": FORMAT, "meta": dict(meta), "files": files}
        with (unfinished / MANIFEST).open("w", encoding="utf-8") as text:
            json.dump(manifest, text)
            text.flush()
            os.fsync(text.fileno())
        _sync_folder(unfinished)
        if path.exists():
            raise FileExistsError(path)
        unfinished.rename(path)
        _sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def open(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Meta and memory-mapped read-only arrays of a volume.

    Every file is read once and compared with the manifest's checksums. The arrays stay valid
    when the volume's files are removed. Raises VolumeDamaged.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise VolumeDamaged(f"{path.name}: format {manifest['format']}, not {FORMAT}")
        arrays = {}
        for name, expected in manifest["files"].items():
            file = path / f"{name}.npy"
            if not _ARRAY_NAME.fullmatch(name) or file.stat().st_size != expected["bytes"]:
                raise VolumeDamaged(f"{path.name}: {name} has another size")
            if _crc32(file) != expected["crc32"]:
                raise VolumeDamaged(f"{path.name}: {name} was changed")
            arrays[name] = np.load(file, allow_pickle=False, mmap_mode="r")
        return dict(manifest["meta"]), arrays
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VolumeDamaged(f"{path.name}: {type(error).__name__}: {error}") from error


def _crc32(file: Path) -> int:
    value = 0
    with file.open("rb", buffering=0) as data:
        while chunk := data.read(_CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
    return value


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        # Some file systems cannot; the rename itself is atomic all the same.
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)
