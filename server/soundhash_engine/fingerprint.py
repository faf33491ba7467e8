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
    if not ordered:
        raise CorruptFingerprint("a recording without any segment")
    times, bins, strengths, rows = [], [], [], []
    n_frames = whole_frames = 0
    ends = []
    for position, segment in enumerate(ordered):
        if segment.index != position:
            raise CorruptFingerprint(f"segment {position} is missing or doubled")
        landmarks, descriptor = decode_segment(segment, params)
        # How long segments are is up to whoever made them, but all but the last are alike.
        whole_frames = whole_frames or landmarks.n_frames
        if segment is not ordered[-1] and landmarks.n_frames != whole_frames:
            raise CorruptFingerprint(f"segment {position} is incomplete but not the last")
        times.append(landmarks.time + np.int32(2 * n_frames))
        bins.append(landmarks.bin)
        strengths.append(landmarks.strength)
        rows.append(descriptor)
        n_frames += landmarks.n_frames
        ends.append(n_frames)
    # Row r covers frames 4r … 4r + 3 of the recording and lies in the segment where they begin.
    n_rows = n_frames // params.descriptor_frames
    due = [min(-(-end // params.descriptor_frames), n_rows) for end in ends]
    if np.cumsum([part.shape[0] for part in rows]).tolist() != due:
        raise CorruptFingerprint("a segment has the wrong number of descriptor rows")
    return Fingerprint(
        duration_s=ordered[-1].start_s + ordered[-1].duration_s,
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
