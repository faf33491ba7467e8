"""Monitors through both clients: what is sent, what arrives, and watches that come back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.scripted import Caller, ScriptedServer, answer, fail

import soundhash
from soundhash.v1 import ingest_pb2, monitors_pb2
from soundhash_server.errors import ErrorKind

ID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
MONITOR = monitors_pb2.Monitor(id=ID, state=monitors_pb2.MONITOR_STATE_LISTENING)


def event(name: str, at_s: int, ongoing: bool = False) -> monitors_pb2.WatchDetectionsResponse:
    return monitors_pb2.WatchDetectionsResponse(
        detection=monitors_pb2.Detection(id=name, ongoing=ongoing),
        update_time=Timestamp(seconds=at_s),
    )


class Script:
    """Answers a watch with these events, then breaks it."""

    def __init__(self, *connections: list[monitors_pb2.WatchDetectionsResponse]) -> None:
        self.connections = connections
        self.asked: list[monitors_pb2.WatchDetectionsRequest] = []

    def __call__(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.asked.append(request)
        number = len(self.asked)
        yield from self.connections[number - 1]
        if number < len(self.connections):
            fail(ErrorKind.UNAVAILABLE, "SERVER_DRAINING")(request, context)


async def test_a_watch_goes_on_where_it_was_cut(call: Caller, scripted: ScriptedServer) -> None:
    script = Script(
        [event("on", 3, ongoing=True), event("a", 5), event("b", 7)],
        # A server that is away again at once.
        [],
        # What goes on, and what changed last, are told again.
        [event("b", 7), event("c", 8), event("on", 3, ongoing=True)],
        [event("c", 8), event("on", 9)],
    )
    scripted.on("WatchDetections", script)
    found = await call("watch_detections", [ID])
    told = [(one.detection.id, one.update_time.second) for one in found]
    assert told == [("on", 3), ("a", 5), ("b", 7), ("c", 8), ("on", 9)]
    assert [one.since.seconds for one in script.asked] == [0, 7, 7, 8]
    assert not script.asked[0].HasField("since")
    assert all(list(one.monitor_ids) == [ID] for one in script.asked)


async def test_a_watch_begins_when_it_is_told_to(call: Caller, scripted: ScriptedServer) -> None:
    alert = monitors_pb2.MonitorAlert(
        id="x", kind=monitors_pb2.ALERT_KIND_SILENCE, start_time=Timestamp(seconds=4)
    )
    newer = monitors_pb2.WatchDetectionsResponse(update_time=Timestamp(seconds=5))
    message = monitors_pb2.WatchDetectionsResponse(
        alert=alert, update_time=Timestamp(seconds=5, nanos=250_000_000)
    )
    script = Script([newer, message])
    scripted.on("WatchDetections", script)
    (found,) = await call("watch_detections", ID, since=datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC))
    assert script.asked[0].since.seconds == 2
    assert list(script.asked[0].monitor_ids) == [ID]
    assert found.detection is None
    assert found.update_time == datetime(1970, 1, 1, 0, 0, 5, 250_000, tzinfo=UTC)
    assert (found.alert.kind, found.alert.end_time) == (soundhash.AlertKind.SILENCE, None)


async def test_a_watch_that_is_refused_is_over(call: Caller, scripted: ScriptedServer) -> None:
    scripted.on("WatchDetections", fail(ErrorKind.NOT_FOUND, "MONITOR_NOT_FOUND"))
    with pytest.raises(soundhash.NotFound):
        await call("watch_detections", [ID])
    assert scripted.count("WatchDetections") == 1


async def test_only_what_is_given_is_sent(call: Caller, scripted: ScriptedServer) -> None:
    sent: list[Any] = []

    def keep(request: Any, context: Any) -> monitors_pb2.Monitor:
        sent.append(request)
        return MONITOR

    scripted.on("CreateMonitor", fail(ErrorKind.UNAVAILABLE), keep)
    scripted.on("UpdateMonitor", keep)
    made = await call(
        "create_monitor",
        "rtsp://cam.example/1",
        name="Cam",
        min_duration_s=0.0,
        keep_air_s=1.5,
        options=soundhash.FetchOptions(proxy="http://p:1"),
    )
    assert made.state is soundhash.MonitorState.LISTENING
    config = sent[0].config
    assert (config.name, config.fetch.proxy) == ("Cam", "http://p:1")
    assert (config.HasField("min_duration"), config.keep_air.ToMilliseconds()) == (True, 1500)
    assert not config.HasField("silence_after") and not config.HasField("loss_after")
    assert len(sent[0].request_id) == 32, "a repeated call makes one monitor"
    await call("update_monitor", ID, loss_after_s=5.0, name="")
    assert sorted(sent[1].update_mask.paths) == ["loss_after", "name"]
    assert sent[1].config.loss_after.seconds == 5


async def test_a_monitor_arrives(call: Caller, scripted: ScriptedServer) -> None:
    message = monitors_pb2.Monitor(
        id=ID,
        url="http://***@radio.example/",
        state=monitors_pb2.MONITOR_STATE_RETRYING,
        failure=ingest_pb2.JobFailure(reason="SOURCE_OFFLINE", transient=True),
        retry_time=Timestamp(seconds=9),
        current=monitors_pb2.Detection(id="d", coverage=0.5, ongoing=True),
    )
    message.config.loss_after.seconds = 60
    message.stats.heard.seconds = 3600
    message.stats.level_db = -20.5
    scripted.on("GetMonitor", answer(message))
    found = await call("get_monitor", ID)
    assert (found.state, found.failure.reason) == ("RETRYING", "SOURCE_OFFLINE")
    assert (found.config.loss_after_s, found.stats.heard_s) == (60.0, 3600.0)
    assert (found.stats.level_db, found.stats.audio_time) == (-20.5, None)
    assert (found.current.coverage, found.current.start_time) == (0.5, None)
    scripted.on("GetMonitor", answer(monitors_pb2.Monitor.FromString(b"\x20\x63")))
    assert (await call("get_monitor", ID)).state is soundhash.MonitorState.UNKNOWN
    with pytest.raises(ValueError, match="'ASLEEP' is not one of WAITING"):
        await call("monitors", states=["ASLEEP"])
