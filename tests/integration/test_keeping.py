"""What workers keep in object storage, and how it goes again."""

from __future__ import annotations

import asyncio
import hashlib
import io
import signal
import sys
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from moto.server import ThreadedMotoServer
from tests.buckets import s3_environment
from tests.integration.working import Bench, open_bench, worker_settings, working
from tests.loopback import serving
from tests.media import encode
from tests.sounds import tune

from soundhash_server.embedded_valkey import Valkey
from soundhash_server.fetching.http import open_session
from soundhash_server.fetching.scratch import Scratch
from soundhash_server.model import IngestResult, Job, JobState
from soundhash_server.services.media import remove_objects
from soundhash_server.settings import SettingsError
from soundhash_server.storage import Storage, open_storage
from soundhash_server.store.objects import ABANDONED_S, Objects
from soundhash_workers.keeping import Keeper

SONG = encode(tune(25.0, seed=31), "flac")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(2000)


class Shelf(Bench):
    """A bench whose worker keeps things in a folder."""

    @property
    def folder(self) -> Path:
        return Path(self.settings.storage_url.removeprefix("file://"))

    def stored(self) -> set[str]:
        return {
            str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()
        }

    async def rows(self) -> dict[str, Any]:
        rows = await self.pool.fetch("SELECT * FROM media_objects")
        return {row["key"]: row for row in rows}

    async def until_gone(self, name: str) -> None:
        async with asyncio.timeout(15):
            while any(name in key for key in {*self.stored(), *(await self.rows())}):
                await asyncio.sleep(0.02)

    def read(self, key: str) -> bytes:
        return (self.folder / key).read_bytes()


@pytest.fixture(scope="module")
async def shelf(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Shelf]:
    redis_url = valkey_server.url.replace("db=0", "db=3")
    async for database_url in database_factory():
        settings = worker_settings(
            database_url,
            redis_url,
            tmp_path_factory.mktemp("data"),
            storage_url=f"file://{tmp_path_factory.mktemp('shelf')}",
            keep="media audio thumbnail",
            keep_chunk_s=10.0,
            sweep_s=0.05,
        )
        async with open_bench(settings) as made, working(settings):
            yield Shelf(made.settings, made.pool, made.queue)


@asynccontextmanager
async def keeper(pool: Any, data_dir: Path, **more: Any) -> AsyncIterator[tuple[Keeper, Storage]]:
    settings = worker_settings("", "", data_dir, storage_url=f"file://{data_dir}/shelf", **more)
    storage = open_storage(settings)
    assert storage is not None
    scratch = Scratch(settings.scratch_dir)
    async with open_session(
        allow_private=settings.allow_private_urls, read_timeout_s=5.0
    ) as session:
        made = Keeper(settings, storage, Objects(pool, storage.name), scratch, session)
        try:
            yield made, storage
            assert not [
                path
                for path in settings.scratch_dir.rglob("*")
                if path.is_file() and path.suffix != ".lock"
            ]
        finally:
            made.close()
            scratch.close()


def made(job: Job) -> UUID:
    """The video that a job has made."""
    assert isinstance(job.result, IngestResult)
    return job.result.video_id


def pcm_of(content: bytes) -> bytes:
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        content_pcm: bytes = file.readframes(file.getnframes())
    return content_pcm


async def test_media_and_audio_are_kept_whole_and_in_pieces(shelf: Shelf) -> None:
    done = await shelf.succeeded(await shelf.upload(SONG, "song.flac"), 60.0)
    video_id = made(done)
    names = [f"audio/{video_id}/chunk_{n:03}.wav" for n in range(3)]
    assert {key for key in shelf.stored() if str(video_id) in key} == {
        f"media/{video_id}.flac",
        f"audio/{video_id}.wav",
        *names,
    }
    assert shelf.read(f"media/{video_id}.flac") == SONG
    whole = pcm_of(shelf.read(f"audio/{video_id}.wav"))
    assert len(whole) / 32_000 == pytest.approx(25.0, abs=0.05)
    pieces = [pcm_of(shelf.read(name)) for name in names]
    assert b"".join(pieces) == whole
    assert [len(piece) for piece in pieces[:2]] == [320_000, 320_000]
    objects = await Objects(shelf.pool, f"file://{shelf.folder}").of_video(video_id)
    assert len(objects) == 5
    for one in objects:
        content = shelf.read(one.key)
        assert one.size_bytes == len(content)
        assert one.content_sha256 == hashlib.sha256(content).hexdigest()
        assert one.expire_time is None
    kinds = {one.key.rsplit(".")[-1]: one.content_type for one in objects}
    assert kinds == {"flac": "audio/flac", "wav": "audio/wav"}
    assert shelf.files_left() == []


