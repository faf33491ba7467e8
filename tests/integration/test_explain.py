"""MatchService.ExplainMatch on a real server: what speaks for a match, and what cannot be told."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.integration.rpc import Running, refused
from tests.media import encode
from tests.songs import cut, noise, song

from soundhash.v1 import catalog_pb2, match_pb2

LENGTH_S = 50.0
RATE_HZ = 8000
CODES = {
    "MATCH_NOT_FOUND": "NOT_FOUND",
    "VIDEO_NOT_FOUND": "NOT_FOUND",
    "NOTHING_TO_EXPLAIN": "NOT_FOUND",
    "CLIP_NEEDED": "FAILED_PRECONDITION",
    "CLIP_DIFFERS": "FAILED_PRECONDITION",
}


async def explain(server: Running, **request: Any) -> match_pb2.ExplainMatchResponse:
    return await server.match.ExplainMatch(match_pb2.ExplainMatchRequest(**request))


def s(value: Duration) -> float:
    return value.ToNanoseconds() / 1e9


async def fails(server: Running, reason: str, **request: Any) -> None:
    with refused(CODES.get(reason, "INVALID_ARGUMENT"), reason):
        await explain(server, **request)


def faster() -> np.ndarray:
    """6 s of song 2, played 6 % faster and higher, under noise."""
    return cut(song(LENGTH_S, 2, tempo=1.06, pitch=1.06), 12.0, 6.0) + noise(6.0, 5, 0.02)


@pytest.fixture(scope="module")
async def songs(server: Running) -> list[catalog_pb2.Video]:
    return [
        await server.add(
            encode(song(LENGTH_S, seed)),
            f"Song {seed}.wav",
            source_url="https://www.youtube.com/watch?v=abc" if seed == 2 else "",
        )
        for seed in (1, 2, 3)
    ]


async def matched(server: Running, pcm: np.ndarray) -> match_pb2.Match:
    content = encode(pcm.astype(np.float32))
    answer = await server.match.MatchClip(match_pb2.MatchClipRequest(content=content))
    return answer.matches[0]


async def test_a_match_of_a_changed_clip_is_explained_by_its_id_alone(
    server: Running, songs: list[catalog_pb2.Video]
) -> None:
    found = await matched(server, faster())
    told = await explain(server, match_id=found.id)
    assert told.match == found
    assert told.from_kept
    place = told.place
    assert (place.video_id, place.title) == (songs[1].id, "Song 2")
    assert place.source_url.startswith("https://www.youtube.com/watch?v=abc&t=")
    assert place.speed == pytest.approx(1.06, abs=0.005)
    assert place.pitch == pytest.approx(1.06, abs=0.005)
    assert place.score == pytest.approx(found.parts.score, abs=1.0)
    assert place.score == pytest.approx(sum(term.contribution for term in place.terms))
    assert all(term.description for term in place.terms)
    assert told.match_score < place.score
    assert told.catalogue_hours == pytest.approx(3 * LENGTH_S / 3600, rel=0.01)
    # Aligned landmarks lie on the line that the match says.
    ours, theirs, pairs = told.clip_landmarks, told.video_landmarks, told.aligned
    assert len(pairs.clip) == len(pairs.video) == pairs.total > 30
    assert len(ours.time_s) == len(ours.frequency_hz) == len(ours.strength) == ours.total
    clip_s = np.array(ours.time_s)[list(pairs.clip)]
    video_s = np.array(theirs.time_s)[list(pairs.video)]
    predicted_s = s(place.video_start) + place.speed * (clip_s - s(place.clip_start))
    assert np.abs(video_s - predicted_s).max() < 0.03
    ratio = np.array(ours.frequency_hz)[list(pairs.clip)]
    ratio /= np.array(theirs.frequency_hz)[list(pairs.video)]
    assert np.median(ratio) == pytest.approx(1.06, abs=0.005)
    # The votes stand alone in the middle.
    votes = np.array(told.offsets.votes)
    middle = round(-told.offsets.first_offset_s / told.offsets.bin_s)
    assert abs(int(votes.argmax()) - middle) <= 1
    assert votes.max() > 10 * max(told.offsets.background, 1.0)
    # Both sides are there, and alike.
    sides = [np.frombuffer(one.cells, np.uint8) for one in (told.patches.clip, told.patches.video)]
    assert sides[0].size == told.patches.clip.rows * told.patches.clip.bands > 1000
    assert np.corrcoef(*sides)[0, 1] > 0.5
    assert np.mean([block.covered for block in told.blocks]) > 0.8
    assert all(one.score < place.score - 3.0 for one in told.runners_up)
    assert all(one.title for one in told.runners_up)


async def test_the_clip_itself_says_the_same(
    server: Running, songs: list[catalog_pb2.Video]
) -> None:
    content = encode(faster().astype(np.float32))
    found = await matched(server, faster())
    kept = await explain(server, match_id=found.id)
    again = await explain(server, match_id=found.id, content=content)
    alone = await explain(server, content=content)
    assert (kept.from_kept, again.from_kept, alone.from_kept) == (True, False, False)
    assert again.place.score == pytest.approx(found.parts.score, abs=0.01)
    assert kept.place.score == pytest.approx(again.place.score, abs=1.0)
    assert alone.match.id == ""
    assert alone.place.score == pytest.approx(again.place.score, abs=0.01)
    assert alone.match.video_id == songs[1].id
    shorter = encode(cut(faster(), 0.0, 3.0))
    await fails(server, "CLIP_DIFFERS", match_id=found.id, content=shorter)


async def test_one_video_can_be_asked_for(server: Running, songs: list[catalog_pb2.Video]) -> None:
    both = np.concatenate([cut(song(LENGTH_S, i), 20.0, 6.0) for i in (1, 3)])
    told = await explain(server, content=encode(both), video_id=songs[2].id)
    assert told.match.video_id == songs[2].id
    assert s(told.place.clip_end) > 6.0
    clip = encode(cut(song(LENGTH_S, 1), 20.0, 6.0))
    await fails(server, "NOTHING_TO_EXPLAIN", content=clip, video_id=songs[2].id)
    unknown = str(uuid.uuid4())
    await fails(server, "VIDEO_NOT_FOUND", content=clip, video_id=unknown)


async def test_a_match_of_a_stream_is_explained(
    server: Running, songs: list[catalog_pb2.Video]
) -> None:
    pcm = np.concatenate([noise(8.0, 3), cut(song(LENGTH_S, 3), 5.0, 40.0)])
    data = (np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes()
    pcm_format = match_pb2.PcmFormat(
        encoding=match_pb2.PCM_ENCODING_S16LE, sample_rate_hz=RATE_HZ, channels=1
    )
    messages = [
        match_pb2.MatchStreamRequest(config=match_pb2.MatchStreamConfig(pcm=pcm_format)),
        *(
            match_pb2.MatchStreamRequest(audio=data[at : at + 65536])
            for at in range(0, len(data), 65536)
        ),
    ]
    events = [event async for event in server.match.MatchStream(iter(messages))]
    found = next(event.final for event in events if event.HasField("final"))
    told = await explain(server, match_id=found.id)
    assert told.place.video_id == songs[2].id
    assert s(told.place.clip_start) > 10.0
    assert s(told.place.video_start) - s(told.place.clip_start) == pytest.approx(-3.0, abs=0.1)
    assert told.place.score > told.match_score


async def test_what_cannot_be_explained_is_said(server: Running) -> None:
    unknown = str(uuid.uuid4())
    await fails(server, "MATCH_NOT_FOUND", match_id=unknown)
    await fails(server, "INVALID_REQUEST")
    await fails(server, "INVALID_REQUEST", match_id="seven")
    await fails(server, "INVALID_REQUEST", match_id=unknown, video_id=unknown)
    await fails(server, "NOT_MEDIA", content=b"no media")
    stranger = encode(cut(song(LENGTH_S, 77), 5.0, 5.0))
    await fails(server, "NOTHING_TO_EXPLAIN", content=stranger)


async def test_a_deleted_video_and_features_that_are_gone(
    server: Running, songs: list[catalog_pb2.Video]
) -> None:
    clip = cut(song(LENGTH_S, 9), 10.0, 5.0)
    video = await server.add(encode(song(LENGTH_S, 9)), "Nine.wav")
    found = await matched(server, clip)
    assert (await explain(server, match_id=found.id)).match.video_id == video.id
    # Expired ones are not given, swept or not.
    await server.pool.execute(
        "UPDATE clip_parts SET create_time = now() - interval '4 days' WHERE query_id = $1",
        uuid.UUID(found.query_id),
    )
    await fails(server, "CLIP_NEEDED", match_id=found.id)
    assert (await explain(server, match_id=found.id, content=encode(clip))).place.score > 5
    # As left behind by an earlier version of the fingerprint.
    await server.pool.execute(
        "UPDATE clip_parts SET create_time = now(), features = '\\x00' WHERE query_id = $1",
        uuid.UUID(found.query_id),
    )
    await fails(server, "CLIP_NEEDED", match_id=found.id)
    await server.catalog.DeleteVideo(catalog_pb2.DeleteVideoRequest(id=video.id))
    await fails(server, "VIDEO_NOT_FOUND", match_id=found.id)


async def test_what_is_old_is_swept(server: Running, songs: list[catalog_pb2.Video]) -> None:
    from soundhash_server.store.clip_parts import ClipParts

    found = await matched(server, cut(song(LENGTH_S, 1), 10.0, 5.0))
    await explain(server, match_id=found.id)
    kept = await server.pool.fetchval("SELECT count(*) FROM clip_parts")
    await server.pool.execute(
        "UPDATE clip_parts SET create_time = now() - interval '4 days' WHERE query_id = $1",
        uuid.UUID(found.query_id),
    )
    assert await ClipParts(server.pool, keep_days=3.0).sweep() == 1
    assert await server.pool.fetchval("SELECT count(*) FROM clip_parts") == kept - 1
