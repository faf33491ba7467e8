"""What goes wrong comes as a typed error that keeps everything the server says."""

from __future__ import annotations

import asyncio
import gc
import pickle
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.scripted import Caller, ScriptedServer, answer, fail, fail_plainly, scripted_server

import soundhash
from soundhash.v1 import admin_pb2, catalog_pb2, ingest_pb2, match_pb2
from soundhash_server.errors import ErrorKind

ID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
STATS = answer(admin_pb2.GetStatsResponse(video_count=3))

KINDS = {
    ErrorKind.INVALID_ARGUMENT: soundhash.InvalidArgument,
    ErrorKind.NOT_FOUND: soundhash.NotFound,
    ErrorKind.ALREADY_EXISTS: soundhash.AlreadyExists,
    ErrorKind.PERMISSION_DENIED: soundhash.PermissionDenied,
    ErrorKind.FAILED_PRECONDITION: soundhash.FailedPrecondition,
    ErrorKind.RESOURCE_EXHAUSTED: soundhash.ResourceExhausted,
    ErrorKind.ABORTED: soundhash.Aborted,
    ErrorKind.UNAVAILABLE: soundhash.Unavailable,
    ErrorKind.DEADLINE_EXCEEDED: soundhash.DeadlineExceeded,
    ErrorKind.INTERNAL: soundhash.Internal,
}


@pytest.mark.parametrize("error_kind", ErrorKind)
async def test_every_kind_keeps_its_details(
    error_kind: ErrorKind, caller_for: Any, scripted: ScriptedServer
) -> None:
    scripted.on(
        "GetJob",
        fail(
            error_kind,
            "SOME_REASON",
            retry_after_s=1.5,
            metadata={"job": ID},
            resource=("job", ID),
            violations={"id": "must be a UUID", "page_size": "must be 0 to 1000"},
        ),
    )
    call = caller_for(max_retries=0)
    with pytest.raises(soundhash.SoundHashError) as caught:
        await call("get_job", ID)
    error = caught.value
    assert type(error) is KINDS[error_kind]
    assert error.code.name == error_kind.value
    assert error.reason == "SOME_REASON"
    assert error.message == "It went wrong."
    assert error.remedy == "Do better."
    assert error.metadata == {"job": ID, "request_id": "request-1"}
    assert error.retry_after_s == 1.5
    assert error.resource == ("job", ID)
    assert {v.field: v.description for v in error.field_violations} == {
        "id": "must be a UUID",
        "page_size": "must be 0 to 1000",
    }
    assert str(error) == (
        "It went wrong (id must be a UUID; page_size must be 0 to 1000). Do better."
    )
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and vars(again) == vars(error)
    # The gRPC error behind it says nothing more and would only fill the traceback.
    assert error.__cause__ is None and error.__suppress_context__


@pytest.mark.parametrize(
    ("code", "expected", "reason"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, soundhash.Unimplemented, "UNIMPLEMENTED"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, soundhash.ResourceExhausted, "MESSAGE_TOO_LARGE"),
        (grpc.StatusCode.UNAVAILABLE, soundhash.Unavailable, "CONNECTION_LOST"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, soundhash.DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.UNAUTHENTICATED, soundhash.Unauthenticated, "UNAUTHENTICATED"),
        (grpc.StatusCode.PERMISSION_DENIED, soundhash.PermissionDenied, "PERMISSION_DENIED"),
        (grpc.StatusCode.CANCELLED, soundhash.Cancelled, "CANCELLED"),
        (grpc.StatusCode.OUT_OF_RANGE, soundhash.OutOfRange, "OUT_OF_RANGE"),
        (grpc.StatusCode.DATA_LOSS, soundhash.DataLoss, "DATA_LOSS"),
        (grpc.StatusCode.UNKNOWN, soundhash.SoundHashError, "UNKNOWN"),
    ],
)
@pytest.mark.parametrize("method", ["get_job", "watch_job", "upload", "stream"])
async def test_a_status_without_details_is_typed_too(
    method: str,
    code: grpc.StatusCode,
    expected: type[soundhash.SoundHashError],
    reason: str,
    caller_for: Any,
    scripted: ScriptedServer,
) -> None:
    for name in ("GetJob", "WatchJob", "Upload", "MatchStream"):
        scripted.on(name, fail_plainly(code))
    argument: Any = ID
    if method in ("upload", "stream"):
        argument = [b"abc"] if method == "stream" else b"abc"
    with pytest.raises(soundhash.SoundHashError) as caught:
        await caller_for(max_retries=0)(method, argument)
    assert type(caught.value) is expected
    assert caught.value.reason == reason