async def test_what_is_kept_goes_with_its_video(shelf: Shelf) -> None:
    done = await shelf.succeeded(await shelf.upload(encode(tune(5.0, seed=32)), "a.wav"), 60.0)
    video_id = made(done)
    assert shelf.stored() >= {f"audio/{video_id}.wav"}
    await shelf.videos.delete(video_id)
    await shelf.until_gone(str(video_id))


async def test_new_bytes_of_a_source_replace_what_was_kept(shelf: Shelf) -> None:
    async with serving(encode(tune(15.0, seed=33), "mp3")) as loopback:
        url = loopback.url("/song.wav")
        done = await shelf.succeeded(await shelf.submit_url(url), 60.0)
        video_id = made(done)
        assert shelf.stored() >= {f"media/{video_id}.mp3", f"audio/{video_id}/chunk_001.wav"}
        before = shelf.read(f"audio/{video_id}.wav")
        loopback.media = encode(tune(5.0, seed=34), "ogg")
        await shelf.pool.execute("UPDATE videos SET params_digest = 'old' WHERE id = $1", video_id)
        again = await shelf.succeeded(await shelf.submit_url(url), 60.0)
        assert made(again) == video_id
    await shelf.until_gone(f"{video_id}/chunk_")
    await shelf.until_gone(f"{video_id}.mp3")
    assert {key for key in shelf.stored() if str(video_id) in key} == {
        f"media/{video_id}.ogg",
        f"audio/{video_id}.wav",
    }
    assert shelf.read(f"audio/{video_id}.wav") != before


async def test_kept_for_some_days(shelf: Shelf) -> None:
    done = await shelf.succeeded(await shelf.upload(encode(tune(5.0, seed=35)), "b.wav"), 60.0)
    video_id = made(done)
    objects = Objects(shelf.pool, f"file://{shelf.folder}")
    await objects.begin(video_id, "audio/a-day.wav", "audio/wav")
    (shelf.folder / "audio/a-day.wav").write_bytes(b"x")
    assert await objects.finish(video_id, "audio/a-day.wav", 1, "aa", 86_400.0)
    kept_s = await shelf.pool.fetchval(
        "UPDATE media_objects SET state = 'KEPT' WHERE key = 'audio/a-day.wav'"
        " RETURNING extract(epoch FROM expire_time - now())::float8"
    )
    assert kept_s == pytest.approx(86_400.0, abs=60.0)
    assert "audio/a-day.wav" in [one.key for one in await objects.of_video(video_id)]
    await shelf.pool.execute(
        "UPDATE media_objects SET expire_time = now() WHERE key = 'audio/a-day.wav'"
    )
    assert "audio/a-day.wav" not in [one.key for one in await objects.of_video(video_id)]
    await shelf.until_gone("audio/a-day.wav")
    assert f"audio/{video_id}.wav" in shelf.stored()


async def test_a_job_waits_for_a_storage_that_is_away(
    postgres_url: str, redis_url: str, data_dir: Path
) -> None:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    with s3_environment(server):
        server.stop()
        settings = worker_settings(
            postgres_url, redis_url, data_dir, storage_url="s3://never-made/in/here"
        )
        async with open_bench(settings) as bench, working(settings):
            job = await bench.upload(encode(tune(5.0, seed=36)))
            await bench.pool.execute("UPDATE processing_jobs SET max_attempts = 50")
            waits = await bench.until(job, lambda shown: shown.state is JobState.RETRYING, 60.0)
            assert waits.failure is not None
            assert waits.failure.reason == "STORAGE_UNAVAILABLE"
            back = ThreadedMotoServer("127.0.0.1", port, verbose=False)
            back.start()
            try:
                # There, but without the bucket: that is for people to mend.
                failed = await bench.finished(job, 60.0)
                assert failed.failure is not None
                assert failed.failure.reason == "STORAGE_REFUSED"
            finally:
                back.stop()


