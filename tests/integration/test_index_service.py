"""The match index as a cache of the database: it follows, restarts, and trusts nothing on disk."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from tests.sounds import tune

from soundhash_engine import PARAMS, Params, Segment, extract
from soundhash_engine.matcher import match
from soundhash_server.model import IngestParameters, JobKind, NewVideo
from soundhash_server.services import index as index_module
from soundhash_server.services.index import IndexService
from soundhash_server.store.changes import Changes
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.listener import Listener
from soundhash_server.store.pool import Pool, create_pool
from soundhash_server.store.videos import Videos

SONG_S = 30.0


async def store(pool: Pool, seed: int, *, segments: list[Segment] | None = None) -> UUID:
    """Puts a made-up song into the database as a worker does; again replaces it."""
    jobs = Jobs(pool)
    digest = hashlib.sha256(str(seed).encode()).hexdigest()
    job, _ = await jobs.submit(
        JobKind.INGEST,
        f"sha256:{digest}:{time.monotonic_ns()}",
        IngestParameters(content_sha256=digest),
        max_attempts=1,
        params_digest="any",
    )
    lease = await jobs.claim(job.id, 60.0)
    assert lease is not None
    video = NewVideo(
        title=f"Song {seed}",
        source_url="",
        external_id="",
        channel="",
        source_key="",
        content_sha256=digest,
        duration_s=SONG_S,
    )
    made = extract(tune(SONG_S, seed)) if segments is None else segments
    return (await jobs.complete(lease.token, video, made)).video_id


@asynccontextmanager
async def index_service(
    url: str,
    pool: Pool,
    directory: Path,
    *,
    poll_s: float = 0.2,
    seal_hours: float = 20.0,
    params: Params = PARAMS,
) -> AsyncIterator[IndexService]:
    listener = Listener(url)
    service = IndexService(
        Changes(pool), listener, directory, poll_s=poll_s, seal_hours=seal_hours, params=params
    )
    tasks = [asyncio.create_task(listener.run()), asyncio.create_task(service.run())]
    try:
        await until(lambda: service.ready)
        yield service
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await service.close()
        await listener.close()


async def until(check: Callable[[], bool], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not check():
            await asyncio.sleep(0.01)


async def caught_up(service: IndexService, pool: Pool) -> None:
    newest = await Changes(pool).current_revision()
    await until(lambda: service.applied_revision >= newest)


async def finds(service: IndexService, pool: Pool, seed: int) -> UUID | None:
    """The video that a clip of this song is matched to."""
    clip = tune(SONG_S, seed)[80_000:144_000]
    result = await asyncio.to_thread(match, service.snapshot(), clip)
    if not result.matches:
        return None
    key = result.matches[0].recording_id
    return (await Videos(pool).by_recording_ids([key]))[key].id


async def test_changes_are_followed(postgres_url: str, pool: Pool, data_dir: Path) -> None:
    first = await store(pool, 1)
    async with index_service(postgres_url, pool, data_dir) as service:
        assert await finds(service, pool, 1) == first
        assert await finds(service, pool, 2) is None
        second = await store(pool, 2)
        await caught_up(service, pool)
        assert await finds(service, pool, 2) == second
        await Videos(pool).delete(first)
        await caught_up(service, pool)
        assert service.snapshot().recordings == 1
        state = await service.state()
        assert state.applied_revision == state.catalogue_revision == 3


async def test_two_servers_see_a_new_video_within_moments(
    postgres_url: str, pool: Pool, data_dir: Path
) -> None:
    async with (
        index_service(postgres_url, pool, data_dir, poll_s=30.0) as one,
        index_service(postgres_url, pool, data_dir, poll_s=30.0) as other,
    ):
        await asyncio.sleep(0.3)  # both listen
        await store(pool, 3)
        begun = time.monotonic()
        await caught_up(one, pool)
        await caught_up(other, pool)
        assert time.monotonic() - begun < 2.0
        assert one.snapshot().recordings == other.snapshot().recordings == 1


async def test_a_lost_announcement_only_delays(
    postgres_url: str, pool: Pool, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(self: Listener) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Listener, "run", deaf)
    async with index_service(postgres_url, pool, data_dir, poll_s=0.3) as service:
        video = await store(pool, 4)
        await caught_up(service, pool)
        assert await finds(service, pool, 4) == video


async def test_a_restart_reads_the_volumes_and_what_changed_meanwhile(
    postgres_url: str, pool: Pool, data_dir: Path
) -> None:
    kept, deleted, replaced = [await store(pool, seed) for seed in (5, 6, 7)]
    async with index_service(postgres_url, pool, data_dir) as service:
        await service.compact()
        state = await service.state()
        assert (state.status.volumes, state.status.tail_recordings) == (1, 0)
        assert state.memory_bytes == 0 < state.disk_bytes
    await Videos(pool).delete(deleted)
    new = await store(pool, 8)
    # The same bytes, fingerprinted anew with other content: song 9 under song 7's identity.
    old = extract(tune(SONG_S, 7))
    await store(pool, 7, segments=[_renamed(one) for one in old])
    again = await store(pool, 7, segments=extract(tune(SONG_S, 9)))
    assert again == replaced
    async with index_service(postgres_url, pool, data_dir) as service:
        assert (await service.state()).status.volumes == 1
        assert await finds(service, pool, 5) == kept
        assert await finds(service, pool, 6) is None
        assert await finds(service, pool, 7) is None
        assert await finds(service, pool, 9) == replaced
        assert await finds(service, pool, 8) == new
        # A full merge drops what is dead.
        await service.compact()
        state = await service.state()
        assert (state.status.recordings, state.status.dead_recordings) == (3, 0)
        assert len(list(data_dir.glob("v*"))) == 1


def _renamed(segment: Segment) -> Segment:
    """As if made with other parameters."""
    return Segment(
        index=segment.index,
        start_s=segment.start_s,
        duration_s=segment.duration_s,
        landmarks=segment.landmarks,
        descriptor=segment.descriptor,
        vector=segment.vector,
        md5=segment.md5,
        params_digest="other",
        landmark_count=segment.landmark_count,
    )


@pytest.mark.parametrize("harm", ["bytes", "cut", "manifest", "missing"])
async def test_a_damaged_volume_is_made_again(
    postgres_url: str, pool: Pool, data_dir: Path, harm: str
) -> None:
    video = await store(pool, 10)
    async with index_service(postgres_url, pool, data_dir) as service:
        await service.compact()
    (volume,) = data_dir.glob("v*")
    largest = max(volume.iterdir(), key=lambda path: path.stat().st_size)
    match harm:
        case "bytes":
            content = bytearray(largest.read_bytes())
            content[len(content) // 2] ^= 0xFF
            largest.write_bytes(bytes(content))
        case "cut":
            largest.write_bytes(largest.read_bytes()[:-100])
        case "manifest":
            (volume / "manifest.json").write_text("{")
        case "missing":
            largest.unlink()
    async with index_service(postgres_url, pool, data_dir) as service:
        # Bytes that lead nowhere are compared in the background, after the start.
        await until(lambda: not volume.exists())
        await until(lambda: service.snapshot().recordings == 1 and not service._damaged)
        assert await finds(service, pool, 10) == video


async def test_the_volumes_of_another_database_are_not_used(
    database_factory: Callable[[], AsyncIterator[str]], data_dir: Path
) -> None:
    for seed in (11, 12):
        # The same numbers and revisions in both databases, but other songs.
        async for url in database_factory():
            pool = await create_pool(url, 4)
            video = await store(pool, seed)
            async with index_service(url, pool, data_dir) as service:
                assert await finds(service, pool, seed) == video
                assert await finds(service, pool, 23 - seed) is None
                await service.compact()
            await pool.close()


async def test_one_process_writes_and_others_keep_the_rest_in_memory(
    postgres_url: str, pool: Pool, data_dir: Path
) -> None:
    await store(pool, 13)
    async with index_service(postgres_url, pool, data_dir) as writer:
        await writer.compact()
        second = await store(pool, 14)
        async with index_service(postgres_url, pool, data_dir) as reader:
            assert await finds(reader, pool, 14) == second
            state = await reader.state()
            assert state.status.volumes == 1
            assert state.disk_bytes > 0
            before = sorted(path.name for path in data_dir.glob("v*"))
            await reader.compact()
            assert sorted(path.name for path in data_dir.glob("v*")) == before
            assert reader.snapshot().recordings == 2
            # The writer goes on writing; the reader's mapped files may vanish under it.
            await caught_up(writer, pool)
            await writer.compact()
            assert await finds(reader, pool, 14) == second
            assert await finds(writer, pool, 14) == second


async def test_another_process_takes_over_writing(
    postgres_url: str, pool: Pool, data_dir: Path
) -> None:
    await store(pool, 15)
    async with index_service(postgres_url, pool, data_dir) as first:
        await first.compact()
        second = index_service(postgres_url, pool, data_dir)
        follower = await second.__aenter__()
    await follower.compact()
    await store(pool, 16)
    await caught_up(follower, pool)
    await follower.compact()
    state = await follower.state()
    assert state.memory_bytes == 0 < state.disk_bytes
    await second.__aexit__(None, None, None)
    async with index_service(postgres_url, pool, data_dir) as third:
        assert third.snapshot().recordings == 2
        assert (await third.state()).status.tail_recordings == 0


async def test_a_tail_of_some_size_is_sealed_while_the_server_runs(
    postgres_url: str, pool: Pool, data_dir: Path
) -> None:
    hours = 2.5 * SONG_S / 3600.0
    async with index_service(postgres_url, pool, data_dir, seal_hours=hours) as service:
        for seed in range(20, 24):
            await store(pool, seed)
        await caught_up(service, pool)
        await until(lambda: len(list(data_dir.glob("v*"))) == 1)
        await until(lambda: service._sealing is None)
        state = await service.state()
        assert state.status.volumes == 1
        assert state.status.recordings == 4


async def test_a_fingerprint_that_cannot_be_used_does_not_stop_the_others(
    postgres_url: str, pool: Pool, data_dir: Path
) -> None:
    await store(pool, 30, segments=[_renamed(one) for one in extract(tune(SONG_S, 30))])
    good = await store(pool, 31)
    async with index_service(postgres_url, pool, data_dir) as service:
        assert service.snapshot().recordings == 1
        assert await finds(service, pool, 31) == good
        assert (await service.state()).unusable_recordings == 1
        # Fingerprinted again, it counts.
        again = await store(pool, 30)
        await caught_up(service, pool)
        assert await finds(service, pool, 30) == again
        assert (await service.state()).unusable_recordings == 0


async def test_volumes_of_earlier_search_parameters_answer_while_they_are_made_anew(
    postgres_url: str, pool: Pool, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = dataclasses.replace(
        PARAMS, search=dataclasses.replace(PARAMS.search, triple_rank_limit=12)
    )
    videos = {seed: await store(pool, seed) for seed in (50, 51)}
    async with index_service(postgres_url, pool, data_dir, params=earlier) as service:
        await service.compact()
    (old,) = data_dir.glob("v*")
    with monkeypatch.context() as patch:
        # Not yet: they answer as they are.
        patch.setattr(index_module, "RENEWED_HOURS", 0.0)
        async with index_service(postgres_url, pool, data_dir) as service:
            assert (await service.state()).status.outdated_recordings == 2
            for seed, video in videos.items():
                assert await finds(service, pool, seed) == video
            assert old.exists()
    async with index_service(postgres_url, pool, data_dir) as service:
        await until(lambda: not old.exists())
        state = await service.state()
        assert (state.status.outdated_recordings, state.status.volumes) == (0, 1)
        for seed, video in videos.items():
            assert await finds(service, pool, seed) == video


async def test_a_reader_holds_nothing_that_the_writer_has_written(
    postgres_url: str, pool: Pool, data_dir: Path
) -> None:
    async with (
        index_service(postgres_url, pool, data_dir) as writer,
        index_service(postgres_url, pool, data_dir) as reader,
    ):
        videos = {seed: await store(pool, seed) for seed in (60, 61, 62)}
        await caught_up(reader, pool)
        await caught_up(writer, pool)
        before = await reader.state()
        assert before.memory_bytes > 0 == before.disk_bytes
        await writer.compact()
        await until(lambda: len(reader._index.volumes()) == 1)
        state = await reader.state()
        assert (state.memory_bytes, state.status.tail_recordings) == (0, 0)
        assert state.disk_bytes > 0
        # Deleted while the writer merges: hidden everywhere, whoever sees what first.
        await Videos(pool).delete(videos[61])
        await writer.compact()
        await caught_up(reader, pool)
        for seed, video in videos.items():
            assert await finds(reader, pool, seed) == (None if seed == 61 else video)
        # The reader's own merging leaves the files alone.
        names = sorted(path.name for path in data_dir.glob("v*"))
        await reader.compact()
        assert sorted(path.name for path in data_dir.glob("v*")) == names


async def test_everything_comes_back_without_the_files(
    postgres_url: str, pool: Pool, data_dir: Path
) -> None:
    videos = {seed: await store(pool, seed) for seed in (40, 41)}
    async with index_service(postgres_url, pool, data_dir) as service:
        await service.compact()
    for path in data_dir.rglob("*"):
        if path.is_file():
            path.unlink()
    async with index_service(postgres_url, pool, data_dir) as service:
        for seed, video in videos.items():
            assert await finds(service, pool, seed) == video
