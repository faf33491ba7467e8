"""Stored segments back to a whole recording."""

from collections.abc import Iterable

import numpy as np

from soundhash_engine.codec import decode_segment
from soundhash_engine.errors import CorruptFingerprint
from soundhash_engine.landmarks import rank_landmarks
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.stream import extract
from soundhash_engine.types import Fingerprint, Segment

__all__ = ["Fingerprint", "Segment", "extract", "join"]


def join(segments: Iterable[Segment], params: Params = PARAMS) -> Fingerprint:
    """All segments of one recording, in any order, as one fingerprint.

    Its landmarks are those of `find_landmarks` on the whole audio. Raises ParamsMismatch if a
    segment was made with other parameters, CorruptFingerprint if one is damaged, missing or
    doubled.
    """
    ordered = sorted(segments, key=lambda segment: segment.index)
    times, bins, strengths, rows = [], [], [], []
    n_frames = 0
    n_rows = 0
    duration_s = 0.0
    for position, segment in enumerate(ordered):
        if segment.index != position:
            raise CorruptFingerprint(f"segment {position} is missing or doubled")
        landmarks, descriptor = decode_segment(segment, params)
        is_last = position == len(ordered) - 1
        if not is_last and landmarks.n_frames != params.segment_frames:
            raise CorruptFingerprint(f"segment {position} is incomplete but not the last")
        times.append(landmarks.time + np.int32(2 * n_frames))
        bins.append(landmarks.bin)
        strengths.append(landmarks.strength)
        rows.append(descriptor)
        n_frames += landmarks.n_frames
        n_rows += descriptor.shape[0]
        # Row r covers frames 4r … 4r + 3 of the recording and lies where its first frame lies.
        due = n_frames // params.descriptor_frames
        if not is_last:
            due = -(-n_frames // params.descriptor_frames)
        if n_rows != due:
            raise CorruptFingerprint(f"segment {position} has the wrong number of rows")
        duration_s += segment.duration_s
    if not ordered:
        raise CorruptFingerprint("a recording without any segment")
    return Fingerprint(
        duration_s=duration_s,
        n_frames=n_frames,
        landmarks=rank_landmarks(
            np.concatenate(times),
            np.concatenate(bins),
            np.concatenate(strengths),
            n_frames,
            params,
        ),
        descriptor=np.concatenate(rows),
    )