async def test_no_server(kind: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        call = Caller(kind, address)
        began = time.monotonic()
        with pytest.raises(soundhash.Unavailable) as caught:
            await call("stats")
        await call.close()
    assert time.monotonic() - began < 5
    assert caught.value.reason == "SERVER_UNREACHABLE"
    assert str(caught.value) == f"no server at {address}: start one with `soundhash up`"


async def test_a_server_that_is_away_for_a_moment_is_not_noticed(
    call: Caller, scripted: ScriptedServer
) -> None:
    scripted.on("GetStats", fail(ErrorKind.UNAVAILABLE), fail(ErrorKind.UNAVAILABLE), STATS)
    assert (await call("stats")).video_count == 3
    assert scripted.count("GetStats") == 3


@pytest.mark.parametrize("error_kind", [ErrorKind.RESOURCE_EXHAUSTED, ErrorKind.ABORTED])
async def test_what_the_server_asks_to_try_again_is_tried_after_the_time_it_names(
    error_kind: ErrorKind, call: Caller, scripted: ScriptedServer
) -> None:
    scripted.on("GetStats", fail(error_kind, retry_after_s=0.4), STATS)
    began = time.monotonic()
    assert (await call("stats")).video_count == 3
    assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize(
    "error_kind",
    [
        ErrorKind.RESOURCE_EXHAUSTED,
        ErrorKind.ABORTED,
        ErrorKind.INTERNAL,
        ErrorKind.INVALID_ARGUMENT,
        ErrorKind.DEADLINE_EXCEEDED,
    ],
)
async def test_what_cannot_pass_is_not_tried_again(
    error_kind: ErrorKind, call: Caller, scripted: ScriptedServer
) -> None:
    scripted.on("GetStats", fail(error_kind), STATS)
    with pytest.raises(KINDS[error_kind]):
        await call("stats")
    assert scripted.count("GetStats") == 1


@pytest.mark.parametrize(
    ("rpc", "arguments", "options"),
    [
        ("UpdateVideo", ("update_video", ID), {"title": "x"}),
        ("DeleteVideo", ("delete_video", ID), {}),
        ("CancelJob", ("cancel_job", ID), {}),
        ("RetryJob", ("retry_job", ID), {}),
        ("CompactIndex", ("compact_index",), {}),
        ("MatchStream", ("stream", [b"abc"]), {}),
    ],
)
async def test_changes_are_not_repeated(
    rpc: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    call: Caller,
    scripted: ScriptedServer,
) -> None:
    scripted.on(rpc, fail(ErrorKind.UNAVAILABLE, retry_after_s=0.01))
    with pytest.raises(soundhash.Unavailable):
        await call(*arguments, **options)
    assert scripted.count(rpc) == 1


async def test_a_repeated_submission_has_the_same_request_id(
    call: Caller, scripted: ScriptedServer
) -> None:
    seen: list[ingest_pb2.SubmitUrlRequest] = []

    def remember(reply: Any) -> Any:
        def made(request: Any, context: Any) -> Any:
            seen.append(request)
            return reply(request, context)

        return made

    job = answer(ingest_pb2.Job(id=ID))
    scripted.on("SubmitUrl", remember(fail(ErrorKind.UNAVAILABLE)), remember(job))
    await call("submit_url", "https://example.org/a")
    await call("submit_url", "https://example.org/a")
    await call("submit_url", "https://example.org/a", request_id="mine")
    ids = [request.request_id for request in seen]
    assert ids[0] == ids[1] != ids[2]
    assert all(uuid.UUID(one) for one in ids[:3])
    assert ids[3] == "mine"


async def test_retries_stay_within_the_deadline(caller_for: Any, scripted: ScriptedServer) -> None:
    scripted.on("GetStats", fail(ErrorKind.UNAVAILABLE, retry_after_s=0.3))
    call = caller_for(max_retries=100, timeout_s=1.0)
    began = time.monotonic()
    with pytest.raises(soundhash.Unavailable) as caught:
        await call("stats")
    assert caught.value.reason == "SOME_REASON"  # what was wrong, not that time is over
    assert time.monotonic() - began < 1.3
    assert 2 <= scripted.count("GetStats") <= 3
    left = [one.time_left_s for one in scripted.calls]
    assert left[0] is not None and left[1] is not None
    assert left[1] <= left[0] - 0.3


async def test_deadlines(caller_for: Any, scripted: ScriptedServer) -> None:
    release = threading.Event()

    def slow(request: Any, context: Any) -> Any:
        release.wait(5)
        return admin_pb2.GetStatsResponse()

    scripted.on("GetStats", slow)
    call = caller_for(timeout_s=7.0)
    began = time.monotonic()
    with pytest.raises(soundhash.DeadlineExceeded) as caught:
        await call("stats", timeout_s=0.2)
    release.set()
    assert 0.2 <= time.monotonic() - began < 2
    assert "timeout" not in caught.value.message.lower() and caught.value.remedy
    await call("stats")
    left = [one.time_left_s for one in scripted.calls]
    assert left[0] is not None and 0 < left[0] < 0.3
    assert left[1] is not None and 5 < left[1] < 7.1


async def test_a_closed_client_says_so(call: Caller) -> None:
    await call.close()
    await call.close()
    with pytest.raises(soundhash.FailedPrecondition) as caught:
        await call("stats")
    assert caught.value.reason == "CLIENT_CLOSED"


async def test_an_unclosed_client_is_told(caller_for: Any, scripted: ScriptedServer) -> None:
    scripted.on("GetStats", STATS)
    call = caller_for()
    await call("stats")
    transport = call.client._transport
    with pytest.warns(ResourceWarning, match="unclosed"):
        del call.client
        gc.collect()
    call.client = transport  # closed with the others


async def test_the_token_is_sent(caller_for: Any, scripted: ScriptedServer) -> None:
    scripted.on("GetStats", STATS)
    await caller_for(token="secret")("stats")
    await caller_for()("stats")
    assert [one.metadata.get("authorization") for one in scripted.calls] == ["Bearer secret", None]


async def test_unix_sockets(kind: str, tmp_path: Path) -> None:
    with scripted_server(f"unix:{tmp_path}/s") as server:
        server.on("GetStats", STATS)
        call = Caller(kind, server.address)
        assert (await call("stats")).video_count == 3
        await call.close()


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOUNDHASH_ADDRESS", raising=False)
    assert soundhash.Client().address == "127.0.0.1:50051"
    monkeypatch.setenv("SOUNDHASH_ADDRESS", "server:1234")
    assert soundhash.Client().address == "server:1234"
    assert soundhash.Client("other:99").address == "other:99"
    assert soundhash.Client("other").address == "other:50051"
    assert soundhash.Client("[::1]").address == "[::1]:50051"
    assert soundhash.Client("unix:/run/s").address == "unix:/run/s"
    for wrong in ("http://host:1", "host:port", "host:0", "host:70000", "::1", ":50051"):
        with pytest.raises(soundhash.InvalidArgument) as caught:
            soundhash.Client(wrong)
        assert caught.value.reason == "ADDRESS_INVALID"
    with pytest.raises(ValueError, match="timeout_s"):
        soundhash.Client(timeout_s=0)
    with pytest.raises(ValueError, match="max_retries"):
        soundhash.Client(max_retries=-1)


async def test_a_clip_that_is_too_large_is_not_sent(
    call: Caller, scripted: ScriptedServer, tmp_path: Path
) -> None:
    scripted.on("MatchClip", answer(match_pb2.MatchClipResponse()))
    path = tmp_path / "clip.wav"
    with path.open("wb") as file:
        file.truncate((32 << 20) + 1)
    with pytest.raises(soundhash.InvalidArgument) as caught:
        await call("match", path)
    assert caught.value.reason == "CLIP_TOO_LARGE"
    assert not scripted.calls
    with path.open("wb") as file:
        file.truncate(32 << 20)
    await call("match", path)
    with pytest.raises(FileNotFoundError):
        await call("match", tmp_path / "none.wav")


async def test_pages_are_hidden_and_fetched_when_needed(
    kind: str, call: Caller, scripted: ScriptedServer
) -> None:
    requests: list[catalog_pb2.ListVideosRequest] = []

    def page(request: catalog_pb2.ListVideosRequest, context: Any) -> Any:
        requests.append(request)
        start = int(request.page_token or 0)
        end = min(start + request.page_size, 250)
        return catalog_pb2.ListVideosResponse(
            videos=[catalog_pb2.Video(id=str(n)) for n in range(start, end)],
            next_page_token=str(end) if end < 250 else "",
        )

    scripted.on("ListVideos", page)
    assert [v.id for v in await call("videos", channel="x")] == [str(n) for n in range(250)]
    assert [r.page_token for r in requests] == ["", "100", "200"]
    assert {r.channel for r in requests} == {"x"}
    requests.clear()
    assert len(await call("videos", limit=120)) == 120
    assert [r.page_size for r in requests] == [100, 20]
    requests.clear()
    client: Any = call.client
    if kind == "plain":
        await asyncio.to_thread(next, client.videos())
    else:
        await anext(client.videos())
    assert len(requests) == 1
    with pytest.raises(ValueError, match="limit"):
        await call("videos", limit=0)
    with pytest.raises(ValueError, match="SUCCEEDED"):
        await call("jobs", states=["DONE"])
