"""Folders: the catalogue becomes what lies on disk, by a real worker."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.rpc import song
from tests.integration.working import Bench, open_bench, worker_settings, working
from tests.media import encode

from soundhash_server.embedded_valkey import Valkey
from soundhash_server.errors import PlatformError
from soundhash_server.model import (
    BatchResult,
    FolderParameters,
    IngestParameters,
    Job,
    JobState,
    Video,
)
from soundhash_server.services.folders import FolderScans
from soundhash_server.store.folders import FolderFiles
from soundhash_workers import folder_pass, folders

QUIET = ("known", "skipped", "updated", "deleted", "duplicates", "unreadable")


class Library(Bench):
    """A bench with a folder that may be scanned."""

    root: Path

    def folder(self, name: str, **files: bytes) -> Path:
        """A folder of this name with files; ``__`` in a name is a dot."""
        folder = self.root / name
        folder.mkdir()
        for file, content in files.items():
            (folder / file.replace("__", ".")).write_bytes(content)
        return folder

    async def begin(self, folder: Path, **asked: Any) -> Job:
        scans = FolderScans(self.jobs, self.queue, roots=self.settings.folder_roots, max_attempts=3)
        return await scans.submit(FolderParameters(str(folder), **asked))

    async def scan(self, folder: Path, **asked: Any) -> BatchResult:
        """Scans it to the end; what came of it."""
        done = await self.succeeded(await self.begin(folder, **asked))
        assert isinstance(done.result, BatchResult)
        assert done.result.counts.listing_done
        return done.result

    async def refused(self, folder: Path, reason: str) -> Job:
        """A scan that fails."""
        done = await self.finished(await self.begin(folder))
        assert done.state is JobState.FAILED and done.failure is not None
        assert done.failure.reason == reason, done.failure
        assert done.failure.remedy
        return done

    async def titles(self) -> list[str]:
        return sorted(video.title for video in await self.all_videos())

    async def all_videos(self) -> tuple[Video, ...]:
        return (await self.videos.list(1000, "")).items

    async def until_titles(self, *titles: str) -> None:
        """Waits until exactly these videos are there."""
        try:
            async with asyncio.timeout(40):
                while await self.titles() != sorted(titles):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            assert await self.titles() == sorted(titles)


def counts(result: BatchResult, **expected: int) -> None:
    """Asserts the counts; those that are not named are 0, but for what was listed."""
    got = {name: getattr(result.counts, name) for name in (*QUIET, "indexed", "failed")}
    assert got == dict.fromkeys(got, 0) | expected


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Files are at rest as soon as they are written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder_pass, "SETTLE_S", 0.0)
        patch.setattr(folders, "_CALM_S", 0.05)
        patch.setattr(folders, "_AWAY_S", 0.1)
        yield


@pytest.fixture(scope="module")
async def running_library(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
    quick: None,
) -> AsyncIterator[Library]:
    base = tmp_path_factory.mktemp("library")
    root = base / "media"
    root.mkdir()
    redis_url = valkey_server.url.replace("db=0", "db=4")
    async for url in database_factory():
        settings = worker_settings(url, redis_url, base / "data", folders=str(root))
        async with open_bench(settings) as bench, working(settings):
            library = Library(settings, bench.pool, bench.queue)
            library.root = root
            yield library


@pytest.fixture
async def library(running_library: Library) -> AsyncIterator[Library]:
    """An empty folder and an empty catalogue, with a worker."""
    yield running_library
    async with running_library.pool.acquire() as held:
        await held.execute("DELETE FROM folder_files")
        await held.execute("DELETE FROM videos")
        await held.execute("DELETE FROM processing_jobs")
    for path in running_library.root.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


async def test_a_folder_becomes_the_catalogue(library: Library) -> None:
    folder = library.folder(
        "all", one__wav=song(1), two__bin=song(2), notes__txt=b"To do: everything.\n" * 50
    )
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "three.wav").write_bytes(song(3))
    (folder / "deep" / "same as one.wav").write_bytes(song(1))
    for hidden in (".hidden.wav", "half.wav.part", "half.mp3.crdownload"):
        (folder / hidden).write_bytes(song(4))
    (folder / ".trash").mkdir()
    (folder / ".trash" / "old.wav").write_bytes(song(5))
    result = await library.scan(folder, channel="Shelf")
    counts(result, indexed=3, duplicates=1, skipped=1)
    assert result.counts.listed == 4
    assert result.new_items == ("one.wav", "two.bin", "deep/er/three.wav")
    assert result.unreadable_items == ()
    assert await library.titles() == ["one", "three", "two"]
    videos = await library.all_videos()
    assert {video.channel for video in videos} == {"Shelf"}
    # Nothing has changed: nothing is done, and nothing is read again.
    again = await library.scan(folder)
    counts(again, known=3, duplicates=1, skipped=1)
    assert again.new_items == ()
    assert {video.id for video in await library.all_videos()} == {video.id for video in videos}
    # What was there as bytes is there still: folders are only read.
    assert (folder / "one.wav").read_bytes() == song(1)


async def test_what_changes_on_disk_changes_in_the_catalogue(library: Library) -> None:
    folder = library.folder("live", a__wav=song(10), b__wav=song(11), c__wav=song(12))
    await library.scan(folder)
    before = {video.title: video.id for video in await library.all_videos()}
    (folder / "a.wav").write_bytes(song(13))
    (folder / "b.wav").rename(folder / "renamed.wav")
    (folder / "c.wav").unlink()
    (folder / "d.wav").write_bytes(song(14))

    dry = await library.scan(folder, dry_run=True)
    counts(dry, updated=1, deleted=1, known=1)
    assert dry.counts.queued == 2
    assert dry.new_items == ("d.wav", "a.wav")
    assert {video.title: video.id for video in await library.all_videos()} == before

    result = await library.scan(folder)
    counts(result, updated=1, deleted=1, known=1, indexed=2)
    after = {video.title: video.id for video in await library.all_videos()}
    assert sorted(after) == ["a", "b", "d"]
    assert after["b"] == before["b"]
    assert after["a"] != before["a"]
    # The old bytes may come back.
    (folder / "c.wav").write_bytes(song(12))
    counts(await library.scan(folder), known=3, indexed=1)


async def test_bytes_that_change_places_stay(library: Library) -> None:
    folder = library.folder("swap", a__wav=song(15), b__wav=song(16))
    await library.scan(folder)
    before = {video.id for video in await library.all_videos()}
    (folder / "a.wav").rename(folder / "x")
    (folder / "b.wav").rename(folder / "a.wav")
    (folder / "x").rename(folder / "b.wav")
    os.utime(folder / "a.wav")
    os.utime(folder / "b.wav")
    counts(await library.scan(folder), known=2, updated=2)
    assert {video.id for video in await library.all_videos()} == before


async def test_a_video_goes_with_its_last_file(library: Library) -> None:
    first = library.folder("first", a__wav=song(20), b__wav=song(20))
    second = library.folder("second", c__wav=song(20))
    counts(await library.scan(first), indexed=1, duplicates=1)
    counts(await library.scan(second), known=1)
    (first / "keep").write_text("not empty")
    (second / "keep").write_text("not empty")
    for path in (first / "a.wav", first / "b.wav", second / "c.wav"):
        assert len(await library.all_videos()) == 1
        path.unlink()
        result = await library.scan(path.parent)
        assert result.counts.deleted == (path.parent == second)
    assert await library.all_videos() == ()


async def test_all_duplicates_go_at_once(library: Library) -> None:
    folder = library.folder("twins", a__wav=song(21), b__wav=song(21), other__txt=b"stays")
    await library.scan(folder)
    (folder / "a.wav").unlink()
    (folder / "b.wav").unlink()
    counts(await library.scan(folder, dry_run=True), skipped=1, deleted=1)
    counts(await library.scan(folder), skipped=1, deleted=1)
    assert await library.all_videos() == ()


async def test_a_folder_inside_another_one(library: Library) -> None:
    outer = library.folder("outer", a__wav=song(22))
    (outer / "inner").mkdir()
    (outer / "inner" / "b.wav").write_bytes(song(23))
    (outer / "inner" / "keep").write_text("not empty")
    counts(await library.scan(outer / "inner"), indexed=1, skipped=1)
    counts(await library.scan(outer), indexed=1, known=1, skipped=1)
    (outer / "inner" / "b.wav").unlink()
    counts(await library.scan(outer), known=1, skipped=1, deleted=1)
    assert await library.titles() == ["a"]


async def test_what_came_by_another_way_stays(library: Library) -> None:
    """A file's end is no reason to delete what was uploaded, before or after."""
    await library.succeeded(await library.upload(song(24), "up.wav"))
    folder = library.folder("mixed", a__wav=song(24), b__wav=song(25), note__txt=b"stays")
    counts(await library.scan(folder), known=1, indexed=1, skipped=1)
    # What the server does with an upload of b.
    (video,) = [one for one in await library.all_videos() if one.title == "b"]
    await FolderFiles(library.pool).share(video.content_sha256)
    (folder / "a.wav").unlink()
    (folder / "b.wav").unlink()
    counts(await library.scan(folder), skipped=1)
    assert await library.titles() == ["b", "up"]


