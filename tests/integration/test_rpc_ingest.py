"""IngestService: uploads, URLs and jobs."""

from __future__ import annotations

import hashlib

from tests.integration.rpc import Running
from tests.media import encode
from tests.sounds import tune

from soundhash.v1 import ingest_pb2


def song(seed: int, duration_s: float = 2.0) -> bytes:
    return encode(tune(duration_s, seed))


async def test_an_upload_becomes_a_job_with_its_bytes_on_disk(server: Running) -> None:
    content = song(10)
    digest = hashlib.sha256(content).hexdigest()
    job = await server.upload(
        content,
        "folder/My Song.wav",
        title="Title",
        external_id="ext-10",
        channel="Band",
        source_url="https://example.com/10",
        content_sha256=digest,
        size_bytes=len(content),
    )
    assert job.kind == ingest_pb2.JOB_KIND_INGEST
    assert job.state == ingest_pb2.JOB_STATE_QUEUED
    assert job.attempt == 0
    assert job.max_attempts == server.settings.job_max_attempts
    assert job.HasField("create_time") and not job.HasField("finish_time")
    assert not job.HasField("failure") and job.WhichOneof("result") is None
    assert job.ingest == ingest_pb2.IngestParameters(
        file_name="My Song.wav",
        title="Title",
        external_id="ext-10",
        channel="Band",
        source_url="https://example.com/10",
        content_sha256=digest,
        size_bytes=len(content),
    )
    assert (server.uploads_dir / digest).read_bytes() == content
    assert server.files_left() == [digest]

    (video_id,) = await server.work()
    done = await server.ingest.GetJob(ingest_pb2.GetJobRequest(id=job.id))
    assert done.state == ingest_pb2.JOB_STATE_SUCCEEDED
    assert done.ingest_result.video_id == video_id
    assert not done.ingest_result.already_indexed
    assert done.progress.step == ingest_pb2.JOB_STEP_DONE
    again = await server.upload(content)
    assert again == done
    assert server.files_left() == []
