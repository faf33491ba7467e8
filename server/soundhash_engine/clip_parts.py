"""What is kept of a clip so that its matches can be explained later without its audio.

A part's blob holds its landmarks and its contrast in steps of half a neper, as coarse as the
stored descriptor but cell by cell: about 4 kB a second of audio. Explained from it, scores come
out within 0.5 of those of the audio.
"""

import dataclasses
import struct
from collections.abc import Iterable, Sequence

import numpy as np

from soundhash_engine.codec import pack_blob, pack_landmarks, unpack_blob, unpack_landmarks
from soundhash_engine.errors import CorruptFingerprint
from soundhash_engine.explaining import explain_features, line_of, parts_of
from soundhash_engine.explanation import Explanation
from soundhash_engine.index import Snapshot
from soundhash_engine.landmarks import query_features
from soundhash_engine.matcher import SINGLE_WINDOW_S, Match
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.types import Pcm, QueryFeatures

MOST_LAID = 12
"""Of a match in many windows so many are weighed to find the most convincing, evenly spread."""
NEAR_SCORE = 1.0
"""A stretch longer than a window is kept only when no window comes this near to the match."""

_MAGIC = 0xA3
_HEADER = struct.Struct("<IdI")
_STEP_NEPER = 0.5


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ClipPart:
    """A part of a clip that begins at its second ``begin_s``."""

    begin_s: float
    features: QueryFeatures


def choose_parts(
    snapshot: Snapshot,
    pcm: Pcm,
    matches: Iterable[Match],
    *,
    most: int,
    begin_s: float = 0.0,
    params: Params = PARAMS,
) -> list[ClipPart]:
    """The parts of a clip that convince most of each match, the first matches first, at most
    ``most``.

    ``begin_s``: where ``pcm`` (mono float32 at 8 kHz) begins in the matches' time; what lies
    before is gone. A match whose recording is no longer there, and one of which nothing is left,
    has none.
    """
    pcm = np.ascontiguousarray(pcm, np.float32)
    rate = params.sample_rate_hz
    made: dict[tuple[int, int], QueryFeatures] = {}
    chosen: list[tuple[int, int]] = []
    for match in matches:
        line = line_of(snapshot, match, params)
        if line is None or len(chosen) >= most:
            continue
        shifted = dataclasses.replace(
            match,
            clip_start_s=max(0.0, match.clip_start_s - begin_s),
            clip_end_s=match.clip_end_s - begin_s,
        )
        best, best_score = None, -np.inf
        for bounds in _spread(parts_of(pcm.size, shifted, params)):
            longer = bounds[1] - bounds[0] > SINGLE_WINDOW_S * rate
            if longer and best_score >= match.score - NEAR_SCORE:
                continue
            if bounds not in made:
                made[bounds] = query_features(pcm[slice(*bounds)], params)
            if not len(made[bounds].landmarks):
                continue
            score = line.lay(made[bounds], begin_s + bounds[0] / rate).score
            if score > best_score:
                best, best_score = bounds, score
        if best is not None and best not in chosen:
            chosen.append(best)
    return [ClipPart(begin_s + bounds[0] / rate, made[bounds]) for bounds in chosen]


def explain_parts(
    snapshot: Snapshot, parts: Iterable[ClipPart], match: Match, params: Params = PARAMS
) -> Explanation:
    """As ``explain``, from what was kept.

    Raises ValueError when the recording is not in the snapshot or no part lies in the match.
    """
    rate = params.sample_rate_hz
    mine = (
        (part.features, part.begin_s)
        for part in parts
        if part.begin_s < match.clip_end_s
        and part.begin_s + part.features.n_samples / rate > match.clip_start_s
    )
    return explain_features(snapshot, mine, match, params)


def encode_part(part: ClipPart, params: Params = PARAMS) -> bytes:
    """A part as bytes."""
    contrast = np.clip(np.round(part.features.contrast / _STEP_NEPER), -128, 127).astype(np.int8)
    landmarks = pack_landmarks(part.features.landmarks, params)
    # From frame to frame less changes than from band to band.
    steps = np.diff(contrast, axis=0, prepend=np.int8(0))
    header = _HEADER.pack(part.features.n_samples, part.begin_s, len(landmarks))
    return pack_blob(_MAGIC, header + landmarks + steps.tobytes(), params)


def decode_part(blob: bytes, params: Params = PARAMS) -> ClipPart:
    """A part from its bytes. Raises ParamsMismatch, CorruptFingerprint."""
    content = unpack_blob(_MAGIC, blob, params)
    if len(content) < _HEADER.size:
        raise CorruptFingerprint("a clip's part has no header")
    n_samples, begin_s, size = _HEADER.unpack_from(content)
    landmarks = unpack_landmarks(content[_HEADER.size : _HEADER.size + size], params)
    steps = np.frombuffer(content, np.int8, offset=_HEADER.size + size)
    shape = (landmarks.n_frames, params.n_bands)
    if steps.size != shape[0] * shape[1] or shape[0] != params.n_frames(n_samples):
        raise CorruptFingerprint("a clip's part has the wrong size")
    contrast = np.cumsum(steps.reshape(shape), axis=0, dtype=np.int8)
    return ClipPart(
        begin_s=begin_s,
        features=QueryFeatures(
            contrast=contrast.astype(np.float32) * np.float32(_STEP_NEPER),
            landmarks=landmarks,
            n_samples=n_samples,
        ),
    )


def _spread(parts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    if len(parts) <= MOST_LAID:
        return list(parts)
    chosen = np.unique(np.linspace(0, len(parts) - 1, MOST_LAID).round().astype(int))
    return [parts[i] for i in chosen.tolist()]
