"""Between messages of soundhash.v1 and the platform's own data."""

from soundhash_server.rpc.convert.catalogue import index_message, stats_message, video_message
from soundhash_server.rpc.convert.fingerprints import (
    comparison_message,
    fingerprint_message,
    segment_from,
    segment_message,
    source_from,
)
from soundhash_server.rpc.convert.jobs import (
    failure_message,
    failures_message,
    fetch_options,
    fetch_options_message,
    job_message,
    kinds,
    states,
)
from soundhash_server.rpc.convert.matches import (
    match_message,
    missing_message,
    pcm_format,
    stream_message,
    url_match_message,
)
from soundhash_server.rpc.convert.values import duration, seconds, timestamp, uuid_or_none

__all__ = [
    "comparison_message",
    "duration",
    "failure_message",
    "failures_message",
    "fetch_options",
    "fetch_options_message",
    "fingerprint_message",
    "index_message",
    "job_message",
    "kinds",
    "match_message",
    "missing_message",
    "pcm_format",
    "seconds",
    "segment_from",
    "segment_message",
    "source_from",
    "states",
    "stats_message",
    "stream_message",
    "timestamp",
    "url_match_message",
    "uuid_or_none",
    "video_message",
]
