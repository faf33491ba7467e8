"""Where `ingest` finds recordings."""

from __future__ import annotations

import os
from pathlib import Path

from soundhash.cli._sources import expand


def found(*texts: str | Path) -> list[str]:
    return [source.text for source in expand([str(text) for text in texts])]


def test_folders_are_searched_in_order(tmp_path: Path) -> None:
    for name in (
        "b.MP3",
        "a.ogg",
        "notes.txt",
        ".hidden.mp3",
        "deep/er/c.wav",
        "deep/a.flac",
        ".git/x.mp3",
        "deep/.cache/y.mp3",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "circle").symlink_to(tmp_path)
    assert found(tmp_path) == [
        f"{tmp_path}/{name}" for name in ("a.ogg", "b.MP3", "deep/a.flac", "deep/er/c.wav")
    ]


def test_a_named_file_is_always_taken(tmp_path: Path) -> None:
    odd = tmp_path / "recording.bin"
    odd.write_bytes(b"x")
    (source,) = expand([str(odd)])
    assert source.path == odd and source.problem is None


def test_urls_are_left_to_the_server() -> None:
    for url in ("https://example.org/a?b#c", "http://[::1]/", "file:///etc/passwd", "ftp://x"):
        (source,) = expand([url])
        assert (source.text, source.path, source.problem) == (url, None, None)


def test_order_and_repetition_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "a.mp3"
    file.write_bytes(b"x")
    assert found(file, "https://example.org/1", file) == [
        str(file),
        "https://example.org/1",
        str(file),
    ]
    first, _, again = expand([str(file), "https://example.org/1", str(file)])
    assert first != again, "each is told about by itself"


def test_what_is_missing_or_empty_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    problems = [
        source.problem
        for source in expand([str(tmp_path / "none"), str(tmp_path / "empty"), "C:example"])
    ]
    reasons = [problem[0] if problem else None for problem in problems]
    assert reasons == ["FILE_NOT_FOUND", "NO_MEDIA_FOUND", "FILE_NOT_FOUND"]


def test_file_names_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.mp3")).write_bytes(b"x")
    (source,) = expand([str(tmp_path)])
    assert source.path is not None and source.path.exists()