async def test_what_is_no_sound(library: Library) -> None:
    folder = library.folder(
        "odd",
        broken__mp3=b"\x00\x01garbage" * 100,
        cut__wav=song(26)[:20],
        empty__flac=b"",
        empty__txt=b"",
        good__wav=song(27),
        page__html=b"<html><body>no sound</body></html>",
        picture__png=PNG,
        binary__dat=bytes(range(256)) * 40,
    )
    os.mkfifo(folder / "pipe.wav")
    result = await library.scan(folder)
    counts(result, indexed=1, skipped=5, unreadable=3)
    said = {line.split(": ")[0]: line.split(": ")[1] for line in result.unreadable_items}
    assert said["broken.mp3"] == "NOT_MEDIA"
    assert said["empty.flac"] == "EMPTY_MEDIA"
    assert "cut.wav" in said
    # A file that was broken and is whole now comes in; the others are looked at again.
    (folder / "broken.mp3").write_bytes(song(28))
    counts(await library.scan(folder), known=1, indexed=1, skipped=5, unreadable=2)


PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00"
    b"\x1f\x15\xc4\x89\x00\x00\x00\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\x00\x05\x00\x01\xff\x89\x99=\x1d"
    b"\x00\x00\x00\x00IEND\xaeB`\x82"
)