async def test_what_a_killed_worker_leaves_is_found(pool: Any, data_dir: Path) -> None:
    path = data_dir / "song.flac"
    path.write_bytes(SONG)
    async with keeper(pool, data_dir) as (keeping, storage):
        objects = Objects(pool, storage.name)
        # As far as a worker comes that is killed before it stores the video ...
        video_id = await keeping.keep(path, known=None, on_fraction=lambda _: None)
        assert video_id is not None
        # ... and one that is killed between the row and the object.
        await objects.begin(uuid4(), "audio/never.wav", "audio/wav")
        assert await objects.of_video(video_id) == ()
        assert await remove_objects(objects, storage) == 0
        await pool.execute(
            "UPDATE media_objects SET update_time = now() - make_interval(secs => $1)",
            ABANDONED_S + 1,
        )
        assert await remove_objects(objects, storage) == 2
        assert await pool.fetchval("SELECT count(*) FROM media_objects") == 0
        assert not [one for one in (data_dir / "shelf").rglob("*") if one.is_file()]


async def test_a_worker_killed_between_an_object_and_its_row(
    pool: Any, postgres_url: str, data_dir: Path
) -> None:
    (data_dir / "song.flac").write_bytes(SONG)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.keeping_child", postgres_url, str(data_dir), "3"
    )
    async with asyncio.timeout(60):
        assert await child.wait() == -signal.SIGKILL
    shelf = data_dir / "shelf"
    assert len([one for one in shelf.rglob("*") if one.is_file()]) == 3
    rows = await pool.fetch("SELECT state, content_sha256 <> '' AS whole FROM media_objects")
    assert sorted((row["state"], row["whole"]) for row in rows) == [
        ("WRITING", False),
        ("WRITING", True),
        ("WRITING", True),
    ]
    # What was rendered goes as soon as the next worker starts ...
    Scratch(data_dir / "scratch").close()
    assert not [one for one in (data_dir / "scratch").rglob("*") if one.is_file()]
    # ... and the objects when it is certain that nobody writes them any more.
    storage = Storage(f"file://{shelf}")
    objects = Objects(pool, storage.name)
    assert await remove_objects(objects, storage) == 0
    await pool.execute(
        "UPDATE media_objects SET update_time = now() - make_interval(secs => $1)",
        ABANDONED_S + 1,
    )
    assert await remove_objects(objects, storage) == 3
    assert not [one for one in shelf.rglob("*") if one.is_file()]


async def test_a_video_that_is_deleted_meanwhile(pool: Any, data_dir: Path) -> None:
    async with keeper(pool, data_dir) as (_, storage):
        objects, video_id = Objects(pool, storage.name), uuid4()
        written = data_dir / "shelf/audio/one.wav"
        written.parent.mkdir(parents=True)
        for statement in ("UPDATE media_objects SET state = 'DOOMED'", "DELETE FROM media_objects"):
            await objects.begin(video_id, "audio/one.wav", "audio/wav")
            await pool.execute(statement)
            written.write_bytes(b"whole")
            assert not await objects.finish(video_id, "audio/one.wav", 5, "aa", None)
            assert await remove_objects(objects, storage) == 1
            assert not written.exists()


async def test_two_writers_of_one_key(pool: Any, data_dir: Path) -> None:
    """A clip that was deleted and submitted again while its first worker was still at it."""
    async with keeper(pool, data_dir) as (_, storage):
        objects, first, second = Objects(pool, storage.name), uuid4(), uuid4()
        for video_id in (first, second):
            await objects.begin(video_id, "clips/A.mp4", "video/mp4")
        assert not await objects.finish(first, "clips/A.mp4", 5, "aa", None)
        assert await objects.finish(second, "clips/A.mp4", 5, "aa", None)
        assert await remove_objects(objects, storage) == 0


async def test_one_that_cannot_be_removed_does_not_stand_before_others(
    pool: Any, data_dir: Path
) -> None:
    async with keeper(pool, data_dir) as (_, storage):
        objects = Objects(pool, storage.name)
        for key in ("audio/one.wav", "audio/two.wav"):
            await objects.begin(uuid4(), key, "audio/wav")
        await pool.execute("UPDATE media_objects SET state = 'DOOMED'")
        # A folder with something in it where the object should be.
        (data_dir / "shelf/audio/one.wav/x").mkdir(parents=True)
        assert await remove_objects(objects, storage) == 2
        left = [row["key"] for row in await pool.fetch("SELECT key FROM media_objects")]
        assert left == ["audio/one.wav"]
        assert await remove_objects(objects, storage) == 0


