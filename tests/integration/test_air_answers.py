"""Which live channel, and when: clips, streams and lists on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tests.airing import RATE_HZ, add_monitor, broadcast
from tests.integration.rpc import Running, refused
from tests.media import encode
from tests.songs import cut, noise, song

from soundhash.v1 import (
    admin_pb2,
    catalog_pb2,
    match_pb2,
    monitors_pb2,
    monitors_pb2_grpc,
)
from soundhash_engine.types import Pcm
from soundhash_server.store.changes import Changes
from soundhash_workers.monitors import air_parts

PART_S, STEP_S = 60.0, 48.0
BEGUN = datetime(2026, 11, 21, 18, 3, 10, tzinfo=UTC)
PROGRAMME = song(170.0, 31)
"""Parts begin at 0, 48, 96 and 144 s."""


class OnAir(NamedTuple):
    """The stations that are on the air, and one that carries the programme of another."""

    x: UUID
    y: UUID
    video: catalog_pb2.Video
    token: UUID


@pytest.fixture(scope="module")
def small_parts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(air_parts, "_PART_SAMPLES", round(PART_S * RATE_HZ))
        patch.setattr(air_parts, "_STEP_SAMPLES", round(STEP_S * RATE_HZ))
        yield


async def followed(server: Running) -> None:
    """Waits until the server has taken in what was stored."""
    newest = await Changes(server.pool).current_revision()
    async with asyncio.timeout(10):
        while server.server._air.applied_revision < newest:
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
async def stations(server: Running, small_parts: None) -> OnAir:
    x, x_token = await add_monitor(server.pool, "Radio X")
    y, y_token = await add_monitor(server.pool, "Radio Y")
    await broadcast(server.pool, x_token, PROGRAMME, BEGUN)
    # The other one carries it a little later, and something else before.
    jingle = song(20.0, 40)
    await broadcast(
        server.pool,
        y_token,
        np.concatenate([jingle, cut(PROGRAMME, 0.0, 60.0)]),
        BEGUN - timedelta(seconds=16.0),
    )
    video = await server.add(encode(cut(PROGRAMME, 100.0, 30.0)), "The original.wav")
    await followed(server)
    return OnAir(x, y, video, x_token)


async def ask(server: Running, pcm: Pcm, **options: Any) -> list[match_pb2.Match]:
    request = match_pb2.MatchClipRequest(
        content=encode(pcm.astype(np.float32)), options=match_pb2.MatchOptions(**options)
    )
    return list((await server.match.MatchClip(request)).matches)


def s(value: Duration) -> float:
    return value.ToNanoseconds() / 1e9


def after_s(stamp: Timestamp) -> float:
    """Seconds after the programme began on Radio X."""
    return (stamp.ToDatetime(tzinfo=UTC) - BEGUN).total_seconds()


def shown(match: match_pb2.Match) -> tuple[str, float, float]:
    air = match.on_air
    return air.monitor_name, after_s(air.start_time), after_s(air.end_time)


@pytest.mark.parametrize(
    ("start_s", "length_s"),
    [
        (20.0, 5.0),
        (50.0, 8.0),  # within the overlap of two parts
        (42.0, 10.0),  # into it
        (50.0, 12.0),  # out of it
        (40.0, 25.0),  # over it
        (70.0, 90.0),  # over three parts
        (75.0, 2.0),
    ],
)
async def test_a_clip_is_one_passage_on_the_air(
    server: Running, stations: OnAir, start_s: float, length_s: float
) -> None:
    clip = cut(PROGRAMME, start_s, length_s) + noise(length_s, 3, 0.005)
    found = [one for one in await ask(server, clip, top=20) if one.HasField("on_air")]
    mine = [one for one in found if one.on_air.monitor_id == str(stations.x)]
    assert len(mine) == 1, [shown(one) for one in found]
    name, begin, end = shown(mine[0])
    assert name == "Radio X"
    assert begin == pytest.approx(start_s, abs=0.15)
    assert end == pytest.approx(start_s + length_s, abs=0.15)
    assert s(mine[0].clip_end) - s(mine[0].clip_start) == pytest.approx(length_s, abs=0.3)
    assert mine[0].video_id and mine[0].title.startswith("Radio X, 2026-11-21 18:0")


async def test_every_channel_that_carries_it_is_named(server: Running, stations: OnAir) -> None:
    found = await ask(server, cut(PROGRAMME, 30.0, 6.0))
    assert {shown(one)[0]: round(shown(one)[1], 1) for one in found} == {
        "Radio X": pytest.approx(30.0, abs=0.2),
        "Radio Y": pytest.approx(34.0, abs=0.2),
    }
    # The end of what the other one carried, over its own border.
    found = await ask(server, cut(PROGRAMME, 20.0, 38.0))
    assert sorted(shown(one)[0] for one in found) == ["Radio X", "Radio Y"]


async def test_a_video_comes_first_and_is_not_crowded_out(server: Running, stations: OnAir) -> None:
    clip = cut(PROGRAMME, 105.0, 8.0)
    found = await ask(server, clip)
    assert [one.HasField("on_air") for one in found] == [False, True]
    assert found[0].video_id == stations.video.id
    assert [one.video_id for one in await ask(server, clip, top=1)] == [stations.video.id]


async def test_what_played_faster_was_on_the_air_for_as_long_as_it_plays(
    server: Running, stations: OnAir
) -> None:
    """The clip is 5 % faster than the broadcast: twelve seconds of it are 12.6 on the air."""
    (found,) = [
        one
        for one in await ask(server, song(12.0, 31, tempo=1.05, pitch=1.05, start_s=20.0))
        if one.on_air.monitor_id == str(stations.x)
    ]
    _, begin, end = shown(found)
    assert end - begin == pytest.approx(12.6, abs=0.25)
    assert found.speed == pytest.approx(1.05, abs=0.004)


async def test_answers_are_remembered_and_explained(server: Running, stations: OnAir) -> None:
    clip = encode(cut(PROGRAMME, 40.0, 25.0))
    answer = await server.match.MatchClip(match_pb2.MatchClipRequest(content=clip))
    found = next(one for one in answer.matches if one.on_air.monitor_name == "Radio X")
    again = await server.match.GetMatch(match_pb2.GetMatchRequest(id=found.id))
    assert again == found
    listed = await server.match.ListMatches(match_pb2.ListMatchesRequest(query_id=answer.query_id))
    assert found in listed.matches
    for content in (b"", clip):
        told = await server.match.ExplainMatch(
            match_pb2.ExplainMatchRequest(match_id=found.id, content=content)
        )
        assert told.match.on_air == found.on_air
        assert told.place.score == pytest.approx(found.parts.score, abs=1.5)
        assert told.place.video_id == found.video_id
        assert [block.covered for block in told.blocks].count(True) >= 10


async def test_a_stream_names_the_channel(server: Running, stations: OnAir) -> None:
    async def requests() -> AsyncIterator[match_pb2.MatchStreamRequest]:
        pcm = match_pb2.PcmFormat(
            encoding=match_pb2.PCM_ENCODING_F32LE, sample_rate_hz=RATE_HZ, channels=1
        )
        yield match_pb2.MatchStreamRequest(config=match_pb2.MatchStreamConfig(pcm=pcm))
        audio = cut(PROGRAMME, 5.0, 15.0).tobytes()
        for at in range(0, len(audio), 16_000):
            yield match_pb2.MatchStreamRequest(audio=audio[at : at + 16_000])

    finals = [
        event.final
        async for event in server.match.MatchStream(requests())
        if event.HasField("final")
    ]
    by_name = {shown(one)[0]: shown(one) for one in finals}
    assert set(by_name) == {"Radio X", "Radio Y"}
    assert by_name["Radio X"][1:] == pytest.approx((5.0, 20.0), abs=0.3)


async def test_lists_and_counts_are_of_videos_alone(server: Running, stations: OnAir) -> None:
    listed = await server.catalog.ListVideos(catalog_pb2.ListVideosRequest())
    assert [one.id for one in listed.videos] == [stations.video.id]
    heard = await server.catalog.ListVideos(
        catalog_pb2.ListVideosRequest(monitor_id=str(stations.x))
    )
    assert [after_s(one.air_time) for one in heard.videos] == [144.0, 96.0, 48.0, 0.0]
    assert {one.monitor_id for one in heard.videos} == {str(stations.x)}
    search = catalog_pb2.SearchVideosRequest(query="Radio")
    assert not (await server.catalog.SearchVideos(search)).videos
    stats = await server.admin.GetStats(admin_pb2.GetStatsRequest())
    assert stats.video_count == stats.index.video_count == 1
    one = await server.catalog.GetVideo(catalog_pb2.GetVideoRequest(id=heard.videos[0].id))
    assert one == heard.videos[0]


async def test_a_video_of_the_air_can_be_deleted_alone(server: Running, stations: OnAir) -> None:
    extra = song(20.0, 77)
    (part_id,) = await broadcast(server.pool, stations.token, extra, BEGUN + timedelta(days=1))
    await followed(server)
    clip = cut(extra, 5.0, 6.0)
    assert [one.video_id for one in await ask(server, clip)] == [str(part_id)]
    await server.catalog.DeleteVideo(catalog_pb2.DeleteVideoRequest(id=str(part_id)))
    assert await ask(server, clip) == []


async def test_a_monitor_takes_with_it_what_it_heard(server: Running, stations: OnAir) -> None:
    stub = monitors_pb2_grpc.MonitorServiceStub(server.channel)
    z, token = await add_monitor(server.pool, "Radio Z")
    programme = song(130.0, 50)
    await broadcast(server.pool, token, programme, BEGUN)
    await followed(server)
    request = monitors_pb2.GetMonitorRequest(id=str(z))
    assert s((await stub.GetMonitor(request)).stats.kept_air) == 130.0
    clip = cut(programme, 90.0, 6.0)
    (found,) = await ask(server, clip)
    await stub.DeleteMonitor(monitors_pb2.DeleteMonitorRequest(id=str(z)))
    assert await ask(server, clip) == []
    with refused("NOT_FOUND", "MONITOR_NOT_FOUND"):
        await stub.GetMonitor(request)
    # What was answered stays.
    again = await server.match.GetMatch(match_pb2.GetMatchRequest(id=found.id))
    assert again.on_air.monitor_name == "Radio Z"
    with refused("NOT_FOUND", "VIDEO_NOT_FOUND"):
        await server.match.ExplainMatch(match_pb2.ExplainMatchRequest(match_id=found.id))