async def test_a_file_that_cannot_be_read_now_keeps_its_video(library: Library) -> None:
    folder = library.folder("hurt", a__wav=song(29), b__wav=song(30))
    await library.scan(folder)
    (folder / "a.wav").write_bytes(song(29)[:30])
    counts(await library.scan(folder), known=1, unreadable=1)
    assert await library.titles() == ["a", "b"]
    # What is no media at all any more is gone.
    (folder / "a.wav").unlink()
    (folder / "b.wav").write_text("words")
    (folder / "b.wav").rename(folder / "b.txt")
    counts(await library.scan(folder), skipped=1, deleted=2)
    assert await library.titles() == []


async def test_hostile_names(library: Library) -> None:
    folder = library.folder("names")
    names = [
        b"new\nline.wav",
        b"caf\xe9 latin1.wav",
        b"back\\slash\\xe9.wav",
        b"-rf.wav",
        b"quote'\"$(touch x).wav",
        b"\xf0\x9f\x8e\xb5 note.wav",
        b"%2e%2e%2fup.wav",
        b"a" * 251 + b".wav",
    ]
    for number, name in enumerate(names):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(song(40 + number, 1.2))
    result = await library.scan(folder)
    counts(result, indexed=len(names))
    titles = await library.titles()
    assert "new line" in titles and "caf\ufffd latin1" in titles
    assert "caf\\xe9 latin1.wav" in result.new_items
    assert "back\\\\slash\\\\xe9.wav" in result.new_items
    counts(await library.scan(folder), known=len(names))
    for path in folder.iterdir():
        path.unlink()
    (folder / "note.txt").write_text("not empty")
    counts(await library.scan(folder), deleted=len(names), skipped=1)


