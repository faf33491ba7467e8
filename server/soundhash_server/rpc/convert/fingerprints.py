"""Fingerprints and what they have in common."""

from __future__ import annotations

from uuid import UUID

from soundhash.v1 import (
    fingerprint_pb2,
)
from soundhash_engine import Comparison, Segment
from soundhash_server.rpc.convert.matches import parts_message
from soundhash_server.rpc.convert.values import duration, id_text, seconds
from soundhash_server.services.fingerprints import (
    GivenSource,
    MediaSource,
    Print,
    Source,
    StoredSource,
)
from soundhash_server.services.matching import score_parts


def segment_message(segment: Segment) -> fingerprint_pb2.Segment:
    return fingerprint_pb2.Segment(
        index=segment.index,
        start=duration(segment.start_s),
        duration=duration(segment.duration_s),
        landmark_count=segment.landmark_count,
        landmarks=segment.landmarks,
        descriptor=segment.descriptor,
        vector=segment.vector,
        md5=segment.md5,
    )


def segment_from(message: fingerprint_pb2.Segment, params_digest: str) -> Segment:
    return Segment(
        index=message.index,
        start_s=seconds(message.start),
        duration_s=seconds(message.duration),
        landmarks=message.landmarks,
        descriptor=message.descriptor,
        vector=message.vector,
        md5=message.md5,
        params_digest=params_digest,
        landmark_count=message.landmark_count,
    )


def fingerprint_message(found: Print) -> fingerprint_pb2.Fingerprint:
    return fingerprint_pb2.Fingerprint(
        video_id=id_text(found.video_id),
        params_digest=found.params_digest,
        duration=duration(found.duration_s),
        landmark_count=found.landmark_count,
        segment_count=found.segment_count,
        segments=[segment_message(segment) for segment in found.segments],
    )


def source_from(message: fingerprint_pb2.FingerprintSource) -> Source:
    match message.WhichOneof("source"):
        case "video_id":
            return StoredSource(UUID(message.video_id))
        case "fingerprint":
            digest = message.fingerprint.params_digest
            return GivenSource(
                tuple(segment_from(one, digest) for one in message.fingerprint.segments)
            )
        case _:
            return MediaSource(message.content)


def comparison_message(found: Comparison) -> fingerprint_pb2.CompareResponse:
    return fingerprint_pb2.CompareResponse(
        same_audio=bool(found.passages),
        confidence=found.confidence,
        offset=duration(found.offset_s),
        speed=found.speed,
        pitch=found.pitch,
        correlation=found.correlation,
        distance=found.distance,
        vector_similarity=found.vector_cosine,
        passages=[
            fingerprint_pb2.SharedPassage(
                first_start=duration(one.video_start_s),
                first_end=duration(one.video_end_s),
                second_start=duration(one.clip_start_s),
                second_end=duration(one.clip_end_s),
                speed=one.speed,
                pitch=one.pitch,
                confidence=one.confidence,
                parts=parts_message(score_parts(one)),
                also_at=[duration(at_s) for at_s in one.also_at_s],
            )
            for one in found.passages
        ],
    )
