"""CatalogService and AdminService."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tests.integration.rpc import Running, eventually, refused, song
from tests.media import encode
from tests.sounds import tune

from soundhash.v1 import admin_pb2, catalog_pb2, ingest_pb2, match_pb2
from soundhash_engine import PARAMS


@pytest.fixture(scope="module")
async def videos(server: Running) -> list[catalog_pb2.Video]:
    """Five small videos, oldest first."""
    return [
        await server.add(
            song(n), f"Song {n}.wav", channel="Even" if n % 2 == 0 else "Odd", external_id=f"x{n}"
        )
        for n in range(5)
    ]


async def get(server: Running, video_id: str) -> catalog_pb2.Video:
    return await server.catalog.GetVideo(catalog_pb2.GetVideoRequest(id=video_id))


async def test_a_video_says_what_it_is(server: Running, videos: list[catalog_pb2.Video]) -> None:
    video = await get(server, videos[2].id)
    assert video.title == "Song 2"
    assert video.channel == "Even"
    assert video.external_id == "x2"
    assert video.source_url == ""
    assert video.duration.ToTimedelta().total_seconds() == pytest.approx(2.0)
    assert len(video.content_sha256) == 64
    assert video.segment_count == 1
    assert video.landmark_count > 0
    assert video.params_digest == PARAMS.digest
    assert video.create_time.seconds > 0 and video.update_time.seconds > 0


async def test_videos_are_listed_newest_first(
    server: Running, videos: list[catalog_pb2.Video]
) -> None:
    listed: list[str] = []
    token = ""
    while True:
        page = await server.catalog.ListVideos(
            catalog_pb2.ListVideosRequest(page_size=2, page_token=token)
        )
        listed += [video.id for video in page.videos]
        token = page.next_page_token
        if not token:
            break
    assert listed == [video.id for video in reversed(videos)]
    odd = await server.catalog.ListVideos(catalog_pb2.ListVideosRequest(channel="Odd"))
    assert [video.id for video in odd.videos] == [videos[3].id, videos[1].id]
    one = await server.catalog.ListVideos(catalog_pb2.ListVideosRequest(external_id="x4"))
    assert [video.id for video in one.videos] == [videos[4].id]
    none = await server.catalog.ListVideos(catalog_pb2.ListVideosRequest(channel="Nobody"))
    assert not none.videos and not none.next_page_token


async def test_a_page_token_belongs_to_its_list(
    server: Running, videos: list[catalog_pb2.Video]
) -> None:
    page = await server.catalog.ListVideos(catalog_pb2.ListVideosRequest(page_size=1))
    for request in (
        catalog_pb2.ListVideosRequest(page_token=page.next_page_token, channel="Odd"),
        catalog_pb2.ListVideosRequest(page_token=page.next_page_token[:-2]),
        catalog_pb2.ListVideosRequest(page_token="\u00e4\u00f6"),
    ):
        with refused("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID"):
            await server.catalog.ListVideos(request)
    for size in (-1, 1001):
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
            await server.catalog.ListVideos(catalog_pb2.ListVideosRequest(page_size=size))
        assert list(caught[0].fields) == ["page_size"]


async def test_search(server: Running, videos: list[catalog_pb2.Video]) -> None:
    async def find(query: str) -> list[str]:
        page = await server.catalog.SearchVideos(catalog_pb2.SearchVideosRequest(query=query))
        return [video.title for video in page.videos]

    assert await find("song 3") == ["Song 3"]
    assert await find("EVEN") == ["Song 4", "Song 2", "Song 0"]
    assert await find("100%_\\") == []
    assert await find("'; DROP TABLE videos; --") == []
    for query in ("", "   ", "x" * 257):
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
            await find(query)
        assert list(caught[0].fields) == ["query"]


async def update(
    server: Running, video_id: str, mask: list[str], **fields: str
) -> catalog_pb2.Video:
    return await server.catalog.UpdateVideo(
        catalog_pb2.UpdateVideoRequest(id=video_id, update_mask=FieldMask(paths=mask), **fields)
    )


async def test_only_what_the_mask_names_is_changed(
    server: Running, videos: list[catalog_pb2.Video]
) -> None:
    before = await get(server, videos[0].id)
    after = await update(server, before.id, ["title"], title="New", channel="Ignored")
    assert after.title == "New"
    assert after.channel == before.channel
    assert after.update_time.ToNanoseconds() > before.update_time.ToNanoseconds()
    assert after.content_sha256 == before.content_sha256
    cleared = await update(server, before.id, ["external_id", "channel"])
    assert cleared.external_id == "" and cleared.channel == ""
    back = await update(
        server,
        before.id,
        ["title", "external_id", "channel", "source_url"],
        title="Song 0",
        external_id="x0",
        channel="Even",
        source_url="https://example.com/a?b=c",
    )
    assert back.source_url == "https://example.com/a?b=c"
    assert await get(server, before.id) == back
    await update(server, before.id, ["source_url"])


async def test_updates_that_are_refused(server: Running, videos: list[catalog_pb2.Video]) -> None:
    video_id = videos[0].id
    with refused("ALREADY_EXISTS", "EXTERNAL_ID_TAKEN"):
        await update(server, video_id, ["external_id"], external_id="x1")
    with refused("NOT_FOUND", "VIDEO_NOT_FOUND"):
        await update(server, str(uuid.uuid4()), ["title"], title="x")
    for mask, fields, field in (
        ([], {}, "update_mask"),
        (["content_sha256"], {}, "update_mask"),
        (["title", "id"], {"title": "x"}, "update_mask"),
        (["title"], {"title": ""}, "title"),
        (["title"], {"title": "   "}, "title"),
        (["title"], {"title": "a\0b"}, "title"),
        (["source_url"], {"source_url": "ftp://example.com"}, "source_url"),
        (["channel"], {"channel": "c" * 257}, "channel"),
    ):
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
            await update(server, video_id, mask, **fields)
        assert list(caught[0].fields) == [field]
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await server.catalog.UpdateVideo(catalog_pb2.UpdateVideoRequest(id=video_id))
    assert list(caught[0].fields) == ["update_mask"]


async def test_errors_about_the_longest_names_arrive_whole(server: Running) -> None:
    """Details travel in headers, which are bounded."""
    name = "\U0001f3b5" * 256
    await server.add(song(60), external_id=name)
    other = await server.add(song(61))
    with refused("ALREADY_EXISTS", "EXTERNAL_ID_TAKEN") as caught:
        await update(server, other.id, ["external_id"], external_id=name)
    assert caught[0].metadata["external_id"].startswith("\U0001f3b5")
    assert caught[0].details["ResourceInfo"].resource_type == "video"
    page = await server.catalog.ListVideos(catalog_pb2.ListVideosRequest(page_size=2))
    for video in page.videos:
        await server.catalog.DeleteVideo(catalog_pb2.DeleteVideoRequest(id=video.id))
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await server.ingest.ListJobs(ingest_pb2.ListJobsRequest(states=[50] * 16))
    assert len(caught[0].fields) > 3


async def test_deleting(server: Running) -> None:
    video = await server.add(song(70))
    await server.catalog.DeleteVideo(catalog_pb2.DeleteVideoRequest(id=video.id))
    with refused("NOT_FOUND", "VIDEO_NOT_FOUND") as caught:
        await get(server, video.id)
    assert caught[0].metadata["video"] == video.id
    with refused("NOT_FOUND", "VIDEO_NOT_FOUND"):
        await server.catalog.DeleteVideo(catalog_pb2.DeleteVideoRequest(id=video.id))
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
        await server.catalog.DeleteVideo(catalog_pb2.DeleteVideoRequest(id="all"))


async def test_stats(server: Running, videos: list[catalog_pb2.Video]) -> None:
    await server.match.MatchClip(match_pb2.MatchClipRequest(content=song(3)))
    stats = await server.admin.GetStats(admin_pb2.GetStatsRequest())
    assert stats.server_version
    assert stats.params_digest == PARAMS.digest
    assert stats.video_count == 5
    assert stats.audio_duration.seconds == 10
    assert stats.segment_count == 5
    assert stats.landmark_count == sum(video.landmark_count for video in videos)
    assert stats.match_count >= 1
    jobs = await server.ingest.ListJobs(ingest_pb2.ListJobsRequest(page_size=1000))
    assert {one.state: one.count for one in stats.jobs} == {
        ingest_pb2.JOB_STATE_SUCCEEDED: len(jobs.jobs)
    }
    assert stats.start_time.seconds > 0
    assert stats.index.video_count == 5
    assert stats.index.applied_revision == stats.index.catalogue_revision


async def test_compaction(server: Running, videos: list[catalog_pb2.Video]) -> None:
    dead = await server.add(encode(tune(20.0, 80)))
    before = await server.admin.GetIndexStatus(admin_pb2.GetIndexStatusRequest())
    assert before.tail_video_count == 6
    first = await server.admin.CompactIndex(admin_pb2.CompactIndexRequest())
    assert first.volume_count == 1
    assert first.tail_video_count == 0
    assert first.video_count == 6
    assert first.disk_bytes > 0
    assert first.tail_bytes == 0
    assert first.triple_count > 0
    assert not first.compacting
    await server.catalog.DeleteVideo(catalog_pb2.DeleteVideoRequest(id=dead.id))
    await server.caught_up()
    deleted = await server.admin.GetIndexStatus(admin_pb2.GetIndexStatusRequest())
    assert (deleted.video_count, deleted.dead_video_count) == (5, 1)
    second = await server.admin.CompactIndex(admin_pb2.CompactIndexRequest())
    assert (second.video_count, second.dead_video_count, second.volume_count) == (5, 0, 1)
    assert second.disk_bytes < first.disk_bytes
    folders = [path for path in server.settings.index_dir.iterdir() if path.is_dir()]
    assert len(folders) == 1


async def test_one_compaction_at_a_time(
    server: Running, videos: list[catalog_pb2.Video], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = server.server._index
    release = asyncio.Event()
    seal = index._seal

    async def slow(ratio: float, full: bool) -> None:
        await release.wait()
        await seal(ratio, full)

    monkeypatch.setattr(index, "_seal", slow)
    request = admin_pb2.CompactIndexRequest()
    running = asyncio.ensure_future(server.admin.CompactIndex(request))
    await eventually(lambda: index._sealing is not None)
    status = await server.admin.GetIndexStatus(admin_pb2.GetIndexStatusRequest())
    assert status.compacting
    with refused("ABORTED", "COMPACTION_RUNNING") as caught:
        await server.admin.CompactIndex(request)
    assert caught[0].details["RetryInfo"].retry_delay.seconds > 0
    # Matching goes on meanwhile.
    answer = await server.match.MatchClip(match_pb2.MatchClipRequest(content=song(3)))
    assert answer.query_id
    release.set()
    assert not (await running).compacting
