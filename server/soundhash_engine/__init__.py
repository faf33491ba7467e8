"""The science of SoundHash: pure functions over arrays of mono 8 kHz audio.

decode -> Extractor / extract -> segments -> join -> index
clip -> query_features -> match
"""

from soundhash_engine.errors import (
    ClipTooLong,
    ClipTooShort,
    CorruptFingerprint,
    DecodeError,
    EngineError,
    ParamsMismatch,
    SilentAudio,
)
from soundhash_engine.fingerprint import extract, join
from soundhash_engine.landmarks import find_landmarks, query_features
from soundhash_engine.params import PARAMS, SAMPLE_RATE_HZ, Params
from soundhash_engine.stream import Extractor
from soundhash_engine.types import Fingerprint, Landmarks, QueryFeatures, Segment

__all__ = [
    "PARAMS",
    "SAMPLE_RATE_HZ",
    "ClipTooLong",
    "ClipTooShort",
    "CorruptFingerprint",
    "DecodeError",
    "EngineError",
    "Extractor",
    "Fingerprint",
    "Landmarks",
    "Params",
    "ParamsMismatch",
    "QueryFeatures",
    "Segment",
    "SilentAudio",
    "extract",
    "find_landmarks",
    "join",
    "query_features",
]