async def test_objects_of_another_storage_are_left_alone(pool: Any, data_dir: Path) -> None:
    async with keeper(pool, data_dir) as (_, storage):
        elsewhere, video_id = Objects(pool, "s3://another"), uuid4()
        await elsewhere.begin(video_id, "audio/one.wav", "audio/wav")
        await pool.execute("UPDATE media_objects SET state = 'DOOMED'")
        assert await remove_objects(Objects(pool, storage.name), storage) == 0
        assert await pool.fetchval("SELECT count(*) FROM media_objects") == 1


async def pictures() -> AsyncIterator[tuple[str, list[str]]]:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        bodies = {"/p.png": PNG, "/big.png": PNG + bytes(9 << 20), "/no.png": b"<html>no</html>"}
        if request.path not in bodies:
            raise web.HTTPNotFound
        return web.Response(body=bodies[request.path], content_type="image/png")

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    finally:
        await runner.cleanup()


async def test_thumbnails(pool: Any, data_dir: Path) -> None:
    path = data_dir / "song.wav"
    path.write_bytes(encode(tune(2.0, seed=37)))

    async def kept(keeping: Keeper, url: str) -> list[str]:
        video_id = await keeping.keep(
            path, known=None, thumbnail_url=url, on_fraction=lambda _: None
        )
        rows = await pool.fetch("SELECT key FROM media_objects WHERE video_id = $1", video_id)
        return [row["key"].replace(str(video_id), "ID") for row in rows]

    async for base, seen in pictures():
        async with keeper(pool, data_dir, keep="thumbnail") as (keeping, _):
            assert await kept(keeping, f"{base}/p.png") == ["thumbnails/ID.png"]
            for name in ("/big.png", "/no.png", "/missing.png"):
                assert await kept(keeping, base + name) == []
            assert await kept(keeping, "file:///etc/passwd") == []
            assert await kept(keeping, "") == []
        count = len(seen)
        async with keeper(pool, data_dir, keep="thumbnail", allow_private_urls=False) as (
            keeping,
            _,
        ):
            assert await kept(keeping, f"{base}/p.png") == []
        assert len(seen) == count


async def test_a_clip_is_kept_under_its_own_name(pool: Any, data_dir: Path) -> None:
    path = data_dir / "song.wav"
    path.write_bytes(encode(tune(2.0, seed=38)))
    told: list[float] = []
    async with keeper(pool, data_dir, keep_loudness=True) as (keeping, _):
        video_id = await keeping.keep(
            path, known=None, clip_id="Some-Clip_1", on_fraction=told.append
        )
    rows = await pool.fetch("SELECT key, video_id FROM media_objects ORDER BY key")
    assert [row["key"] for row in rows] == ["audio/Some-Clip_1.wav", "clips/Some-Clip_1.wav"]
    assert {row["video_id"] for row in rows} == {video_id}
    assert told == sorted(told) and told[-1] == 1.0


async def test_nothing_is_kept_without_a_storage(pool: Any, data_dir: Path) -> None:
    async with keeper(pool, data_dir) as (keeping, _):
        keeping._storage = None
        assert await keeping.keep(Path("nowhere"), known=None, on_fraction=lambda _: None) is None


async def test_what_is_not_known_cannot_be_kept(pool: Any, data_dir: Path) -> None:
    with pytest.raises(SettingsError, match="SOUNDHASH_KEEP is 'audio, video'"):
        async with keeper(pool, data_dir, keep="audio, video"):
            pass


async def test_cancelled_while_rendering(pool: Any, data_dir: Path) -> None:
    path = data_dir / "song.wav"
    path.write_bytes(encode(tune(60.0, seed=39)))
    async with keeper(pool, data_dir, keep_loudness=True) as (keeping, _):
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_fraction(_: float) -> None:
            loop.call_soon_threadsafe(begun.set)

        task = asyncio.create_task(keeping.keep(path, known=None, on_fraction=on_fraction))
        done, _ = await asyncio.wait(
            {task, asyncio.create_task(begun.wait())}, return_when=asyncio.FIRST_COMPLETED
        )
        task.cancel()
        await asyncio.gather(task, *done, return_exceptions=True)
    assert await pool.fetchval("SELECT count(*) FROM media_objects WHERE state = 'KEPT'") == 0
