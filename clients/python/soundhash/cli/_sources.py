"""What `ingest` is pointed at: files, folders and URLs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# fmt: off
MEDIA_ENDINGS = frozenset({
    ".3g2", ".3gp", ".aac", ".ac3", ".aif", ".aiff", ".amr", ".ape", ".asf", ".au", ".avi",
    ".caf", ".dts", ".eac3", ".f4v", ".flac", ".flv", ".gsm", ".m2ts", ".m4a", ".m4b", ".m4v",
    ".mka", ".mkv", ".mov", ".mp1", ".mp2", ".mp3", ".mp4", ".mpc", ".mpe", ".mpeg", ".mpg",
    ".mts", ".mxf", ".oga", ".ogg", ".ogm", ".ogv", ".opus", ".ra", ".rm", ".rmvb", ".spx",
    ".tak", ".tta", ".ts", ".vob", ".w64", ".wav", ".webm", ".wma", ".wmv", ".wv",
})
# fmt: on
"""Endings of files that a folder is searched for; a file that is named itself is always sent."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(text: str) -> bool:
    """Whether a source is a URL and no file; which schemes are fetched the server judges."""
    return _URL.match(text) is not None


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One recording to ingest, or why it is none.

    text: as given, or the path below the folder that was given. path: of a file; None for a
    URL. problem: (reason, message, remedy) of what cannot even be tried. search: whether the
    text is words to search for. The same source given twice is two.
    """

    text: str
    path: Path | None = None
    problem: tuple[str, str, str] | None = None
    search: bool = False


def expand(texts: list[str]) -> Iterator[Source]:
    """Every recording behind the sources, in order; folders recursively, sorted by name.

    Hidden files and folders are passed over, and so are links to folders (they may form a
    circle). Every URL is left to the server to judge.
    """
    for text in texts:
        if is_url(text):
            yield Source(text)
            continue
        path = Path(text)
        if path.is_dir():
            files = list(_media_files(path))
            if not files:
                yield Source(
                    text,
                    problem=(
                        "NO_MEDIA_FOUND",
                        "The folder holds no media files.",
                        "Name files of other endings one by one.",
                    ),
                )
            yield from (Source(str(file), file) for file in files)
        elif path.exists():
            yield Source(text, path)
        else:
            yield Source(
                text,
                problem=(
                    "FILE_NOT_FOUND",
                    "There is no such file or folder.",
                    f"Channels are added with `soundhash channels add {text}`."
                    if text.startswith("@")
                    else "Check the path; a URL begins with https:// or http://.",
                ),
            )


def _media_files(folder: Path) -> Iterator[Path]:
    for name, folders, files in os.walk(folder):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for file in sorted(files):
            path = Path(name, file)
            if not file.startswith(".") and path.suffix.lower() in MEDIA_ENDINGS:
                yield path
