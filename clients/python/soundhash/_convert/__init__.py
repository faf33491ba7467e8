"""From the API's messages to the client's values, and back where values are sent."""

from soundhash._convert.catalogue import (
    channel,
    channel_video,
    clip,
    duplicate_kind_number,
    duplicate_pair,
    kept_object,
    quota,
    video,
)
from soundhash._convert.fingerprints import comparison, fingerprint, to_fingerprint
from soundhash._convert.jobs import (
    failure_summary,
    fetch_options,
    job,
    kind_number,
    retried_jobs,
    state_number,
    to_fetch_options,
    upload_status,
)
from soundhash._convert.matches import (
    match,
    match_result,
    pcm_format,
    score_parts,
    stream_event,
    url_event,
    url_result,
)
from soundhash._convert.server import health, index_status, stats
from soundhash._convert.values import seconds, to_duration, to_timestamp

__all__ = [
    "channel",
    "channel_video",
    "clip",
    "comparison",
    "duplicate_kind_number",
    "duplicate_pair",
    "failure_summary",
    "fetch_options",
    "fingerprint",
    "health",
    "index_status",
    "job",
    "kept_object",
    "kind_number",
    "match",
    "match_result",
    "pcm_format",
    "quota",
    "retried_jobs",
    "score_parts",
    "seconds",
    "state_number",
    "stats",
    "stream_event",
    "to_duration",
    "to_fetch_options",
    "to_fingerprint",
    "to_timestamp",
    "upload_status",
    "url_event",
    "url_result",
    "video",
]
