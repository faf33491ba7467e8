"""The science of SoundHash: pure functions over arrays of mono 8 kHz audio.

decode -> Extractor / extract -> segments -> join -> index
clip -> query_features -> match
"""

from soundhash_engine.decode import AudioInfo, decode_bytes, decode_file, probe
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
from soundhash_engine.live_decode import PcmFormat, PcmResampler, StreamDecoder
from soundhash_engine.params import PARAMS, SAMPLE_RATE_HZ, Params
from soundhash_engine.stream import Extractor
from soundhash_engine.types import Fingerprint, Landmarks, QueryFeatures, Segment

__all__ = [
    "PARAMS",
    "SAMPLE_RATE_HZ",
    "AudioInfo",
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
    "PcmFormat",
    "PcmResampler",
    "QueryFeatures",
    "Segment",
    "SilentAudio",
    "StreamDecoder",
    "decode_bytes",
    "decode_file",
    "extract",
    "find_landmarks",
    "join",
    "probe",
    "query_features",
]
