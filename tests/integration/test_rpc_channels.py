"""ChannelService and SubmitChannel as callers see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from tests.integration.rpc import Running, refused
from tests.youtube import CHANNEL_ID

from soundhash.v1 import channels_pb2, channels_pb2_grpc, ingest_pb2

NO_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def channels(server: Running) -> channels_pb2_grpc.ChannelServiceStub:
    return channels_pb2_grpc.ChannelServiceStub(server.channel)


async def submit(server: Running, channel: str, **more: object) -> ingest_pb2.Job:
    job: ingest_pb2.Job = await server.ingest.SubmitChannel(
        ingest_pb2.SubmitChannelRequest(channel=channel, **more)
    )
    return job


@pytest.fixture
async def added(server: Running) -> AsyncIterator[ingest_pb2.Job]:
    since = Timestamp()
    since.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    options = ingest_pb2.FetchOptions(
        cookies="mine.txt", proxy="http://user:pass@example.org:1", max_bytes=5
    )
    yield await submit(server, "@Somebody", max_videos=7, since=since, options=options)


async def test_a_channel_from_beginning_to_end(
    server: Running, channels: channels_pb2_grpc.ChannelServiceStub, added: ingest_pb2.Job
) -> None:
    assert added.kind == ingest_pb2.JOB_KIND_CHANNEL
    assert added.state == ingest_pb2.JOB_STATE_QUEUED
    asked = added.channel
    assert (asked.channel, asked.max_videos, asked.dry_run) == ("@Somebody", 7, False)
    assert asked.since.ToDatetime(UTC) == datetime(2026, 1, 2, tzinfo=UTC)
    assert (await submit(server, "https://www.youtube.com/@somebody")).id == added.id

    channel_id = asked.channel_id
    channel = await channels.GetChannel(channels_pb2.GetChannelRequest(id=channel_id))
    assert (channel.service, channel.service_id) == ("youtube", "@somebody")
    assert (channel.job_id, channel.schedule, channel.listed) == (added.id, "", 0)
    assert not channel.HasField("list_time") and not channel.HasField("next_run_time")
    # Without what nobody may see.
    assert (channel.options.cookies, channel.options.max_bytes) == ("mine.txt", 5)
    assert "pass" not in str(channel) + str(added)
    page = await channels.ListChannels(channels_pb2.ListChannelsRequest(page_size=10))
    assert channel_id in [one.id for one in page.channels]

    changed = await channels.UpdateChannel(
        channels_pb2.UpdateChannelRequest(
            id=channel_id, schedule="30 4 * * 1", update_mask=FieldMask(paths=["schedule"])
        )
    )
    assert changed.schedule == "30 4 * * 1"
    assert changed.next_run_time.ToDatetime(UTC) > datetime.now(UTC)
    assert changed.options.cookies == "mine.txt"
    changed = await channels.UpdateChannel(
        channels_pb2.UpdateChannelRequest(
            id=channel_id,
            options=ingest_pb2.FetchOptions(user_agent="x"),
            update_mask=FieldMask(paths=["options"]),
        )
    )
    assert (changed.schedule, changed.options.cookies) == ("30 4 * * 1", "")
    listed = await channels.ListChannelVideos(channels_pb2.ListChannelVideosRequest(id=channel_id))
    assert list(listed.videos) == []

    await channels.DeleteChannel(channels_pb2.DeleteChannelRequest(id=channel_id))
    job = await server.ingest.GetJob(ingest_pb2.GetJobRequest(id=added.id))
    assert job.state == ingest_pb2.JOB_STATE_CANCELLED
    with refused("NOT_FOUND", "CHANNEL_NOT_FOUND"):
        await channels.GetChannel(channels_pb2.GetChannelRequest(id=channel_id))


async def test_what_is_not_there(channels: channels_pb2_grpc.ChannelServiceStub) -> None:
    with refused("NOT_FOUND", "CHANNEL_NOT_FOUND"):
        await channels.GetChannel(channels_pb2.GetChannelRequest(id=NO_ID))
    with refused("NOT_FOUND", "CHANNEL_NOT_FOUND"):
        await channels.DeleteChannel(channels_pb2.DeleteChannelRequest(id=NO_ID))
    with refused("NOT_FOUND", "CHANNEL_NOT_FOUND"):
        await channels.ListChannelVideos(channels_pb2.ListChannelVideosRequest(id=NO_ID))
    with refused("NOT_FOUND", "CHANNEL_NOT_FOUND"):
        await channels.UpdateChannel(
            channels_pb2.UpdateChannelRequest(
                id=NO_ID, schedule="", update_mask=FieldMask(paths=["schedule"])
            )
        )


@pytest.mark.parametrize(
    ("channel", "reason"),
    [
        ("nonsense", "CHANNEL_INVALID"),
        ("https://youtu.be/dQw4w9WgXcQ", "CHANNEL_INVALID"),
        ("http://127.0.0.1/feed.xml", "URL_NOT_ALLOWED"),
        ("http://user:pass@example.org/feed.xml", "URL_NOT_ALLOWED"),
        ("file:///etc/passwd", "URL_NOT_ALLOWED"),
    ],
)
async def test_what_is_refused(server: Running, channel: str, reason: str) -> None:
    with refused("INVALID_ARGUMENT", reason) as caught:
        await submit(server, channel)
    assert "user:pass" not in caught[0].message


async def test_requests_are_checked(
    server: Running, channels: channels_pb2_grpc.ChannelServiceStub, added: ingest_pb2.Job
) -> None:
    with refused("INVALID_ARGUMENT"):
        await submit(server, "")
    with refused("INVALID_ARGUMENT", "FETCH_OPTIONS_INVALID"):
        await submit(server, CHANNEL_ID, options=ingest_pb2.FetchOptions(proxy="nonsense"))
    channel_id = added.channel.channel_id
    with refused("INVALID_ARGUMENT", "SCHEDULE_INVALID") as caught:
        await channels.UpdateChannel(
            channels_pb2.UpdateChannelRequest(
                id=channel_id, schedule="* *", update_mask=FieldMask(paths=["schedule"])
            )
        )
    assert "schedule" in caught[0].fields
    for mask in ([], ["title"]):
        with refused("INVALID_ARGUMENT"):
            await channels.UpdateChannel(
                channels_pb2.UpdateChannelRequest(id=channel_id, update_mask=FieldMask(paths=mask))
            )
    with refused("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID"):
        await channels.ListChannelVideos(
            channels_pb2.ListChannelVideosRequest(id=channel_id, page_token="abc")
        )


async def test_quota(channels: channels_pb2_grpc.ChannelServiceStub) -> None:
    found = await channels.GetQuota(channels_pb2.GetQuotaRequest())
    assert (found.daily_units, found.used_units, found.configured) == (10_000, 0, False)
    left = found.reset_time.ToDatetime(UTC) - datetime.now(UTC)
    assert 0 < left.total_seconds() <= 25 * 3600
