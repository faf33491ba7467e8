"""What lies in a folder on disk: regular files, by name, size and time; nothing is read."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from soundhash_server.folder_roots import is_below
from soundhash_server.paths import path_to_text

EMPTY_MARK = ".soundhash-empty"
"""A file of this name in a folder says that it is empty on purpose."""
_PARTIAL_ENDINGS = (
    ".part", ".partial", ".crdownload", ".download", ".aria2", ".ytdl", ".opdownload", ".tmp",
    ".temp", ".!ut", ".!qb", ".bc!", ".filepart", "~",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file. ``path``: to open it by, without links. ``name``: below the folder, as text.
    ``change_s``: when it was last changed in any way."""

    path: str
    name: str
    size_bytes: int
    mtime_ns: int
    change_s: float

    def is_as(self, size_bytes: int, mtime_ns: int) -> bool:
        """Whether it looks as it did when it had this size and time."""
        return (self.size_bytes, self.mtime_ns) == (size_bytes, mtime_ns)


@dataclass(frozen=True, slots=True)
class Problem:
    """A file or folder that cannot be read, and why."""

    name: str
    reason: str
    message: str


@dataclass(slots=True)
class Walk:
    """What was found, in the order of the names."""

    files: list[Found] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unread_folders: list[str] = field(default_factory=list)
    """Names of folders that could not be listed: what they hold is not known."""
    others: int = 0
    """Things that are no files to look at: pipes, devices, links that lead nowhere."""
    empty_on_purpose: bool = False

    def is_unread(self, name: str) -> bool:
        """Whether it lies in a folder that could not be listed."""
        return any(name.startswith(f"{folder}/") for folder in self.unread_folders)


class WalkCancelled(Exception):  # noqa: N818 - no error
    """`cancel` was set."""


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name (without folders) is hidden, or a download that is
    under way."""
    return name.startswith(".") or name.lower().endswith(_PARTIAL_ENDINGS)


def walk(root: Path, allowed: Sequence[Path], cancel: threading.Event) -> Walk:
    """Everything below ``root``, which is without links itself. Blocks.

    Links to folders are not followed (they may form a circle), links to files are, when they
    lead to a file below ``allowed``. Raises OSError when the root itself cannot be listed.
    """
    found = Walk(empty_on_purpose=(root / EMPTY_MARK).exists())
    pending = [(str(root), "")]
    while pending:
        folder, prefix = pending.pop()
        if cancel.is_set():
            raise WalkCancelled
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except FileNotFoundError:
            if not prefix:
                raise
            continue  # gone meanwhile
        except OSError as error:
            if not prefix:
                raise
            name = prefix.rstrip("/")
            found.unread_folders.append(name)
            found.problems.append(Problem(name, "FILE_UNREADABLE", _why(error)))
            continue
        below = []
        for entry in entries:
            if is_ignored(entry.name):
                continue
            name = prefix + path_to_text(entry.name)
            try:
                if entry.is_dir(follow_symlinks=False):
                    below.append((entry.path, f"{name}/"))
                else:
                    _look_at(found, entry, name, allowed)
            except FileNotFoundError:
                continue
            except OSError as error:
                found.problems.append(Problem(name, "FILE_UNREADABLE", _why(error)))
        pending += reversed(below)
    return found


def _look_at(found: Walk, entry: os.DirEntry[str], name: str, allowed: Sequence[Path]) -> None:
    path = entry.path
    if entry.is_symlink():
        try:
            path = os.path.realpath(path, strict=True)
        except OSError:  # to nowhere, or in a circle
            found.others += 1
            return
        if Path(path).is_dir():
            found.others += 1
            return
        if not is_below(Path(path), allowed):
            message = "The link leads out of the folders that may be scanned."
            found.problems.append(Problem(name, "FILE_NOT_ALLOWED", message))
            return
        status = Path(path).lstat()
    else:
        status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        found.others += 1
        return
    size_bytes, mtime_ns = status.st_size, status.st_mtime_ns
    found.files.append(Found(path, name, size_bytes, mtime_ns, status.st_ctime))


def _why(error: OSError) -> str:
    return f"It cannot be read: {error.strerror or type(error).__name__}."
