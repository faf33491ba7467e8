"""SubmitUrl by words and with options of fetching: over gRPC, the SDK and the command line."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.rpc import Running, refused

import soundhash
from soundhash.v1 import ingest_pb2
from soundhash_server.model import FetchOptions, IngestParameters
from soundhash_server.store.jobs import Jobs

PROGRAM = str(Path(sys.executable).with_name("soundhash"))
URL = "https://8.8.8.8/submitted"
SECRET_PROXY = "http://me:hunter2@8.8.4.4:3128"


async def stored(server: Running, job_id: str) -> IngestParameters:
    job = await Jobs(server.pool).get(UUID(job_id))
    assert job is not None
    assert isinstance(job.parameters, IngestParameters)
    return job.parameters


async def test_a_search_becomes_a_job_and_the_same_words_the_same_job(server: Running) -> None:
    submit = server.ingest.SubmitUrl
    job = await submit(ingest_pb2.SubmitUrlRequest(search="Some  Artist title", channel="Band"))
    assert (job.ingest.search, job.ingest.url) == ("Some  Artist title", "")
    assert job.ingest.channel == "Band"
    assert job.source_host == "youtube.com"
    again = await submit(ingest_pb2.SubmitUrlRequest(search="some artist TITLE "))
    assert again.id == job.id


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ingest_pb2.SubmitUrlRequest(search="   "), "search"),
        (ingest_pb2.SubmitUrlRequest(url=URL, search="words"), ""),
        (ingest_pb2.SubmitUrlRequest(search="x" * 301), "search"),
        (
            ingest_pb2.SubmitUrlRequest(url=URL, options=ingest_pb2.FetchOptions(cookies="../x")),
            "options.cookies",
        ),
        (
            ingest_pb2.SubmitUrlRequest(url=URL, options=ingest_pb2.FetchOptions(cookies="..")),
            "options.cookies",
        ),
        (
            ingest_pb2.SubmitUrlRequest(
                url=URL, options=ingest_pb2.FetchOptions(cookies_from_browser="netscape")
            ),
            "options.cookies_from_browser",
        ),
        (
            ingest_pb2.SubmitUrlRequest(
                url=URL, options=ingest_pb2.FetchOptions(cookies_from_browser="firefox:/etc")
            ),
            "options.cookies_from_browser",
        ),
        (
            ingest_pb2.SubmitUrlRequest(url=URL, options=ingest_pb2.FetchOptions(proxy="file:///")),
            "options.proxy",
        ),
        (
            ingest_pb2.SubmitUrlRequest(
                url=URL, options=ingest_pb2.FetchOptions(proxy="http://me:hunter2@10.0.0.1:3128")
            ),
            "options.proxy",
        ),
        (
            ingest_pb2.SubmitUrlRequest(
                url=URL, options=ingest_pb2.FetchOptions(user_agent="a\r\nHost: b")
            ),
            "options.user_agent",
        ),
    ],
)
async def test_wishes_that_are_not_granted(
    server: Running, request_: ingest_pb2.SubmitUrlRequest, field: str
) -> None:
    with refused("INVALID_ARGUMENT") as caught:
        await server.ingest.SubmitUrl(request_)
    assert list(caught[0].fields) == [field]
    assert "hunter2" not in str(caught[0].__dict__)
    assert "10.0.0.1" not in str(caught[0].__dict__)


async def test_options_reach_the_worker_and_a_proxy_nobody_else(
    server: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    options = soundhash.FetchOptions(
        cookies="mine.txt",
        proxy=SECRET_PROXY,
        player_client="tv",
        user_agent="Agent/1.0",
        max_bytes=1000,
        max_duration_s=60.5,
        max_bytes_per_s=2000,
    )
    async with soundhash.AsyncClient(server.address) as client:
        job = await client.submit_url(URL, options=options)
        searched = await client.submit_url(search="other words")
        listed = [one async for one in client.jobs(limit=10)]
    assert (await stored(server, job.id)).options == FetchOptions(
        cookies="mine.txt",
        proxy=SECRET_PROXY,
        player_client="tv",
        user_agent="Agent/1.0",
        max_bytes=1000,
        max_duration_s=60.5,
        max_bytes_per_s=2000,
    )
    assert searched.source == "other words"
    shown = "".join(map(repr, [job, options, await stored(server, job.id), *listed]))
    raw = await server.ingest.ListJobs(ingest_pb2.ListJobsRequest())
    assert "hunter2" not in shown + str(raw) + "".join(capfd.readouterr())


async def test_the_command_line_searches_and_chooses_how_to_fetch(server: Running) -> None:
    arguments = [
        *("--search", "By the command line", "--cookies", "mine.txt", "--player-client", "tv"),
        *("--max-bytes", "500M", "--max-duration", "1:30:00", "--limit-rate", "2M", "--json"),
    ]
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        "ingest",
        *arguments,
        "--address",
        server.address,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"SOUNDHASH_FETCH_PROXY": SECRET_PROXY, "PATH": ""},
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    assert b"hunter2" not in out + err
    said = json.loads(out)
    assert (said["source"], said["state"]) == ("By the command line", "QUEUED")
    assert await stored(server, said["job_id"]) == IngestParameters(
        search="By the command line",
        options=FetchOptions(
            cookies="mine.txt",
            proxy=SECRET_PROXY,
            player_client="tv",
            max_bytes=500 << 20,
            max_duration_s=5400.0,
            max_bytes_per_s=2 << 20,
        ),
    )
