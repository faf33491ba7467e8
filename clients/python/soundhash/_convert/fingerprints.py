"""Fingerprints and what they have in common."""

from __future__ import annotations

from soundhash import _types as t
from soundhash._convert.matches import score_parts
from soundhash._convert.values import seconds, to_duration
from soundhash.v1 import (
    fingerprint_pb2,
)


def fingerprint(m: fingerprint_pb2.Fingerprint) -> t.Fingerprint:
    return t.Fingerprint(
        video_id=m.video_id,
        params_digest=m.params_digest,
        duration_s=seconds(m.duration),
        landmark_count=m.landmark_count,
        segment_count=m.segment_count,
        segments=tuple(
            t.Segment(
                index=s.index,
                start_s=seconds(s.start),
                duration_s=seconds(s.duration),
                landmark_count=s.landmark_count,
                landmarks=s.landmarks,
                descriptor=s.descriptor,
                vector=s.vector,
                md5=s.md5,
            )
            for s in m.segments
        ),
    )


def to_fingerprint(value: t.Fingerprint) -> fingerprint_pb2.Fingerprint:
    return fingerprint_pb2.Fingerprint(
        video_id=value.video_id,
        params_digest=value.params_digest,
        duration=to_duration(value.duration_s),
        landmark_count=value.landmark_count,
        segment_count=value.segment_count,
        segments=[
            fingerprint_pb2.Segment(
                index=s.index,
                start=to_duration(s.start_s),
                duration=to_duration(s.duration_s),
                landmark_count=s.landmark_count,
                landmarks=s.landmarks,
                descriptor=s.descriptor,
                vector=s.vector,
                md5=s.md5,
            )
            for s in value.segments
        ],
    )


def comparison(m: fingerprint_pb2.CompareResponse) -> t.Comparison:
    return t.Comparison(
        same_audio=m.same_audio,
        confidence=m.confidence,
        offset_s=seconds(m.offset),
        speed=m.speed,
        pitch=m.pitch,
        correlation=m.correlation,
        distance=m.distance,
        vector_similarity=m.vector_similarity,
        passages=tuple(_shared_passage(one) for one in m.passages),
    )


def _shared_passage(m: fingerprint_pb2.SharedPassage) -> t.SharedPassage:
    return t.SharedPassage(
        first_start_s=seconds(m.first_start),
        first_end_s=seconds(m.first_end),
        second_start_s=seconds(m.second_start),
        second_end_s=seconds(m.second_end),
        speed=m.speed,
        pitch=m.pitch,
        confidence=m.confidence,
        parts=score_parts(m.parts),
        also_at_s=tuple(seconds(place) for place in m.also_at),
    )
