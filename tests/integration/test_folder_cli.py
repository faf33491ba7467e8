"""`soundhash ingest DIR --sync` as a user runs it, on a real platform."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.test_cli import Shell
from tests.media import encode
from tests.platforms import RunningPlatform
from tests.sounds import tune

from soundhash_server import __main__ as program
from soundhash_server.settings import Settings


@pytest.fixture
def shelf(platform: RunningPlatform, tmp_path: Path) -> Shell:
    """A folder "shelf": two recordings, a broken one, a text, a name with a line break."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for number, name in enumerate(("Shelf one.wav", "Shelf two.wav")):
        (folder / name).write_bytes(encode(tune(4.0, 750 + number)))
    (folder / "bro\nken.mp3").write_bytes(b"this is not media at all " * 40)
    (folder / "notes.txt").write_text("not media")
    return Shell(platform.address, tmp_path)


def test_a_folder_from_the_command_line(shelf: Shell) -> None:
    folder = shelf.folder / "shelf"
    (dry,) = shelf.json("ingest", "shelf", "--sync", "--dry-run")
    assert dry["state"] == "SUCCEEDED" and dry["dry_run"] and not dry["watch"]
    expected = {"listed": 2, "queued": 2, "skipped": 1, "unreadable": 1}
    assert {name: count for name, count in dry["counts"].items() if count} == expected
    assert dry["new_items"] == ["Shelf one.wav", "Shelf two.wav"]
    assert shelf.json("videos", "--channel", "Shelf") == []
    would = shelf("ingest", "shelf", "--sync", "--dry-run").stdout
    assert "2 to index, 1 skipped, 1 unreadable" in would
    assert "new         Shelf one.wav" in would

    told = shelf("ingest", "shelf", "--sync", "--wait", "--channel", "Shelf").stdout
    first, second = told.splitlines()
    assert first == "synced   shelf: 2 indexed, 1 skipped, 1 unreadable"
    assert second.startswith("  unreadable  bro\\nken.mp3: NOT_MEDIA: ")
    titles = {line["title"] for line in shelf.json("videos", "--channel", "Shelf")}
    assert titles == {"Shelf one", "Shelf two"}

    # One is uploaded too, and stays when both files go.
    shelf("ingest", "shelf/Shelf one.wav", "--wait")
    (folder / "Shelf one.wav").unlink()
    (folder / "Shelf two.wav").unlink()
    (again,) = shelf.json("ingest", "shelf", "--sync", "--wait")
    assert again["counts"]["deleted"] == 1 and again["counts"]["indexed"] == 0
    assert [one["title"] for one in shelf.json("videos", "--channel", "Shelf")] == ["Shelf one"]

    (watch,) = shelf.json("ingest", "shelf", "--sync", "--watch")
    assert watch["state"] == "RUNNING" and watch["watch"]
    shelf("jobs", "--cancel", watch["job_id"])


def test_folders_that_are_refused(shelf: Shell) -> None:
    told = shelf("ingest", "/etc", "--sync", status=1)
    assert "/etc may not be scanned" in told.stderr
    assert "soundhash up --folder" in told.stderr
    (line,) = shelf.json("ingest", "nothing", "--sync", status=1)
    assert line["failure"]["reason"] == "FOLDER_NOT_FOUND"
    for wrong in (
        ("ingest", "shelf", "--watch"),
        ("ingest", "shelf", "--dry-run"),
        ("ingest", "--sync"),
        ("ingest", "shelf", "--sync", "--title", "x"),
    ):
        shelf(*wrong, status=2)


def test_up_takes_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taken: list[Settings] = []

    def take(settings: Settings) -> int:
        taken.append(settings)
        return 0

    monkeypatch.setattr(program, "_up", take)
    monkeypatch.chdir(tmp_path)
    arguments = ["up", "--data-dir", str(tmp_path), "--folder", "music", "--folder", "/media/b"]
    assert program.main(arguments) == 0
    assert taken[0].folder_roots == (tmp_path / "music", Path("/media/b"))
    assert Settings.from_env(taken[0].as_env()).folder_roots == taken[0].folder_roots
    assert program.main(["up", "--folder", "a:b"]) == 2
