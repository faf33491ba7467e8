"""Twitch clips and what is kept of them: server, worker, client and program, with yt-dlp's own
extractor talking to a stand-in for Twitch, and S3 over real HTTP."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3
import grpc
import pytest
from moto.server import ThreadedMotoServer
from tests.buckets import s3_environment
from tests.integration.rpc import Running, refused, running
from tests.integration.working import worker_settings, working
from tests.media import encode, video
from tests.sounds import tune
from tests.twitch import Twitch, serving_twitch

import soundhash
from soundhash.v1 import catalog_pb2, clips_pb2, clips_pb2_grpc, media_pb2, media_pb2_grpc
from soundhash_server.embedded_valkey import Valkey

JPEG = b"\xff\xd8\xff\xe0" + bytes(500)
PROGRAM = Path(sys.executable).with_name("soundhash")
VIDEO = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


@dataclass
class Place:
    """A running server with a worker, Twitch, and the bucket where they keep things."""

    server: Running
    twitch: Twitch
    client: soundhash.AsyncClient
    bucket: Any

    @property
    def options(self) -> soundhash.FetchOptions:
        return soundhash.FetchOptions(proxy=self.twitch.url)

    def publish(self, *names: str) -> None:
        for name in names:
            self.twitch.clips[name] = video(tune(6.0, seed=sum(name.encode())))
            self.twitch.pictures[name] = JPEG

    def stored(self) -> set[str]:
        found = self.bucket.list_objects_v2(Bucket="kept", Prefix="our/")
        return {one["Key"].removeprefix("our/") for one in found.get("Contents", [])}

    async def processed(self, *names: str) -> list[soundhash.Clip]:
        async with asyncio.timeout(60):
            found = self.client.process_clips(names, options=self.options)
            return [clip async for clip in found]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with s3_environment(server) as endpoint:
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="kept")
        yield endpoint
    server.stop()


@pytest.fixture(scope="module")
async def place(
    s3: str,
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Place]:
    redis_url = valkey_server.url.replace("db=0", "db=4")
    data_dir = tmp_path_factory.mktemp("data")
    keeping = {"storage_url": "s3://kept/our", "keep": "audio thumbnail", "keep_loudness": True}
    async for url in database_factory():
        async with serving_twitch(data_dir / "twitch") as (twitch, path):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PYTHONPATH", path)
                settings = worker_settings(url, redis_url, data_dir, max_host_jobs=4, **keeping)
                async with (
                    running(url, redis_url, data_dir, allow_private_urls=True, **keeping) as server,
                    working(settings),
                    soundhash.AsyncClient(server.address) as client,
                ):
                    bucket = boto3.client("s3", endpoint_url=s3)
                    yield Place(server, twitch, client, bucket)


def stubs(server: Running) -> tuple[Any, Any]:
    channel: grpc.aio.Channel = server.channel
    return clips_pb2_grpc.ClipServiceStub(channel), media_pb2_grpc.MediaServiceStub(channel)


@dataclass(frozen=True, slots=True)
class Told:
    """How the program ended and what it printed."""

    status: int | None
    out: str
    err: str

    def json(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


async def run(place: Place, *arguments: str) -> Told:
    """Runs the program as a user does."""
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM),
        "--address",
        place.server.address,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert b"Traceback" not in err, err
    return Told(process.returncode, out.decode(), err.decode())


@pytest.fixture(scope="module")
async def processed(place: Place) -> dict[str, soundhash.Clip]:
    """Two clips and one that Twitch does not have, for tests that change nothing about them."""
    place.publish("One-Clip", "Two_Clip")
    found = await place.processed(
        "One-Clip",
        "https://www.twitch.tv/somebody/clip/Two_Clip?x=1",
        "clips.twitch.tv/One-Clip",
        "NotThere",
    )
    assert len(found) == 3
    return {clip.id: clip for clip in found}


async def test_clips_are_fetched_indexed_and_kept(
    place: Place, processed: dict[str, soundhash.Clip]
) -> None:
    for clip in (processed["One-Clip"], processed["Two_Clip"]):
        assert clip.state == "SUCCEEDED", clip.failure
        assert clip.title == f"Title of {clip.id}"
        assert clip.duration_s == pytest.approx(6.0, abs=0.2)
        keys = [f"audio/{clip.id}.wav", f"clips/{clip.id}.mp4", f"thumbnails/{clip.id}.jpg"]
        assert [one.key for one in clip.objects] == keys
        assert set(keys) <= place.stored()
        assert (await place.client.get_video(clip.video_id)).service == "twitchclips"
    # All of it went the way of the proxy.
    assert place.twitch.requests["/One-Clip.mp4"] == place.twitch.requests["/One-Clip.jpg"] == 1


async def test_what_was_removed_at_twitch(processed: dict[str, soundhash.Clip]) -> None:
    clip = processed["NotThere"]
    assert clip.state == "FAILED" and clip.failure is not None
    assert clip.failure.reason == "MEDIA_REMOVED" and clip.failure.remedy
    assert (clip.video_id, clip.objects, clip.duration_s) == ("", (), None)


async def test_addresses_to_download_from(
    place: Place, processed: dict[str, soundhash.Clip]
) -> None:
    clip = processed["One-Clip"]
    assert {one.download_url for one in clip.objects} == {""}
    signed = await place.client.get_clip("https://clips.twitch.tv/One-Clip", download_urls=True)
    media = next(one for one in signed.objects if one.key == "clips/One-Clip.mp4")
    with urlopen(media.download_url) as answer:
        assert answer.read() == place.twitch.clips["One-Clip"]
    found = await place.client.kept_objects(clip.video_id, sign_for_s=90.0)
    assert all("X-Amz-Expires=90&" in one.download_url for one in found)
    assert [one.key for one in found] == [one.key for one in signed.objects]
    for wrong_s in (0.0, 8 * 86_400.0):
        with pytest.raises(soundhash.InvalidArgument, match="sign_for"):
            await place.client.kept_objects(clip.video_id, sign_for_s=wrong_s)


async def test_a_clip_and_its_address_are_one(
    place: Place, processed: dict[str, soundhash.Clip]
) -> None:
    job = await place.client.submit_url(
        "https://m.twitch.tv/clip/One-Clip?t=1", options=place.options
    )
    assert job.id == processed["One-Clip"].job_id
    assert place.twitch.requests["/One-Clip.mp4"] == 1


async def test_in_the_background_and_listed(
    place: Place, processed: dict[str, soundhash.Clip]
) -> None:
    place.publish("Back")
    sent = await place.client.submit_clips(["Back", "One-Clip"], options=place.options)
    assert [clip.id for clip in sent] == ["Back", "One-Clip"]
    assert sent[1] == processed["One-Clip"]
    await place.client.wait_for_job(sent[0].job_id, timeout_s=60)
    # What is no clip is not among them.
    job = await place.server.upload(encode(tune(2.0, seed=77)))
    await place.client.wait_for_job(job.id, timeout_s=60)
    listed = [clip async for clip in place.client.clips()]
    assert job.id not in [clip.job_id for clip in listed]
    assert {"Back", *processed} <= {clip.id for clip in listed}
    times = [clip.create_time for clip in listed if clip.create_time is not None]
    assert times == sorted(times, reverse=True) and len(times) == len(listed)


async def test_each_comes_as_it_is_finished(
    place: Place, processed: dict[str, soundhash.Clip]
) -> None:
    """And whoever hangs up before the last leaves it to go on."""
    place.publish("Slow")
    place.twitch.held.clear()
    try:
        found = place.client.process_clips(["Slow", "One-Clip"], options=place.options)
        assert (await anext(found)).id == "One-Clip"
        assert not (slow := await place.client.get_clip("Slow")).state.finished
        await found.aclose()
    finally:
        place.twitch.held.set()
    assert (await place.client.wait_for_job(slow.job_id, timeout_s=60)).state == "SUCCEEDED"


async def test_deleting_removes_job_objects_and_video(place: Place) -> None:
    place.publish("Delete-me")
    # First while a worker has it ...
    place.twitch.held.clear()
    try:
        (first,) = await place.client.submit_clips(["Delete-me"], options=place.options)
        async with asyncio.timeout(30):
            while not place.twitch.requests["/Delete-me.mp4"]:
                await asyncio.sleep(0.02)
        await place.client.delete_clip("Delete-me")
    finally:
        place.twitch.held.set()
    # ... so that it can come again at once, and then when all is done.
    (clip,) = await place.processed("Delete-me")
    assert clip.state == "SUCCEEDED" and clip.job_id != first.job_id
    assert f"clips/{clip.id}.mp4" in place.stored()
    await place.client.delete_clip("https://clips.twitch.tv/Delete-me")
    assert not [key for key in place.stored() if "Delete-me" in key]
    for gone in (
        place.client.get_clip("Delete-me"),
        place.client.get_job(clip.job_id),
        place.client.get_video(clip.video_id),
        place.client.delete_clip("Delete-me"),
    ):
        with pytest.raises(soundhash.NotFound):
            await gone


async def test_a_video_of_another_source_outlives_the_clip(place: Place) -> None:
    place.publish("Copied")
    job = await place.server.upload(place.twitch.clips["Copied"], "mine.mp4")
    mine = await place.client.wait_for_job(job.id, timeout_s=60)
    (clip,) = await place.processed("Copied")
    assert clip.video_id == mine.video_id
    kept = await place.client.kept_objects(mine.video_id)
    assert [one.key for one in kept] == [f"audio/{mine.video_id}.wav"]
    await place.client.delete_clip("Copied")
    with pytest.raises(soundhash.NotFound):
        await place.client.get_clip("Copied")


async def test_every_wrong_id_is_named_and_nothing_is_started(place: Place) -> None:
    clips, media = stubs(place.server)
    texts = ["fine", "not fine", "neither/this"]
    for method, request in (
        (clips.SubmitClips, clips_pb2.SubmitClipsRequest(clips=texts)),
        (clips.ProcessClips, clips_pb2.ProcessClipsRequest(clips=texts)),
    ):
        with refused("INVALID_ARGUMENT", "CLIP_ID_INVALID") as caught:
            answer = method(request)
            _ = [one async for one in answer] if method is clips.ProcessClips else await answer
        (error,) = caught
        assert error.metadata["clips[1]"] == "not fine"
        assert error.metadata["clips[2]"] == "neither/this"
        violations = error.details["BadRequest"].field_violations
        assert [one.field for one in violations] == ["clips[1]", "clips[2]"]
    with refused("NOT_FOUND", "CLIP_NOT_FOUND"):
        await clips.GetClip(clips_pb2.GetClipRequest(id="fine"))
    with refused("INVALID_ARGUMENT", "CLIP_ID_INVALID"):
        await clips.DeleteClip(clips_pb2.DeleteClipRequest(id="not fine"))
    for count in (0, 11):
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
            await clips.SubmitClips(clips_pb2.SubmitClipsRequest(clips=["A"] * count))
    # Ten long ones are named too, within what a status may hold.
    texts = [f"{n} " + "\u00e4" * 500 for n in range(10)]
    with refused("INVALID_ARGUMENT", "CLIP_ID_INVALID") as caught:
        await clips.SubmitClips(clips_pb2.SubmitClipsRequest(clips=texts))
    assert {f"clips[{n}]" for n in range(10)} <= set(caught[0].metadata)
    for method, request in (
        (media.ListObjects, media_pb2.ListObjectsRequest(video_id=VIDEO)),
        (media.DeleteObjects, media_pb2.DeleteObjectsRequest(video_id=VIDEO)),
    ):
        with refused("NOT_FOUND", "VIDEO_NOT_FOUND"):
            await method(request)


async def test_the_program(place: Place) -> None:
    place.publish("Typed")
    proxy = ("--proxy", place.twitch.url)
    told = await run(place, "clips", "add", "Typed", "Missing", "--wait", "--json", *proxy)
    found = {one["id"]: one for one in told.json()}
    assert told.status == 1
    assert (found["Typed"]["state"], found["Missing"]["state"]) == ("SUCCEEDED", "FAILED")
    video_id = found["Typed"]["video_id"]
    told = await run(place, "clips", "show", "Typed", "--sign")
    assert told.status == 0 and "clips/Typed.mp4" in told.out and "X-Amz-Signature=" in told.out
    told = await run(place, "clips", "list", "--limit", "2")
    assert told.status == 0 and "Title of Typed" in told.out and "MEDIA_REMOVED" in told.out
    told = await run(place, "media", "list", video_id, "--sign", "1h", "--json")
    assert told.status == 0 and len(told.json()) == 3
    assert all("X-Amz-Expires=3600&" in one["download_url"] for one in told.json())
    told = await run(place, "media", "delete", video_id)
    assert (told.status, told.out) == (0, "deleted 3 objects\n")
    assert await place.client.delete_kept_objects(video_id) == 0
    assert not [key for key in place.stored() if "Typed" in key]
    assert (await place.client.get_video(video_id)).title == "Title of Typed"
    told = await run(place, "clips", "delete", "Typed", "No-Such")
    assert told.status == 1 and "deleted Typed" in told.out and "no clip No-Such" in told.err


async def test_a_folder_has_no_addresses(postgres_url: str, redis_url: str, data_dir: Path) -> None:
    shelf = f"file://{data_dir}/shelf"
    for storage_url, reason in ((shelf, "SIGNING_NOT_SUPPORTED"), ("", "STORAGE_NOT_CONFIGURED")):
        async with running(postgres_url, redis_url, data_dir, storage_url=storage_url) as server:
            made = await server.add(encode(tune(3.0, seed=90)))
            _, media = stubs(server)
            request = media_pb2.ListObjectsRequest(video_id=made.id)
            assert not (await media.ListObjects(request)).objects
            request.sign_for.FromSeconds(60)
            with refused("FAILED_PRECONDITION", reason):
                await media.ListObjects(request)
            await server.catalog.DeleteVideo(catalog_pb2.DeleteVideoRequest(id=made.id))
