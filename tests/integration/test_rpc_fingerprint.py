"""FingerprintService."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import cast

import numpy as np
import pytest
from tests.integration.rpc import Running, eventually, refused, split
from tests.media import encode, video
from tests.sounds import tune

from soundhash.v1 import catalog_pb2, fingerprint_pb2
from soundhash_engine import PARAMS, extract
from soundhash_server.services import fingerprints

FULL = fingerprint_pb2.FINGERPRINT_VIEW_FULL


@pytest.fixture(scope="module")
async def song(server: Running) -> catalog_pb2.Video:
    """One indexed song of two segments."""
    return await server.add(encode(tune(100.0, 1)), "One.wav")


async def compute(server: Running, content: bytes) -> fingerprint_pb2.Fingerprint:
    async def requests() -> AsyncIterator:
        for chunk in split(content, 50_000):
            yield fingerprint_pb2.ComputeRequest(chunk=chunk)

    return await server.fingerprint.Compute(requests())


async def stored(
    server: Running, video_id: str, view: fingerprint_pb2.FingerprintView.ValueType = FULL
) -> fingerprint_pb2.Fingerprint:
    return await server.fingerprint.GetFingerprint(
        fingerprint_pb2.GetFingerprintRequest(video_id=video_id, view=view)
    )


async def test_what_is_stored_is_what_is_computed(server: Running, song: catalog_pb2.Video) -> None:
    kept = await stored(server, song.id)
    made = await compute(server, encode(tune(100.0, 1)))
    assert made.video_id == ""
    assert list(made.segments) == list(kept.segments)
    assert made.params_digest == kept.params_digest == PARAMS.digest
    assert kept.video_id == song.id
    assert kept.segment_count == len(kept.segments) == 2
    assert kept.landmark_count == sum(one.landmark_count for one in kept.segments)
    assert kept.duration.ToTimedelta().total_seconds() == pytest.approx(100.0)
    assert [one.start.seconds for one in kept.segments] == [0, 90]
    assert len(kept.segments[0].md5) == 32
    vector = np.frombuffer(kept.segments[0].vector, "<f4")
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-4)
    assert server.files_left() == []


async def test_the_basic_view_is_without_segments(server: Running, song: catalog_pb2.Video) -> None:
    full = await stored(server, song.id)
    for view in (
        fingerprint_pb2.FINGERPRINT_VIEW_UNSPECIFIED,
        fingerprint_pb2.FINGERPRINT_VIEW_BASIC,
    ):
        basic = await stored(server, song.id, view)
        assert not basic.segments
        full.ClearField("segments")
        assert basic == full
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await stored(server, song.id, cast("fingerprint_pb2.FingerprintView.ValueType", 77))
    assert list(caught[0].fields) == ["view"]


async def test_a_fingerprint_too_large_for_an_answer(
    server: Running, song: catalog_pb2.Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "MAX_ANSWER_BYTES", 1000)
    with refused("RESOURCE_EXHAUSTED", "FINGERPRINT_TOO_LARGE") as caught:
        await stored(server, song.id)
    assert caught[0].metadata["max_bytes"] == "1000"
    assert (await stored(server, song.id, fingerprint_pb2.FINGERPRINT_VIEW_BASIC)).segment_count


async def test_fingerprints_are_listed(server: Running, song: catalog_pb2.Video) -> None:
    other = await server.add(encode(tune(5.0, 2)))
    page = await server.fingerprint.ListFingerprints(
        fingerprint_pb2.ListFingerprintsRequest(page_size=1)
    )
    assert [one.video_id for one in page.fingerprints] == [other.id]
    assert not page.fingerprints[0].segments
    rest = await server.fingerprint.ListFingerprints(
        fingerprint_pb2.ListFingerprintsRequest(page_token=page.next_page_token)
    )
    assert song.id in [one.video_id for one in rest.fingerprints]
    with refused("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID"):
        await server.fingerprint.ListFingerprints(
            fingerprint_pb2.ListFingerprintsRequest(page_token="!!")
        )


async def test_an_unknown_video_has_no_fingerprint(server: Running) -> None:
    with refused("NOT_FOUND", "VIDEO_NOT_FOUND"):
        await stored(server, str(uuid.uuid4()))
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
        await stored(server, "1")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "EMPTY_MEDIA"),
        (b"only text here " * 1000, "NOT_MEDIA"),
        (video(None), "NO_AUDIO_STREAM"),
        (encode(tune(5.0, 1))[:30], "TRUNCATED_MEDIA"),
        (encode(tune(0.5, 1)), "CLIP_TOO_SHORT"),
        (encode(np.zeros(80_000, np.float32)), "SILENT_AUDIO"),
    ],
    ids=["empty", "text", "video-only", "truncated", "short", "silent"],
)
async def test_media_that_cannot_be_computed(server: Running, content: bytes, reason: str) -> None:
    with refused("INVALID_ARGUMENT", reason):
        await compute(server, content)
    assert server.files_left() == []


async def test_compute_is_bounded(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "MAX_COMPUTE_BYTES", 100_000)
    with refused("INVALID_ARGUMENT", "CLIP_TOO_LONG"):
        await compute(server, encode(tune(10.0, 1)))
    monkeypatch.undo()
    monkeypatch.setattr(fingerprints, "MAX_COMPUTE_S", 5.0)
    with refused("INVALID_ARGUMENT", "CLIP_TOO_LONG"):
        await compute(server, encode(tune(10.0, 1)))
    assert server.files_left() == []


async def test_a_compute_that_is_given_up_leaves_nothing(server: Running) -> None:
    async def endless() -> AsyncIterator:
        for chunk in split(encode(tune(5.0, 1)), 1000):
            yield fingerprint_pb2.ComputeRequest(chunk=chunk)
        await asyncio.sleep(30)

    with refused("DEADLINE_EXCEEDED"):
        await server.fingerprint.Compute(endless(), timeout=0.3)
    await eventually(lambda: server.files_left() == [])


def media(content: bytes) -> fingerprint_pb2.FingerprintSource:
    return fingerprint_pb2.FingerprintSource(content=content)


def given(pcm: np.ndarray, digest: str = PARAMS.digest) -> fingerprint_pb2.FingerprintSource:
    from soundhash_server.rpc.convert import segment_message

    return fingerprint_pb2.FingerprintSource(
        fingerprint=fingerprint_pb2.Fingerprint(
            params_digest=digest, segments=[segment_message(one) for one in extract(pcm)]
        )
    )


async def compare(
    server: Running,
    first: fingerprint_pb2.FingerprintSource,
    second: fingerprint_pb2.FingerprintSource,
) -> fingerprint_pb2.CompareResponse:
    return await server.fingerprint.Compare(
        fingerprint_pb2.CompareRequest(first=first, second=second)
    )


@pytest.mark.parametrize(
    "second",
    [
        lambda pcm: media(encode(pcm, "mp3")),
        given,
    ],
    ids=["media", "fingerprint"],
)
async def test_comparing_a_stored_video(
    server: Running,
    song: catalog_pb2.Video,
    second: Callable[[np.ndarray], fingerprint_pb2.FingerprintSource],
) -> None:
    whole = fingerprint_pb2.FingerprintSource(video_id=song.id)
    found = await compare(server, whole, second(tune(100.0, 1)[240_000:400_000]))
    assert found.same_audio
    assert found.confidence > 0.5
    assert found.offset.ToTimedelta().total_seconds() == pytest.approx(30.0, abs=0.15)
    assert found.speed == pytest.approx(1.0, abs=0.01)
    assert found.pitch == pytest.approx(1.0, abs=0.01)
    assert found.correlation > 0.5
    assert 0.0 <= found.distance < 1.2
    assert -1.0 <= found.vector_similarity <= 1.001
    (passage,) = found.passages
    times = (passage.first_start, passage.first_end, passage.second_start, passage.second_end)
    assert [one.ToTimedelta().total_seconds() for one in times] == pytest.approx(
        [30.0, 50.0, 0.0, 20.0], abs=0.5
    )
    assert (passage.speed, passage.pitch) == (found.speed, found.pitch)
    assert passage.confidence == found.confidence
    assert passage.parts.correlation == found.correlation
    assert passage.parts.distance == found.distance
    assert passage.parts.score > 3.0 and passage.parts.coverage > 0.9
    other = await compare(server, whole, second(tune(20.0, 77)))
    assert not other.same_audio and not other.passages
    assert other.confidence < 0.5


async def test_comparisons_that_cannot_be_made(server: Running, song: catalog_pb2.Video) -> None:
    good = fingerprint_pb2.FingerprintSource(video_id=song.id)
    with refused("FAILED_PRECONDITION", "PARAMS_MISMATCH"):
        await compare(server, good, given(tune(5.0, 1), "another"))
    damaged = given(tune(5.0, 1))
    damaged.fingerprint.segments[0].landmarks = damaged.fingerprint.segments[0].landmarks[:-3]
    with refused("INVALID_ARGUMENT", "CORRUPT_FINGERPRINT"):
        await compare(server, good, damaged)
    with refused("INVALID_ARGUMENT", "CORRUPT_FINGERPRINT"):
        await compare(
            server,
            good,
            fingerprint_pb2.FingerprintSource(fingerprint=fingerprint_pb2.Fingerprint()),
        )
    with refused("NOT_FOUND", "VIDEO_NOT_FOUND"):
        await compare(server, good, fingerprint_pb2.FingerprintSource(video_id=str(uuid.uuid4())))
    with refused("INVALID_ARGUMENT", "NOT_MEDIA"):
        await compare(server, good, media(b"text " * 1000))
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await server.fingerprint.Compare(fingerprint_pb2.CompareRequest(first=good))
    assert list(caught[0].fields) == ["second"]
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await compare(server, good, fingerprint_pb2.FingerprintSource())
    assert list(caught[0].fields) == ["second.source"]
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await compare(server, good, media(bytes((16 << 20) + 1)))
    assert list(caught[0].fields) == ["second.content"]
