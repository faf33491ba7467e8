"""The server explains itself: reflection, health and plain calls through foreign tools."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.integration.rpc import Running, running, song

from soundhash_server.embedded_valkey import Valkey

BIN = Path(sys.executable).parent
SERVICES = {
    "soundhash.v1.AdminService": {"GetStats", "GetIndexStatus", "CompactIndex"},
    "soundhash.v1.CatalogService": {
        "GetVideo",
        "ListVideos",
        "SearchVideos",
        "UpdateVideo",
        "DeleteVideo",
        "FindDuplicates",
        "ListDuplicates",
    },
    "soundhash.v1.ClipService": {
        "SubmitClips",
        "ProcessClips",
        "GetClip",
        "ListClips",
        "DeleteClip",
    },
    "soundhash.v1.MediaService": {"ListObjects", "DeleteObjects"},
    "soundhash.v1.FingerprintService": {
        "Compute",
        "Compare",
        "GetFingerprint",
        "ListFingerprints",
    },
    "soundhash.v1.IngestService": {
        "Upload",
        "SubmitUrl",
        "GetJob",
        "ListJobs",
        "WatchJob",
        "CancelJob",
        "RetryJob",
        "GetUpload",
        "SubmitChannel",
        "ScanFolder",
        "RetryJobs",
        "SummarizeFailures",
    },
    "soundhash.v1.ChannelService": {
        "GetChannel",
        "ListChannels",
        "UpdateChannel",
        "DeleteChannel",
        "ListChannelVideos",
        "GetQuota",
    },
    "soundhash.v1.MatchService": {
        "MatchClip",
        "MatchStream",
        "MatchUrl",
        "GetMatch",
        "ListMatches",
        "ExplainMatch",
    },
    "soundhash.v1.MonitorService": {
        "CreateMonitor",
        "GetMonitor",
        "ListMonitors",
        "UpdateMonitor",
        "PauseMonitor",
        "ResumeMonitor",
        "DeleteMonitor",
        "WatchDetections",
        "ListDetections",
        "ListAlerts",
    },
}


@pytest.fixture(scope="module")
async def server(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Running]:
    """A running server with one video."""
    async for url in database_factory():
        async with running(url, valkey_server.url, tmp_path_factory.mktemp("data")) as made:
            await made.add(song(1), "One.wav")
            yield made


async def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def grpcurl(server: Running, *arguments: str, data: object = None) -> tuple[int, str, str]:
    given = [] if data is None else ["-d", "@"]
    return await run(
        str(BIN / "grpcurl"),
        "-plaintext",
        *given,
        server.address,
        *arguments,
        stdin="" if data is None else json.dumps(data),
    )


async def test_reflection_lists_every_service_and_method(server: Running) -> None:
    status, out, _ = await grpcurl(server, "list")
    assert status == 0
    assert set(out.split()) == {
        *SERVICES,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    for service, methods in SERVICES.items():
        status, out, _ = await grpcurl(server, "list", service)
        assert status == 0
        assert set(out.split()) == {f"{service}.{method}" for method in methods}


async def test_reflection_describes_messages(server: Running) -> None:
    status, out, _ = await grpcurl(server, "describe", "soundhash.v1.Match")
    assert status == 0
    assert "google.protobuf.Duration video_start" in out


async def test_health_through_grpcurl(server: Running) -> None:
    for service in ("", *SERVICES):
        status, out, _ = await grpcurl(
            server, "grpc.health.v1.Health/Check", data={"service": service}
        )
        assert status == 0
        assert json.loads(out) == {"status": "SERVING"}


async def test_a_clip_is_matched_through_grpcurl(server: Running) -> None:
    status, out, err = await grpcurl(
        server,
        "soundhash.v1.MatchService/MatchClip",
        data={"content": base64.b64encode(song(1)).decode()},
    )
    assert status == 0, err
    (match,) = json.loads(out)["matches"]
    assert match["title"] == "One"


async def test_an_upload_through_grpcurl(server: Running) -> None:
    content = base64.b64encode(song(2)).decode()
    messages = json.dumps({"config": {"fileName": "Two.wav"}}) + json.dumps({"chunk": content})
    status, out, err = await run(
        str(BIN / "grpcurl"),
        "-plaintext",
        "-d",
        "@",
        server.address,
        "soundhash.v1.IngestService/Upload",
        stdin=messages,
    )
    assert status == 0, err
    assert json.loads(out)["state"] == "JOB_STATE_QUEUED"


async def test_errors_are_told_through_grpcurl(server: Running) -> None:
    status, _, err = await grpcurl(
        server, "soundhash.v1.CatalogService/GetVideo", data={"id": "nonsense"}
    )
    assert status != 0
    assert "InvalidArgument" in err
    assert "id: must be a valid UUID" in err


async def test_buf_curl(server: Running) -> None:
    status, out, err = await run(
        str(BIN / "buf"),
        "curl",
        "--protocol",
        "grpc",
        "--http2-prior-knowledge",
        f"http://{server.address}/soundhash.v1.AdminService/GetStats",
    )
    assert status == 0, err
    assert json.loads(out)["videoCount"] == "1"
