"""What a worker makes of uploads and URLs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable

import pytest
from tests.integration.working import Bench, open_bench, worker_settings, working
from tests.loopback import Loopback, serving
from tests.media import encode, video
from tests.sounds import tune

from soundhash_engine import PARAMS, extract
from soundhash_server.embedded_valkey import Valkey
from soundhash_server.model import IngestParameters, JobState, JobStep
from soundhash_server.sources import sha256_key, url_key
from soundhash_server.store.fingerprints import Fingerprints

SONG = encode(tune(95.0, seed=11), "wav")


@pytest.fixture(scope="module")
async def bench(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Bench]:
    redis_url = valkey_server.url.replace("db=0", "db=2")
    async for database_url in database_factory():
        settings = worker_settings(database_url, redis_url, tmp_path_factory.mktemp("data"))
        async with open_bench(settings) as made, working(settings):
            # Later tests need not wait until the engine is loaded.
            warm = await made.upload(encode(tune(2.0, seed=1), "wav"))
            await made.succeeded(warm, 60.0)
            yield made


@pytest.fixture(scope="module")
async def web() -> AsyncIterator[Loopback]:
    async with serving(encode(tune(30.0, seed=12), "mp3", rate_hz=44100)) as loopback:
        yield loopback


@pytest.fixture(autouse=True)
async def _nothing_left(bench: Bench) -> AsyncIterator[None]:
    yield
    async with asyncio.timeout(5):
        while bench.files_left():
            await asyncio.sleep(0.02)


async def test_an_upload_becomes_a_video(bench: Bench) -> None:
    job = await bench.upload(SONG, "My song.wav", channel="Tests", external_id="one")
    done = await bench.succeeded(job)
    assert done.start_time is not None and done.result is not None
    assert (done.start_time - done.create_time).total_seconds() < 1.0
    assert (done.attempt, done.failure) == (1, None)
    assert done.progress.step is JobStep.DONE
    assert done.progress.audio_done_s == pytest.approx(95.0, abs=0.01)
    found = await bench.videos.get(done.result.video_id)
    assert found is not None
    assert (found.title, found.channel, found.external_id) == ("My song", "Tests", "one")
    assert found.content_sha256 == hashlib.sha256(SONG).hexdigest()
    assert found.duration_s == pytest.approx(95.0, abs=0.01)
    assert found.params_digest == PARAMS.digest
    stored = await Fingerprints(bench.pool).segments(found.id)
    assert len(stored) == 2
    assert found.landmark_count == sum(segment.landmark_count for segment in stored) > 100


async def test_what_is_stored_is_what_the_engine_says(bench: Bench) -> None:
    # 16 bit WAV at the engine's own rate: decoding changes nothing but the rounding.
    pcm = (tune(12.0, seed=13) * 32767).round().astype("int16") / 32768
    done = await bench.succeeded(await bench.upload(encode(pcm.astype("float32"), "wav")))
    assert done.result is not None
    stored = await Fingerprints(bench.pool).segments(done.result.video_id)
    expected = extract(pcm.astype("float32"))
    assert stored[0].landmark_count == pytest.approx(expected[0].landmark_count, rel=0.02)


async def test_changed_parameters_are_fingerprinted_again_under_the_same_id(bench: Bench) -> None:
    content = encode(tune(10.0, seed=14), "wav")
    first = await bench.succeeded(await bench.upload(content))
    assert first.result is not None
    # Unchanged: the job stays done, and the sweeper removes the file.
    again = await bench.upload(content)
    assert (again.id, again.state) == (first.id, JobState.SUCCEEDED)
    await bench.pool.execute(
        "UPDATE videos SET params_digest = 'older' WHERE id = $1", first.result.video_id
    )
    await bench.pool.execute(
        "UPDATE audio_fingerprints SET params_digest = 'older', landmarks = '' WHERE video_id = $1",
        first.result.video_id,
    )
    redone = await bench.succeeded(await bench.upload(content))
    assert redone.result is not None
    assert redone.result.video_id == first.result.video_id
    assert not redone.result.already_indexed
    segments = await Fingerprints(bench.pool).segments(redone.result.video_id)
    assert [segment.params_digest for segment in segments] == [PARAMS.digest]


BAD = {
    "text": (b"This is text, and no music." * 50, "NOT_MEDIA"),
    "noise bytes": (bytes(range(256)) * 40, "NOT_MEDIA"),
    "truncated": (encode(tune(5.0), "wav")[:30], "TRUNCATED_MEDIA"),
    "no sound": (video(None), "NO_AUDIO_STREAM"),
    "silent": (encode(tune(5.0) * 0, "wav"), "SILENT_AUDIO"),
    "too short": (encode(tune(0.5), "wav"), "CLIP_TOO_SHORT"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_bad_media_fail_for_good_with_a_remedy(bench: Bench, kind: str) -> None:
    content, reason = BAD[kind]
    done = await bench.finished(await bench.upload(content, "bad.wav"))
    assert (done.state, done.attempt) == (JobState.FAILED, 1)
    assert done.failure is not None
    assert (done.failure.reason, done.failure.transient) == (reason, False)
    assert done.failure.remedy


async def test_bytes_that_are_gone(bench: Bench) -> None:
    digest = hashlib.sha256(b"never sent").hexdigest()
    job = await bench.submit(sha256_key(digest), IngestParameters(content_sha256=digest))
    done = await bench.finished(job)
    assert done.failure is not None
    assert done.failure.reason == "UPLOAD_GONE"


async def test_an_external_id_that_is_taken(bench: Bench) -> None:
    taken = encode(tune(5.0, seed=15), "wav")
    await bench.succeeded(await bench.upload(taken, external_id="taken"))
    other = await bench.upload(encode(tune(5.0, seed=16), "wav"), external_id="taken")
    done = await bench.finished(other)
    assert done.failure is not None
    assert (done.failure.reason, done.failure.transient) == ("EXTERNAL_ID_TAKEN", False)


async def test_a_url_and_the_same_bytes_from_elsewhere(bench: Bench, web: Loopback) -> None:
    job = await bench.submit_url(web.url("/song.wav"), channel="Net")
    done = await bench.succeeded(job)
    assert done.result is not None and not done.result.already_indexed
    found = await bench.videos.get(done.result.video_id)
    assert found is not None
    assert (found.title, found.source_url, found.channel) == ("song", job.parameters.url, "Net")
    # The same bytes under another URL, and as an upload: the same video.
    other = await bench.succeeded(await bench.submit_url(web.url("/redirect?to=/song.wav")))
    sent = await bench.succeeded(await bench.upload(web.media))
    for same in (other, sent):
        assert same.result is not None
        assert (same.result.video_id, same.result.already_indexed) == (found.id, True)
    # A source that is known is not even asked.
    asked = web.requests.total()
    await bench.pool.execute("DELETE FROM processing_jobs WHERE id = $1", job.id)
    known = await bench.succeeded(await bench.submit_url(web.url("/song.wav#again")))
    assert known.result is not None and known.result.video_id == found.id
    assert web.requests.total() == asked
    assert await bench.videos.by_source_key(url_key(job.parameters.url)) == found


async def test_a_source_that_is_out_of_order_for_a_while(bench: Bench, web: Loopback) -> None:
    web.failures_left = 2
    url = web.url("/flaky.wav")
    job = await bench.submit_url(url)
    seen = await bench.until(job, lambda shown: shown.failure is not None)
    assert seen.failure is not None
    assert (seen.failure.reason, seen.failure.transient) == ("HTTP_SERVER_ERROR", True)
    done = await bench.succeeded(job)
    assert (done.attempt, done.failure) == (3, None)


async def test_attempts_end(bench: Bench, web: Loopback) -> None:
    done = await bench.finished(await bench.submit_url(web.url("/status/500")))
    assert (done.state, done.attempt) == (JobState.FAILED, 3)
    refused = await bench.finished(await bench.submit_url(web.url("/status/404")))
    assert (refused.state, refused.attempt) == (JobState.FAILED, 1)


async def test_retry_after_is_waited_for(bench: Bench, web: Loopback) -> None:
    job = await bench.submit_url(web.url("/status/429?Retry-After=300"))
    shown = await bench.until(job, lambda shown: shown.state is JobState.RETRYING)
    assert shown.next_attempt_time is not None
    assert (shown.next_attempt_time - shown.update_time).total_seconds() > 290
    await bench.jobs.cancel(job.id)


async def test_a_cancelled_fetch_stops_at_once(bench: Bench, web: Loopback) -> None:
    job = await bench.submit_url(web.url("/hang.wav"))
    async with asyncio.timeout(10):
        while (shown := await bench.get(job.id)).progress.bytes_done == 0:
            await asyncio.sleep(0.02)
    assert shown.progress.step is JobStep.FETCH
    assert shown.progress.bytes_total == len(web.media)
    assert web.hanging == 1
    await bench.jobs.cancel(job.id)
    async with asyncio.timeout(1.5):
        while web.hanging or bench.files_left():
            await asyncio.sleep(0.02)
    assert (await bench.get(job.id)).state is JobState.CANCELLED
