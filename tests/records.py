"""Small made-up records for tests of the stores; no audio behind them."""

from __future__ import annotations

import hashlib
from uuid import UUID

from soundhash_engine.types import Segment
from soundhash_server.model import IngestParameters, IngestResult, JobKind, NewVideo
from soundhash_server.store.jobs import Jobs

DIGEST = "test-params"


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def new_video(
    *,
    title: str = "A song",
    source_url: str = "",
    external_id: str = "",
    channel: str = "",
    source_key: str = "",
    content_sha256: str = "",
) -> NewVideo:
    return NewVideo(
        title=title,
        source_url=source_url,
        external_id=external_id,
        channel=channel,
        source_key=source_key,
        content_sha256=content_sha256 or sha256_of(title),
        duration_s=180.0,
    )


def make_segments(count: int, *, digest: str = DIGEST, salt: str = "") -> list[Segment]:
    """Segments with distinguishable bytes; not decodable."""
    return [
        Segment(
            index=index,
            start_s=90.0 * index,
            duration_s=90.0,
            landmarks=f"landmarks {salt}{index}".encode(),
            descriptor=f"descriptor {salt}{index}".encode(),
            vector=bytes(8),
            md5=hashlib.md5(f"{salt}{index}".encode()).hexdigest(),
            params_digest=digest,
            landmark_count=100 + index,
        )
        for index in range(count)
    ]


async def add_video(jobs: Jobs, video: NewVideo, segments: list[Segment] | None = None) -> UUID:
    """Stores a video the way a worker does; returns its id."""
    job, _ = await jobs.submit(
        JobKind.INGEST,
        f"sha256:{video.content_sha256}",
        IngestParameters(content_sha256=video.content_sha256),
        max_attempts=3,
        params_digest="never the same",
    )
    lease = await jobs.claim(job.id, 30.0)
    if lease is None:
        raise AssertionError(f"job {job.id} is {job.state}")
    result: IngestResult = await jobs.complete(lease.token, video, segments or make_segments(2))
    return result.video_id