async def test_links_lead_nowhere_else(library: Library, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(song(50))
    folder = library.folder("links", a__wav=song(51))
    library.folder("other", b__wav=song(52))
    (folder / "circle").symlink_to(folder)
    (folder / "circle.wav").symlink_to("circle.wav")
    (folder / "dangling.wav").symlink_to("nowhere.wav")
    (folder / "out.wav").symlink_to(tmp_path / "secret.wav")
    (folder / "outside").symlink_to(tmp_path)
    (folder / "to b.wav").symlink_to(library.root / "other" / "b.wav")
    (folder / "twice.wav").symlink_to("a.wav")
    result = await library.scan(folder)
    assert result.counts.indexed == 2 and result.counts.duplicates == 1
    assert result.unreadable_items == (
        "out.wav: FILE_NOT_ALLOWED: The link leads out of the folders that may be scanned.",
    )
    assert len(await library.all_videos()) == 2
    # Folders themselves cannot lead out, either.
    (library.root / "door").symlink_to(tmp_path)
    for path in (library.root / "door", library.root / ".." / "data", tmp_path, Path("/")):
        with pytest.raises(PlatformError) as caught:
            await library.begin(path)
        assert caught.value.reason == "FOLDER_NOT_ALLOWED"
        assert "--folder" in caught.value.remedy
    with pytest.raises(PlatformError) as caught:
        await library.begin(library.root / "nothing")
    assert caught.value.reason == "FOLDER_NOT_FOUND"
    with pytest.raises(PlatformError) as caught:
        await library.begin(Path("relative"))
    assert caught.value.reason == "INVALID_REQUEST"
    # A link inside the roots is the folder that it leads to.
    (library.root / "alias").symlink_to(folder)
    job = await library.begin(library.root / "alias")
    assert job.parameters == FolderParameters(str(folder))
    await library.succeeded(job)


async def test_an_empty_folder_deletes_nothing_unless_it_is_meant(library: Library) -> None:
    folder = library.folder("mount", a__wav=song(60))
    await library.scan(folder)
    (folder / "a.wav").rename(library.root / "aside.wav")
    await library.refused(folder, "FOLDER_EMPTY")
    assert await library.titles() == ["a"]
    folder.rename(library.root / "away")
    with pytest.raises(PlatformError) as caught:
        await library.begin(folder)
    assert caught.value.reason == "FOLDER_NOT_FOUND"
    (library.root / "away").rename(folder)
    (folder / ".soundhash-empty").touch()
    counts(await library.scan(folder), deleted=1)
    assert await library.titles() == []
    # A folder that never held anything is no mistake.
    counts(await library.scan(library.folder("new")))


async def test_a_file_that_vanishes_before_it_is_indexed(library: Library) -> None:
    folder = library.folder("quick", a__wav=song(61), b__wav=song(62))
    job = await library.begin(folder)
    await library.until(job, lambda shown: shown.state is not JobState.QUEUED)
    (folder / "a.wav").unlink()
    done = await library.succeeded(job)
    assert isinstance(done.result, BatchResult)
    assert done.result.counts.indexed + done.result.counts.failed >= 1
    await library.scan(folder)
    await library.until_titles("b")


async def test_a_file_still_being_written_is_waited_for(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_pass, "SETTLE_S", 0.3)
    folder = library.folder("slow")
    content = song(63)
    job = await library.begin(folder)
    with (folder / "slow.wav").open("wb", buffering=0) as file:
        for start in range(0, len(content), len(content) // 6 + 1):
            file.write(content[start : start + len(content) // 6 + 1])
            await asyncio.sleep(0.1)
        if (await library.get(job.id)).state.finished:
            job = await library.begin(folder)
    await library.succeeded(job)
    assert [(video.title, video.duration_s) for video in await library.all_videos()] == [
        ("slow", 2.0)
    ]


async def test_a_failed_file_is_tried_again_by_the_next_scan(library: Library) -> None:
    folder = library.folder("silent", quiet__wav=SILENCE)
    for _ in range(2):
        result = await library.scan(folder)
        counts(result, failed=1)
    jobs = await library.jobs.list(100, "", [JobState.FAILED])
    assert [job.failure.reason for job in jobs.items if job.failure] == ["SILENT_AUDIO"]
    assert isinstance(jobs.items[0].parameters, IngestParameters)
    assert jobs.items[0].parameters.path == str(folder / "quiet.wav")


SILENCE = encode(np.zeros(16000, np.float32))


async def test_a_watched_folder_stays_in_step(library: Library) -> None:
    folder = library.folder("watched", a__wav=song(70), note__txt=b"stays")
    job = await library.begin(folder, watch=True)
    assert (await library.begin(folder, watch=True)).id == job.id
    await library.until_titles("a")
    (folder / "b.wav").write_bytes(song(71))
    await library.until_titles("a", "b")
    (folder / "sub").mkdir()
    (folder / "sub" / "c.wav").write_bytes(song(72))
    await library.until_titles("a", "b", "c")
    (folder / "a.wav").write_bytes(song(73))
    (folder / "b.wav").unlink()
    (folder / "sub").rename(folder / "moved")
    await library.until_titles("a", "c")
    # One scan beside it is another job, and finds nothing to do.
    beside = (await library.scan(folder)).counts
    assert (beside.listed, beside.updated, beside.deleted) == (2, 0, 0)
    # Its disk goes away and comes back.
    folder.rename(library.root / "away")
    await asyncio.sleep(0.5)
    assert await library.titles() == ["a", "c"]
    (library.root / "away" / "d.wav").write_bytes(song(74))
    (library.root / "away").rename(folder)
    await library.until_titles("a", "c", "d")
    shown = await library.get(job.id)
    assert shown.state is JobState.RUNNING and shown.progress.batch is not None
    assert (shown.progress.batch.updated, shown.progress.batch.deleted) == (1, 1)
    await library.jobs.cancel(job.id)
    await library.until(job, lambda now: now.state is JobState.CANCELLED)


async def test_a_watch_outlives_its_worker(
    postgres_url: str, redis_url: str, data_dir: Path, tmp_path: Path, quick: None
) -> None:
    root = tmp_path / "media"
    root.mkdir()
    settings = worker_settings(postgres_url, redis_url, data_dir, folders=str(root))
    async with open_bench(settings) as bench:
        library = Library(settings, bench.pool, bench.queue)
        library.root = root
        (root / "a.wav").write_bytes(song(80))
        async with working(settings):
            job = await library.begin(root, watch=True)
            await library.until_titles("a")
        assert (await library.get(job.id)).state is JobState.QUEUED
        (root / "a.wav").unlink()
        (root / "b.wav").write_bytes(song(81))
        async with working(settings):
            await library.until_titles("b")
            assert (await library.get(job.id)).state is JobState.RUNNING
