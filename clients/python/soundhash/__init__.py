"""SoundHash tells you which video a clip comes from, and where in it.

    with soundhash.Client() as client:
        for match in client.match("clip.ogg").matches:
            print(match.title, match.video_start_s, match.confidence)

`AsyncClient` has the same methods for asyncio. All failures are SoundHashError.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from soundhash._version import __version__

if TYPE_CHECKING:
    from soundhash._client import AsyncClient
    from soundhash._config import TlsConfig
    from soundhash._errors import (
        Aborted,
        AlreadyExists,
        Cancelled,
        DataLoss,
        DeadlineExceeded,
        FailedPrecondition,
        FieldViolation,
        Internal,
        InvalidArgument,
        NotFound,
        OutOfRange,
        PermissionDenied,
        ResourceExhausted,
        SoundHashError,
        Unauthenticated,
        Unavailable,
        Unimplemented,
    )
    from soundhash._explanation import (
        AlignedLandmarks,
        ContrastPatch,
        CoverageBlock,
        Explanation,
        LandmarkPoints,
        MatchedPlace,
        OffsetHistogram,
        Patches,
        ScoreTerm,
    )
    from soundhash._sync import Client
    from soundhash._timeline import Timeline, TimelineEntry
    from soundhash._types import (
        AlertKind,
        BatchItem,
        BatchProgress,
        BatchResult,
        Channel,
        ChannelParameters,
        ChannelVideo,
        Clip,
        Comparison,
        Detection,
        FailureGroup,
        FailureSummary,
        FetchOptions,
        FinalMatch,
        Fingerprint,
        FolderParameters,
        Gap,
        Health,
        Heard,
        IndexStatus,
        IngestParameters,
        IngestResult,
        Job,
        JobFailure,
        JobKind,
        JobProgress,
        JobState,
        JobStep,
        KeptObject,
        Match,
        MatchResult,
        MissingPart,
        Monitor,
        MonitorAlert,
        MonitorConfig,
        MonitorEvent,
        MonitorState,
        MonitorStats,
        PausedHost,
        PcmEncoding,
        PcmFormat,
        PostingShard,
        ProvisionalMatch,
        Quota,
        RetriedJobs,
        ScoreParts,
        Segment,
        SharedPassage,
        Stats,
        StreamEvent,
        StreamInterrupted,
        StreamOpened,
        StreamSummary,
        StreamWarning,
        UploadStatus,
        UrlEnd,
        UrlEvent,
        UrlMatch,
        UrlProgress,
        Video,
    )

__all__ = [
    "Aborted",
    "AlertKind",
    "AlignedLandmarks",
    "AlreadyExists",
    "AsyncClient",
    "BatchItem",
    "BatchProgress",
    "BatchResult",
    "Cancelled",
    "Channel",
    "ChannelParameters",
    "ChannelVideo",
    "Client",
    "Clip",
    "Comparison",
    "ContrastPatch",
    "CoverageBlock",
    "DataLoss",
    "DeadlineExceeded",
    "Detection",
    "Explanation",
    "FailedPrecondition",
    "FailureGroup",
    "FailureSummary",
    "FetchOptions",
    "FieldViolation",
    "FinalMatch",
    "Fingerprint",
    "FolderParameters",
    "Gap",
    "Health",
    "Heard",
    "IndexStatus",
    "IngestParameters",
    "IngestResult",
    "Internal",
    "InvalidArgument",
    "Job",
    "JobFailure",
    "JobKind",
    "JobProgress",
    "JobState",
    "JobStep",
    "KeptObject",
    "LandmarkPoints",
    "Match",
    "MatchResult",
    "MatchedPlace",
    "MissingPart",
    "Monitor",
    "MonitorAlert",
    "MonitorConfig",
    "MonitorEvent",
    "MonitorState",
    "MonitorStats",
    "NotFound",
    "OffsetHistogram",
    "OutOfRange",
    "Patches",
    "PausedHost",
    "PcmEncoding",
    "PcmFormat",
    "PermissionDenied",
    "PostingShard",
    "ProvisionalMatch",
    "Quota",
    "ResourceExhausted",
    "RetriedJobs",
    "ScoreParts",
    "ScoreTerm",
    "Segment",
    "SharedPassage",
    "SoundHashError",
    "Stats",
    "StreamEvent",
    "StreamInterrupted",
    "StreamOpened",
    "StreamSummary",
    "StreamWarning",
    "Timeline",
    "TimelineEntry",
    "TlsConfig",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UploadStatus",
    "UrlEnd",
    "UrlEvent",
    "UrlMatch",
    "UrlProgress",
    "Video",
    "__version__",
]

_MODULES = ("_sync", "_client", "_types", "_errors", "_config", "_explanation", "_timeline")


def __getattr__(name: str) -> object:
    # Everything is loaded when it is first asked for: `soundhash --help` needs no gRPC.
    if name in __all__:
        for module in _MODULES:
            found: object = getattr(import_module(f"soundhash.{module}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module 'soundhash' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
