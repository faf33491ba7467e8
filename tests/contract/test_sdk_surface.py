"""The client's surface: frozen, the same for both clients, and complete."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from tests.scripted import Caller, ScriptedServer, answer, rpcs

import soundhash
from soundhash import _types
from soundhash.v1 import (
    admin_pb2,
    catalog_pb2,
    channels_pb2,
    clips_pb2,
    fingerprint_pb2,
    ingest_pb2,
    match_pb2,
    monitors_pb2,
)

EXPORTS = """
Aborted AlertKind AlignedLandmarks AlreadyExists AsyncClient BatchItem BatchProgress BatchResult
Cancelled Channel ChannelParameters ChannelVideo Client Clip Comparison ContrastPatch CoverageBlock
DataLoss DeadlineExceeded Detection DuplicateKind DuplicatePair DuplicatesParameters
DuplicatesResult Explanation FailedPrecondition FailureGroup FailureSummary FetchOptions
FieldViolation FinalMatch Fingerprint FolderParameters Gap Health Heard IndexStatus
IngestParameters IngestResult Internal InvalidArgument Job JobFailure JobKind JobProgress JobState
JobStep KeptObject LandmarkPoints Match MatchResult MatchedPlace MissingPart Monitor MonitorAlert
MonitorConfig MonitorEvent MonitorState MonitorStats NotFound OffsetHistogram OnAir OutOfRange
Patches PausedHost PcmEncoding PcmFormat PermissionDenied PostingShard ProvisionalMatch Quota
ResourceExhausted RetriedJobs ScoreParts ScoreTerm Segment SharedPassage SharedRange SoundHashError
Stats StreamEvent StreamInterrupted StreamOpened StreamSummary StreamWarning Timeline TimelineEntry
TlsConfig Unauthenticated Unavailable Unimplemented UploadStatus UrlEnd UrlEvent UrlMatch
UrlProgress Video __version__
"""

METHODS = """
cancel_job channel_videos channels clips close compact_index compare compute_fingerprint
create_monitor delete_channel delete_clip delete_kept_objects delete_monitor delete_video detections
duplicates explain failure_summary find_duplicates fingerprints get_channel get_clip get_fingerprint
get_job get_match get_monitor get_upload get_video health index_status jobs kept_objects match
match_url matches monitor_alerts monitors pause_monitor process_clips quota resume_monitor retry_job
retry_jobs scan_folder search_videos stats stream stream_url submit_channel submit_clips submit_url
update_channel update_monitor update_video upload videos wait_for_job watch_detections watch_job
"""

JOB = ingest_pb2.Job(id="1", state=ingest_pb2.JOB_STATE_SUCCEEDED)
ID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


def public_methods(kind: type) -> dict[str, Any]:
    return {
        name: member
        for base in reversed(kind.__mro__)
        for name, member in vars(base).items()
        if not name.startswith("_") and inspect.isfunction(member)
    }


def test_exports_are_frozen() -> None:
    assert sorted(soundhash.__all__) == sorted(EXPORTS.split())
    for name in soundhash.__all__:
        assert getattr(soundhash, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        soundhash.nonsense  # noqa: B018


def test_methods_are_frozen() -> None:
    assert sorted(public_methods(soundhash.Client)) == sorted(METHODS.split())


def test_both_clients_have_the_same_surface() -> None:
    plain, asynchronous = public_methods(soundhash.Client), public_methods(soundhash.AsyncClient)
    assert list(plain) == list(asynchronous)
    for name, method in plain.items():
        other = asynchronous[name]
        ours, theirs = inspect.signature(method), inspect.signature(other)
        assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
            (p.name, p.kind, p.default) for p in theirs.parameters.values()
        ], name
        assert inspect.getdoc(method) == inspect.getdoc(other), name
        # What one yields the other yields; what one returns the other returns when awaited.
        yields = "Iterator[" in ours.return_annotation or "Generator[" in ours.return_annotation
        assert inspect.iscoroutinefunction(other) != yields, name
        expected = (
            ours.return_annotation.replace("Iterator[", "AsyncIterator[")
            .replace("Generator[", "AsyncGenerator[")
            .replace(", None, None]", ", None]")
        )
        assert expected == theirs.return_annotation, name
    for property_name in ("address", "raw"):
        assert isinstance(inspect.getattr_static(soundhash.Client, property_name), property)
        assert isinstance(inspect.getattr_static(soundhash.AsyncClient, property_name), property)
    assert inspect.signature(soundhash.Client) == inspect.signature(soundhash.AsyncClient)
    assert inspect.getdoc(soundhash.Client) == inspect.getdoc(soundhash.AsyncClient)


def test_every_public_method_is_documented() -> None:
    for name, method in public_methods(soundhash.Client).items():
        assert inspect.getdoc(method), name


def test_results_are_frozen_and_slotted() -> None:
    results = [value for value in vars(_types).values() if dataclasses.is_dataclass(value)]
    assert len(results) >= 15
    for result in results:
        assert isinstance(result, type)
        assert vars(result)["__dataclass_params__"].frozen, result
        assert "__dict__" not in dir(result), result
        assert result.__doc__ and not result.__doc__.startswith(f"{result.__name__}("), result


def test_every_error_has_its_own_code() -> None:
    kinds = [
        value
        for name in soundhash.__all__
        if inspect.isclass(value := getattr(soundhash, name))
        and issubclass(value, soundhash.SoundHashError)
        and value is not soundhash.SoundHashError
    ]
    assert len({kind.default_code for kind in kinds}) == len(kinds) == 15


def test_importing_loads_nothing_heavy(tmp_path: Path) -> None:
    """The program has to start fast, and the client must not pull in what it does not declare."""
    code = (
        "import sys, soundhash; assert 'grpc' not in sys.modules; soundhash.Client;"
        "heavy = {'numpy', 'scipy', 'numba', 'av', 'asyncpg', 'arq', 'protovalidate',"
        " 'soundhash_engine', 'soundhash_server', 'typer', 'rich'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=30)


CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "Upload": (("upload", b"abc"), {}),
    "GetUpload": (("get_upload", "0" * 64), {}),
    "SubmitUrl": (("submit_url", "https://example.org/a.mp3"), {}),
    "SubmitChannel": (("submit_channel", "@somebody"), {"max_videos": 3}),
    "GetChannel": (("get_channel", ID), {}),
    "ListChannels": (("channels",), {}),
    "UpdateChannel": (("update_channel", ID), {"schedule": "0 4 * * *"}),
    "DeleteChannel": (("delete_channel", ID), {}),
    "ListChannelVideos": (("channel_videos", ID), {}),
    "GetQuota": (("quota",), {}),
    "ScanFolder": (("scan_folder", "/media"), {"watch": True}),
    "GetJob": (("get_job", ID), {}),
    "ListJobs": (("jobs",), {}),
    "WatchJob": (("watch_job", ID), {}),
    "CancelJob": (("cancel_job", ID), {}),
    "RetryJob": (("retry_job", ID), {}),
    "RetryJobs": (("retry_jobs",), {"failure_reason": "NETWORK_ERROR"}),
    "SummarizeFailures": (("failure_summary",), {}),
    "SubmitClips": (("submit_clips", ["A"]), {}),
    "ProcessClips": (("process_clips", ["A"]), {}),
    "GetClip": (("get_clip", "A"), {}),
    "ListClips": (("clips",), {}),
    "DeleteClip": (("delete_clip", "A"), {}),
    "ListObjects": (("kept_objects", ID), {}),
    "DeleteObjects": (("delete_kept_objects", ID), {}),
    "MatchClip": (("match", b"abc"), {}),
    "MatchStream": (("stream", [b"abc"]), {}),
    "MatchUrl": (("match_url", "https://example.org/a.mp3"), {"start_s": 5.0, "length_s": 8.0}),
    "GetMatch": (("get_match", ID), {}),
    "ListMatches": (("matches",), {}),
    "ExplainMatch": (("explain", ID), {}),
    "Compute": (("compute_fingerprint", b"abc"), {}),
    "Compare": (("compare", b"abc", ID), {}),
    "GetFingerprint": (("get_fingerprint", ID), {}),
    "ListFingerprints": (("fingerprints",), {}),
    "GetVideo": (("get_video", ID), {}),
    "ListVideos": (("videos",), {}),
    "SearchVideos": (("search_videos", "word"), {}),
    "UpdateVideo": (("update_video", ID), {"title": "new"}),
    "DeleteVideo": (("delete_video", ID), {}),
    "FindDuplicates": (("find_duplicates", [ID]), {"min_shared_s": 5.0}),
    "ListDuplicates": (("duplicates", ID), {"video_id": ID, "kinds": ["full"], "limit": 3}),
    "CreateMonitor": (("create_monitor", "http://radio.example/"), {"keep_air_s": 60.0}),
    "GetMonitor": (("get_monitor", ID), {}),
    "ListMonitors": (("monitors",), {}),
    "UpdateMonitor": (("update_monitor", ID), {"name": "new"}),
    "PauseMonitor": (("pause_monitor", ID), {}),
    "ResumeMonitor": (("resume_monitor", ID), {}),
    "DeleteMonitor": (("delete_monitor", ID), {}),
    "WatchDetections": (("watch_detections", [ID]), {}),
    "ListDetections": (("detections",), {}),
    "ListAlerts": (("monitor_alerts",), {}),
    "GetStats": (("stats",), {}),
    "GetIndexStatus": (("index_status",), {}),
    "CompactIndex": (("compact_index",), {}),
}


@pytest.mark.parametrize("path", rpcs())
async def test_every_rpc_is_reachable(path: str, call: Caller, scripted: ScriptedServer) -> None:
    from google.protobuf.message_factory import GetMessageClass

    method = rpcs()[path]
    message: Any = (
        JOB if method.output_type.name == "Job" else GetMessageClass(method.output_type)()
    )

    def reply(request: Any, context: Any) -> Any:
        if method.client_streaming:
            sent = list(request)
            assert sent, "nothing was sent"
        return iter([message]) if method.server_streaming else message

    scripted.on(method.name, reply)
    arguments, options = CALLS[method.name]
    await call(*arguments, **options)
    assert [one.path for one in scripted.calls] == [path]


async def test_health(call: Caller, scripted: ScriptedServer) -> None:
    from grpc_health.v1 import health_pb2

    seen: list[str] = []

    def reply(request: Any, context: Any) -> Any:
        seen.append(request.service)
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)

    scripted.on("Check", reply)
    assert await call("health") is soundhash.Health.NOT_SERVING
    assert await call("health", "soundhash.v1.MatchService") is soundhash.Health.NOT_SERVING
    assert seen == ["", "soundhash.v1.MatchService"]


async def test_shared_passages_arrive(call: Caller, scripted: ScriptedServer) -> None:
    passage = fingerprint_pb2.SharedPassage(
        first_start=Duration(seconds=61, nanos=500_000_000),
        first_end=Duration(seconds=80),
        second_start=Duration(seconds=2),
        second_end=Duration(seconds=20, nanos=500_000_000),
        speed=1.05,
        pitch=0.95,
        confidence=0.99,
        parts=match_pb2.ScoreParts(score=7.5, coverage=0.8),
        also_at=[Duration(seconds=5)],
    )
    scripted.on(
        "Compare",
        answer(fingerprint_pb2.CompareResponse(same_audio=True, passages=[passage, passage])),
    )
    found = await call("compare", ID, b"media")
    first, second = found.passages
    assert first == second
    assert (first.first_start_s, first.first_end_s) == (61.5, 80.0)
    assert (first.second_start_s, first.second_end_s) == (2.0, 20.5)
    assert (first.speed, first.pitch, first.confidence) == (1.05, 0.95, 0.99)
    assert (first.parts.score, first.parts.coverage) == (7.5, 0.8)
    assert first.also_at_s == (5.0,)


async def test_raw_is_the_way_past_the_client(call: Caller, scripted: ScriptedServer) -> None:
    scripted.on("GetStats", answer(admin_pb2.GetStatsResponse(video_count=7)))
    made: Any = call.client.raw.admin.GetStats(admin_pb2.GetStatsRequest())
    if call.kind == "asyncio":
        made = await made
    assert made.video_count == 7


def test_every_field_of_every_answer_arrives() -> None:
    """A field that the API has and the client drops would be lost silently."""
    pairs: list[tuple[Any, Any, set[str]]] = [
        (catalog_pb2.Video, soundhash.Video, set()),
        (ingest_pb2.Job, soundhash.Job, {"ingest", "ingest_result"}),
        (ingest_pb2.JobProgress, soundhash.JobProgress, set()),
        (ingest_pb2.JobFailure, soundhash.JobFailure, set()),
        (ingest_pb2.SummarizeFailuresResponse, soundhash.FailureSummary, set()),
        (ingest_pb2.FailureGroup, soundhash.FailureGroup, set()),
        (ingest_pb2.PausedHost, soundhash.PausedHost, set()),
        (ingest_pb2.RetryJobsResponse, soundhash.RetriedJobs, set()),
        (ingest_pb2.IngestParameters, soundhash.IngestParameters, set()),
        (ingest_pb2.IngestResult, soundhash.IngestResult, set()),
        (channels_pb2.Channel, soundhash.Channel, set()),
        (channels_pb2.ChannelVideo, soundhash.ChannelVideo, {"duration_seconds"}),
        (channels_pb2.Quota, soundhash.Quota, set()),
        (ingest_pb2.UploadStatus, soundhash.UploadStatus, set()),
        (ingest_pb2.BatchProgress, soundhash.BatchProgress, set()),
        (ingest_pb2.BatchItem, soundhash.BatchItem, set()),
        (ingest_pb2.BatchResult, soundhash.BatchResult, set()),
        (ingest_pb2.ChannelParameters, soundhash.ChannelParameters, set()),
        (ingest_pb2.FolderParameters, soundhash.FolderParameters, set()),
        (clips_pb2.Clip, soundhash.Clip, set()),
        (clips_pb2.KeptObject, soundhash.KeptObject, set()),
        (monitors_pb2.Monitor, soundhash.Monitor, set()),
        (monitors_pb2.MonitorConfig, soundhash.MonitorConfig, {"fetch"}),
        (monitors_pb2.MonitorStats, soundhash.MonitorStats, set()),
        (monitors_pb2.Detection, soundhash.Detection, set()),
        (monitors_pb2.MonitorAlert, soundhash.MonitorAlert, set()),
        (monitors_pb2.WatchDetectionsResponse, soundhash.MonitorEvent, set()),
        (match_pb2.Match, soundhash.Match, set()),
        (match_pb2.OnAir, soundhash.OnAir, set()),
        (match_pb2.ScoreParts, soundhash.ScoreParts, set()),
        (match_pb2.MatchClipResponse, soundhash.MatchResult, set()),
        (match_pb2.ExplainMatchResponse, soundhash.Explanation, set()),
        (match_pb2.MatchedPlace, soundhash.MatchedPlace, set()),
        (match_pb2.ScoreTerm, soundhash.ScoreTerm, set()),
        (match_pb2.LandmarkPoints, soundhash.LandmarkPoints, {"time_s"}),
        (match_pb2.AlignedLandmarks, soundhash.AlignedLandmarks, {"residual_s"}),
        (match_pb2.OffsetHistogram, soundhash.OffsetHistogram, {"first_offset_s", "bin_s"}),
        (match_pb2.ContrastPatch, soundhash.ContrastPatch, set()),
        (
            match_pb2.Patches,
            soundhash.Patches,
            {"first_clip_s", "first_video_s", "row_s"},
        ),
        (match_pb2.CoverageBlock, soundhash.CoverageBlock, set()),
        (match_pb2.StreamOpened, soundhash.StreamOpened, set()),
        (match_pb2.HeardSoFar, soundhash.Heard, set()),
        (match_pb2.StreamGap, soundhash.Gap, set()),
        (match_pb2.ProvisionalMatch, soundhash.ProvisionalMatch, set()),
        (match_pb2.StreamSummary, soundhash.StreamSummary, set()),
        (match_pb2.MatchUrlProgress, soundhash.UrlProgress, set()),
        (match_pb2.MatchUrlEnd, soundhash.UrlEnd, {"matches"}),
        (ingest_pb2.FetchOptions, soundhash.FetchOptions, {"max_bytes_per_second"}),
        (fingerprint_pb2.Fingerprint, soundhash.Fingerprint, set()),
        (fingerprint_pb2.Segment, soundhash.Segment, set()),
        (fingerprint_pb2.CompareResponse, soundhash.Comparison, set()),
        (fingerprint_pb2.SharedPassage, soundhash.SharedPassage, set()),
        (admin_pb2.GetStatsResponse, soundhash.Stats, set()),
        (admin_pb2.IndexStatus, soundhash.IndexStatus, set()),
    ]
    for message, result, renamed in pairs:
        ours = {f.name.removesuffix("_s") for f in dataclasses.fields(result)}
        theirs = {f.name for f in message.DESCRIPTOR.fields} - renamed
        assert theirs <= ours, result
