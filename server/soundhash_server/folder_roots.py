"""Which folders may be scanned: those below SOUNDHASH_FOLDERS, links taken away."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.fetching.failures import REASONS


def resolve_roots(roots: Sequence[Path]) -> tuple[Path, ...]:
    """The folders that may be scanned as they are called without links. Blocks."""
    return tuple(Path(os.path.realpath(root)) for root in roots)


def resolve_folder(path: str, roots: Sequence[Path]) -> Path:
    """The folder without links; it lies below one of ``roots`` (see `resolve_roots`). Blocks.

    Raises PlatformError PERMISSION_DENIED (FOLDER_NOT_ALLOWED), NOT_FOUND (FOLDER_NOT_FOUND).
    """
    folder = Path(os.path.realpath(path))
    if not is_below(folder, roots):
        raise not_allowed(path)
    if not folder.is_dir():
        raise folder_not_found(path)
    return folder


def is_below(path: Path, roots: Sequence[Path]) -> bool:
    """Whether a path without links is one of ``roots`` or lies in one."""
    return any(path.is_relative_to(root) for root in roots)


def not_allowed(path: str) -> PlatformError:
    """PERMISSION_DENIED: the operator has not named the folder."""
    return PlatformError(
        ErrorKind.PERMISSION_DENIED,
        "FOLDER_NOT_ALLOWED",
        f"The folder {path} may not be scanned.",
        REASONS["FOLDER_NOT_ALLOWED"].remedy,
        metadata={"folder": path},
    )


def folder_not_found(path: str) -> PlatformError:
    """NOT_FOUND: there is no such folder on the machine that looks for it."""
    return PlatformError(
        ErrorKind.NOT_FOUND,
        "FOLDER_NOT_FOUND",
        f"There is no folder {path}.",
        REASONS["FOLDER_NOT_FOUND"].remedy,
        metadata={"folder": path},
    )


def folder_empty(path: str) -> PlatformError:
    """FAILED_PRECONDITION: nothing is where files were; perhaps a disk is not mounted."""
    return PlatformError(
        ErrorKind.FAILED_PRECONDITION,
        "FOLDER_EMPTY",
        f"The folder {path} held recordings and is empty now; nothing was deleted.",
        REASONS["FOLDER_EMPTY"].remedy,
        metadata={"folder": path},
    )
