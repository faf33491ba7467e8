"""Videos, fingerprints, changes, matches and totals, against a real PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from tests.records import DIGEST, add_video, make_segments, new_video, sha256_of

from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.model import JobState, MatchRecord, ScoreParts, Video
from soundhash_server.store.changes import Changes
from soundhash_server.store.fingerprints import Fingerprints
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.matches import Matches
from soundhash_server.store.pool import Pool
from soundhash_server.store.stats import totals
from soundhash_server.store.videos import Videos

PARTS = ScoreParts(5.0, 4.0, 3.0, 0.9, 0.8, 0.1, 9.5, 0.95)


@pytest.fixture
def jobs(pool: Pool) -> Jobs:
    return Jobs(pool)


@pytest.fixture
def videos(pool: Pool) -> Videos:
    return Videos(pool)


@pytest.fixture
def changes(pool: Pool) -> Changes:
    return Changes(pool)


async def read(videos: Videos, video_id: UUID) -> Video:
    video = await videos.get(video_id)
    assert video is not None
    return video


async def all_pages(videos: Videos, page_size: int, **filters: str) -> list[str]:
    titles, token = [], ""
    while True:
        page = await videos.list(page_size, token, **filters)
        assert len(page.items) <= page_size
        titles += [video.title for video in page.items]
        token = page.next_page_token
        if not token:
            return titles


async def test_stored_video_is_found_by_all_its_names(jobs: Jobs, videos: Videos) -> None:
    given = new_video(
        title="Tränen lügen nicht",
        source_url="https://a.example/watch",
        external_id="ext-1",
        channel="Michael",
        source_key="url:https://a.example/watch",
    )
    video_id = await add_video(jobs, given, make_segments(3))
    video = await read(videos, video_id)
    assert (video.title, video.channel, video.external_id) == (given.title, "Michael", "ext-1")
    assert (video.segment_count, video.landmark_count) == (3, 303)
    assert (video.params_digest, video.duration_s) == (DIGEST, 180.0)
    assert await videos.by_sha256(given.content_sha256) == video
    assert await videos.by_source_key(given.source_key) == video
    assert await videos.by_recording_ids([video.recording_id, 999]) == {video.recording_id: video}
    assert await videos.external_id_taken("ext-1")
    assert not await videos.external_id_taken("ext-2")
    assert await videos.get(uuid4()) is None
    assert await videos.by_recording_ids([]) == {}


async def test_segments_come_back_byte_for_byte(jobs: Jobs, pool: Pool) -> None:
    segments = make_segments(12, salt="x")
    video_id = await add_video(jobs, new_video(), segments)
    assert await Fingerprints(pool).segments(video_id) == segments
    assert await Fingerprints(pool).segments(uuid4()) == []
    (listed,) = (await Fingerprints(pool).list(10, "")).items
    assert listed.id == video_id


async def test_pages_are_stable_while_rows_come_and_go(jobs: Jobs, videos: Videos) -> None:
    made = [await add_video(jobs, new_video(title=f"song {i:02}")) for i in range(12)]
    page = await videos.list(5, "")
    seen = [video.title for video in page.items]
    while page.next_page_token:
        # Newer ones appear, and the last row of the page before goes away.
        await add_video(jobs, new_video(title=f"new {len(seen)}"))
        await videos.delete(page.items[-1].id)
        page = await videos.list(5, page.next_page_token)
        seen += [video.title for video in page.items]
    assert seen == [f"song {i:02}" for i in reversed(range(len(made)))]


async def test_page_sizes_and_filters(jobs: Jobs, videos: Videos) -> None:
    for i in range(6):
        await add_video(jobs, new_video(title=f"t{i}", channel=f"c{i % 2}", external_id=f"e{i}"))
    everything = [f"t{i}" for i in reversed(range(6))]
    for size in (1, 2, 3, 6, 7):
        assert await all_pages(videos, size) == everything
    assert await all_pages(videos, 2, channel="c1") == ["t5", "t3", "t1"]
    assert await all_pages(videos, 2, external_id="e4") == ["t4"]
    assert await all_pages(videos, 2, channel="nobody") == []
    assert len((await videos.list(0, "")).items) == 6


async def test_page_token_belongs_to_its_list(jobs: Jobs, videos: Videos) -> None:
    for i in range(3):
        await add_video(jobs, new_video(title=f"t{i}", channel="c"))
    token = (await videos.list(1, "", channel="c")).next_page_token
    assert token
    for bad in (token[:-2], "%%%", "AAAA", token + "AAAA", "x" * 512):
        with pytest.raises(PlatformError) as refused:
            await videos.list(1, bad, channel="c")
        assert refused.value.kind is ErrorKind.INVALID_ARGUMENT
        assert refused.value.reason == "PAGE_TOKEN_INVALID"
    with pytest.raises(PlatformError):
        await videos.list(1, token, channel="other")
    with pytest.raises(PlatformError):
        await jobs.list(1, token)


async def test_search_finds_every_word_best_first(jobs: Jobs, videos: Videos) -> None:
    for title, channel in (
        ("Blue", "A"),
        ("So blue", "A"),
        ("Something else", "The Blue Band"),
        ("Red", "A"),
        ("Blue skies", "A"),
        ("100% blue_ish", "Ärzte"),
    ):
        await add_video(jobs, new_video(title=title, channel=channel, external_id=title))
    found = await videos.search("bLuE", 10, "")
    assert [video.title for video in found.items] == [
        "Blue",
        "Blue skies",
        "100% blue_ish",
        "So blue",
        "Something else",
    ]
    assert [v.title for v in (await videos.search("band blue", 10, "")).items] == ["Something else"]
    assert [v.title for v in (await videos.search("ärzTE", 10, "")).items] == ["100% blue_ish"]
    assert [v.title for v in (await videos.search("0% e_i", 10, "")).items] == ["100% blue_ish"]
    assert [v.title for v in (await videos.search("%", 10, "")).items] == ["100% blue_ish"]
    assert (await videos.search("   ", 10, "")).items == ()

    paged: list[Video] = []
    token = ""
    while True:
        page = await videos.search("blue", 2, token)
        paged += page.items
        token = page.next_page_token
        if not token:
            break
    assert tuple(paged) == found.items


async def test_update_changes_what_is_named(jobs: Jobs, videos: Videos) -> None:
    await add_video(jobs, new_video(title="other", external_id="taken"))
    video_id = await add_video(jobs, new_video(external_id="mine", channel="c"))
    before = await read(videos, video_id)
    after = await videos.update(video_id, title="New title", channel="d", source_url="https://x.y/")
    assert after is not None
    assert (after.title, after.channel, after.source_url) == ("New title", "d", "https://x.y/")
    assert (after.external_id, after.revision) == ("mine", before.revision)
    assert after.update_time > before.update_time
    with pytest.raises(PlatformError) as taken:
        await videos.update(video_id, title="never", external_id="taken")
    assert taken.value.reason == "EXTERNAL_ID_TAKEN"
    assert (await read(videos, video_id)).title == "New title"
    cleared = await videos.update(video_id, external_id="", channel="")
    assert cleared is not None
    assert (cleared.external_id, cleared.channel) == ("", "")
    assert await videos.update(uuid4(), title="x") is None
    with pytest.raises(ValueError, match="duration_s"):
        await videos.update(video_id, duration_s="1")
    with pytest.raises(PlatformError) as nul:
        await videos.update(video_id, title="a\0b")
    assert nul.value.reason == "TEXT_INVALID"


async def test_delete_leaves_a_tombstone_and_nothing_else(
    jobs: Jobs, videos: Videos, changes: Changes, pool: Pool
) -> None:
    video_id = await add_video(jobs, new_video(), make_segments(4))
    recording_id = (await read(videos, video_id)).recording_id
    revision = await changes.current_revision()
    deleted = await asyncio.gather(*(videos.delete(video_id) for _ in range(5)))
    assert sorted(deleted, key=str) == sorted([recording_id, None, None, None, None], key=str)
    assert await pool.fetchval("SELECT count(*) FROM audio_fingerprints") == 0
    since = await changes.since(revision)
    assert (since.changed, since.deleted) == ([], [recording_id])
    assert since.revision == revision + 1

    again = await add_video(jobs, new_video(), make_segments(4))
    assert (await read(videos, again)).recording_id > recording_id, "never reused"


async def test_changes_load_what_exists(jobs: Jobs, videos: Videos, changes: Changes) -> None:
    ids = [
        await add_video(jobs, new_video(title=f"t{i}"), make_segments(300, salt=f"{i}-"))
        for i in range(4)
    ]
    known = [await read(videos, video_id) for video_id in ids]
    revision, revisions = await changes.all_revisions()
    assert revisions == {video.recording_id: video.revision for video in known}
    assert revision == max(revisions.values())
    await videos.delete(ids[1])
    loaded = {
        recording_id: (found, segments)
        async for recording_id, found, segments in changes.load([*revisions, 999])
    }
    assert set(loaded) == {known[i].recording_id for i in (0, 2, 3)}
    for i in (0, 2, 3):
        found, segments = loaded[known[i].recording_id]
        assert found == known[i].revision
        assert segments == make_segments(300, salt=f"{i}-")


async def test_reader_never_misses_a_change_under_concurrent_writers(
    jobs: Jobs, videos: Videos, changes: Changes
) -> None:
    """A reader that polls since() ends with exactly what the database has, and each of its
    answers is complete up to the revision that it names."""
    done = asyncio.Event()

    async def write(writer: int) -> None:
        mine: list[UUID] = []
        for i in range(8):
            mine.append(await add_video(jobs, new_video(title=f"{writer}-{i}"), make_segments(3)))
            if i % 3 == 2:
                await videos.delete(mine.pop(0))

    async def follow() -> dict[int, int]:
        held: dict[int, int] = {}
        revision = 0
        seen_revisions: set[int] = set()
        while True:
            last = done.is_set()
            found = await changes.since(revision)
            news = {item_revision for _, item_revision in found.changed}
            assert all(revision < item <= found.revision for item in news)
            assert not news & seen_revisions, "told twice"
            seen_revisions |= news
            held.update(found.changed)
            for recording_id in found.deleted:
                held.pop(recording_id, None)
            revision = found.revision
            if last:
                return held
            await asyncio.sleep(0.002)

    followers = [asyncio.create_task(follow()) for _ in range(2)]
    await asyncio.gather(*(write(number) for number in range(6)))
    done.set()
    _, truth = await changes.all_revisions()
    assert len(truth) == 6 * 6
    assert [await follower for follower in followers] == [truth, truth]
    assert len(set(truth.values())) == len(truth), "every change has a revision of its own"


def match_of(video_id: UUID, **more: float) -> MatchRecord:
    return MatchRecord(
        id=None,
        query_id=None,
        video_id=video_id,
        title="A song",
        source_url="",
        external_id="",
        clip_start_s=0.0,
        clip_end_s=10.0,
        video_start_s=more.get("video_start_s", 30.0),
        video_end_s=40.0,
        speed=1.0,
        pitch=1.0,
        confidence=0.99,
        parts=PARTS,
        also_at_s=(90.5, 120.25),
        create_time=datetime.now(UTC),
    )


async def test_matches_are_kept_after_their_video(jobs: Jobs, videos: Videos, pool: Pool) -> None:
    matches = Matches(pool)
    video_id = await add_video(jobs, new_video())
    other_id = uuid4()
    query_id, stored = await matches.record(
        "CLIP", 10.0, 0.01, [match_of(video_id), match_of(other_id, video_start_s=31.0)]
    )
    assert [match.query_id for match in stored] == [query_id, query_id]
    assert stored[0].id is not None
    await videos.delete(video_id)
    assert await matches.get(stored[0].id) == stored[0]
    assert await matches.get(uuid4()) is None

    empty_id, none = await matches.record("STREAM", 60.0, 0.5, [])
    assert none == []
    assert (await matches.list(10, "", query_id=empty_id)).items == ()
    for _ in range(3):
        await matches.record("CLIP", 10.0, 0.01, [match_of(video_id)])
    assert (await matches.list(10, "", video_id=other_id)).items == (stored[1],)
    by_query = await matches.list(10, "", query_id=query_id)
    assert {match.id for match in by_query.items} == {match.id for match in stored}
    page = await matches.list(3, "", video_id=video_id)
    rest = await matches.list(3, page.next_page_token, video_id=video_id)
    assert len(page.items) + len(rest.items) == 4
    assert rest.items == (stored[0],)


async def test_totals(jobs: Jobs, pool: Pool) -> None:
    empty = await totals(pool)
    assert (empty.videos, empty.audio_s, empty.segments, empty.landmarks) == (0, 0.0, 0, 0)
    await add_video(jobs, new_video(title="a"), make_segments(2))
    await add_video(jobs, new_video(title="b"), make_segments(3))
    await Matches(pool).record("CLIP", 10.0, 0.01, [match_of(uuid4())])
    counted = await totals(pool)
    assert (counted.videos, counted.audio_s, counted.segments) == (2, 360.0, 5)
    assert (counted.landmarks, counted.matches) == (504, 1)
    assert counted.jobs[JobState.SUCCEEDED] == 2
    assert counted.jobs[JobState.FAILED] == 0


async def test_content_of_two_videos_is_never_mixed(jobs: Jobs, pool: Pool) -> None:
    ids = await asyncio.gather(
        *(
            add_video(
                jobs,
                new_video(title=f"t{i}", channel=f"c{i % 3}", content_sha256=sha256_of(f"t{i}")),
                make_segments(5, salt=f"{i}-"),
            )
            for i in range(10)
        )
    )
    fingerprints = Fingerprints(pool)
    for i, video_id in enumerate(ids):
        assert await fingerprints.segments(video_id) == make_segments(5, salt=f"{i}-")
    assert await pool.fetchval("SELECT count(*) FROM channels") == 3
