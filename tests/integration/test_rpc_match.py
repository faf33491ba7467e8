"""MatchService: whole clips and past matches."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from tests.integration.rpc import Running, refused, running
from tests.media import encode, video
from tests.sounds import hiss, tune

from soundhash.v1 import catalog_pb2, match_pb2
from soundhash_server.embedded_valkey import Valkey

REFERENCE_S = 60.0


@pytest.fixture(scope="module")
async def songs(server: Running) -> list[catalog_pb2.Video]:
    """Three indexed songs."""
    return [
        await server.add(
            encode(tune(REFERENCE_S, 1)),
            "One.wav",
            external_id="one",
            source_url="https://www.youtube.com/watch?v=abc",
        ),
        await server.add(encode(tune(REFERENCE_S, 2), "mp3"), "Two.mp3"),
        await server.add(
            encode(tune(REFERENCE_S, 3), "ogg", rate_hz=44100),
            "Three.ogg",
            source_url="https://example.com/page",
        ),
    ]


def clip(seed: int, start_s: float, duration_s: float = 8.0) -> np.ndarray:
    return tune(REFERENCE_S, seed)[round(start_s * 8000) : round((start_s + duration_s) * 8000)]


async def ask(server: Running, content: bytes, **options: float) -> match_pb2.MatchClipResponse:
    return await server.match.MatchClip(
        match_pb2.MatchClipRequest(content=content, options=match_pb2.MatchOptions(**options))
    )


@pytest.mark.parametrize("container", ["wav", "mp3", "ogg", "opus", "mp4", "flac"])
async def test_a_clip_finds_its_video_and_the_second(
    server: Running, songs: list[catalog_pb2.Video], container: str
) -> None:
    answer = await ask(server, encode(clip(1, 20.0), container))
    (match,) = answer.matches
    assert match.video_id == songs[0].id
    assert match.title == "One"
    assert match.external_id == "one"
    start_s = match.video_start.ToTimedelta().total_seconds()
    clip_start_s = match.clip_start.ToTimedelta().total_seconds()
    assert start_s - clip_start_s == pytest.approx(20.0, abs=0.1)
    assert match.source_url == f"https://www.youtube.com/watch?v=abc&t={int(start_s)}s"
    assert match.speed == pytest.approx(1.0, abs=0.01)
    assert match.pitch == pytest.approx(1.0, abs=0.01)
    assert 0.5 < match.confidence <= 1.0
    assert match.parts.score >= 3.0
    assert answer.clip_duration.ToTimedelta().total_seconds() == pytest.approx(8.0, abs=0.2)
    assert answer.elapsed.ToNanoseconds() > 0


async def test_noise_over_the_clip_does_not_hide_it(
    server: Running, songs: list[catalog_pb2.Video]
) -> None:
    noisy = clip(3, 33.0) + (hiss(64000, 5) / 32768 * 0.05).astype(np.float32)
    answer = await ask(server, encode(noisy.astype(np.float32), "mp3", bit_rate=64000))
    assert answer.matches[0].video_id == songs[2].id
    assert answer.matches[0].source_url == "https://example.com/page"


async def test_an_unknown_clip_has_no_match(
    server: Running, songs: list[catalog_pb2.Video]
) -> None:
    answer = await ask(server, encode(tune(8.0, 999)))
    assert not answer.matches
    assert uuid.UUID(answer.query_id)


async def test_min_confidence_only_raises_the_threshold(
    server: Running, songs: list[catalog_pb2.Video]
) -> None:
    answer = await ask(server, encode(clip(2, 10.0)), min_confidence=1e-9)
    assert [match.video_id for match in answer.matches] == [songs[1].id]
    answer = await ask(server, encode(tune(8.0, 998)), min_confidence=1e-9)
    assert not answer.matches


async def test_past_matches(server: Running, songs: list[catalog_pb2.Video]) -> None:
    answers = [await ask(server, encode(clip(2, 5.0 + n))) for n in range(3)]
    match = answers[0].matches[0]
    assert await server.match.GetMatch(match_pb2.GetMatchRequest(id=match.id)) == match
    listed = await server.match.ListMatches(
        match_pb2.ListMatchesRequest(query_id=answers[1].query_id)
    )
    assert list(listed.matches) == list(answers[1].matches)
    pages = []
    token = ""
    while True:
        page = await server.match.ListMatches(
            match_pb2.ListMatchesRequest(video_id=songs[1].id, page_size=1, page_token=token)
        )
        pages += list(page.matches)
        token = page.next_page_token
        if not token:
            break
    newest = [answer.matches[0].id for answer in reversed(answers)]
    assert [match.id for match in pages][:3] == newest
    with refused("NOT_FOUND", "MATCH_NOT_FOUND"):
        await server.match.GetMatch(match_pb2.GetMatchRequest(id=str(uuid.uuid4())))
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await server.match.ListMatches(match_pb2.ListMatchesRequest(video_id="nonsense"))
    assert list(caught[0].fields) == ["video_id"]
    with refused("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID"):
        await server.match.ListMatches(match_pb2.ListMatchesRequest(page_token="xyz"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "EMPTY_MEDIA"),
        (b"this is not a sound at all, it is some text" * 50, "NOT_MEDIA"),
        (bytes(100_000), "NOT_MEDIA"),
        (encode(tune(0.9, 1)), "CLIP_TOO_SHORT"),
        (encode(np.zeros(40_000, np.float32)), "SILENT_AUDIO"),
        (encode(tune(5.0, 1))[:30], "TRUNCATED_MEDIA"),
        (video(None), "NO_AUDIO_STREAM"),
    ],
    ids=["empty", "text", "zeros", "short", "silent", "truncated", "video-only"],
)
async def test_clips_that_cannot_be_used(server: Running, content: bytes, reason: str) -> None:
    with refused("INVALID_ARGUMENT", reason):
        await ask(server, content)


async def test_a_clip_over_its_limits(server: Running) -> None:
    with refused("INVALID_ARGUMENT", "CLIP_TOO_LONG"):
        await ask(server, encode(np.tile(tune(10.0, 1), 61)))
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await ask(server, bytes((32 << 20) + 1))
    assert list(caught[0].fields) == ["content"]
    with refused("RESOURCE_EXHAUSTED"):
        await ask(server, bytes(40 << 20))


async def test_bad_options_name_their_fields(server: Running) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await ask(server, b"x", top=101, min_confidence=1.5)
    assert sorted(caught[0].fields) == ["options.min_confidence", "options.top"]


async def test_a_deleted_video_is_gone_at_once(server: Running) -> None:
    pcm = tune(30.0, 50)
    video_added = await server.add(encode(pcm))
    content = encode(pcm[80_000:144_000])
    assert (await ask(server, content)).matches[0].video_id == video_added.id
    await server.catalog.DeleteVideo(catalog_pb2.DeleteVideoRequest(id=video_added.id))
    assert not (await ask(server, content)).matches
    # The record of what was said stays.
    past = await server.match.ListMatches(match_pb2.ListMatchesRequest(video_id=video_added.id))
    assert len(past.matches) == 1


async def test_more_clips_than_fit_are_turned_away(
    database_factory: Callable[[], AsyncIterator[str]], valkey_server: Valkey, data_dir
) -> None:
    async for url in database_factory():
        async with running(
            url, valkey_server.url, data_dir, max_pending_matches=2, cpu_threads=1
        ) as small:
            content = encode(tune(60.0, 4), "ogg")
            answers = await asyncio.gather(
                *(ask(small, content) for _ in range(12)), return_exceptions=True
            )
            turned_away = [one for one in answers if isinstance(one, Exception)]
            assert turned_away and len(turned_away) < 12
            with refused("RESOURCE_EXHAUSTED", "SERVER_BUSY") as caught:
                raise turned_away[0]
            assert caught[0].details["RetryInfo"].retry_delay.ToMilliseconds() > 0
            assert caught[0].details["QuotaFailure"].violations
            # And the line is free again.
            assert not (await ask(small, content)).matches


async def test_a_clip_past_its_deadline_frees_its_place(server: Running) -> None:
    content = encode(tune(60.0, 4), "ogg")
    with refused("DEADLINE_EXCEEDED"):
        await server.match.MatchClip(match_pb2.MatchClipRequest(content=content), timeout=0.02)
    cpu = server.server._cpu
    async with asyncio.timeout(5):
        while cpu.pending:
            await asyncio.sleep(0.01)


async def test_hostile_bytes_do_not_hurt(server: Running) -> None:
    good = encode(tune(3.0, 6), "mp4")
    generator = np.random.default_rng(7)
    for _ in range(20):
        damaged = bytearray(good)
        for at in generator.integers(0, len(good), 40):
            damaged[at] = generator.integers(256)
        try:
            await ask(server, bytes(damaged))
        except Exception as error:
            with refused("INVALID_ARGUMENT"):
                raise error
