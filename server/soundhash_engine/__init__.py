"""The science of SoundHash: pure functions over arrays of mono 8 kHz audio.

decode -> Extractor / extract -> segments -> join -> Index
clip -> decode -> match(index.snapshot(), pcm) -> MatchResult
stream -> StreamDecoder -> LiveMatcher -> Provisional, Final
two fingerprints -> compare -> Comparison
a whole index -> find_duplicates -> Duplicate
match -> explain -> Explanation

How to use it alone: ``docs/engine.md``. What is measured of it: ``tests/eval`` (how well) and
``tests/bench/matching.py`` (how fast).
"""

from soundhash_engine.comparison import Comparison, compare
from soundhash_engine.decode import AudioInfo, decode_bytes, decode_file, probe
from soundhash_engine.duplicates import Duplicate, DuplicateOptions, find_duplicates
from soundhash_engine.errors import (
    ClipTooLong,
    ClipTooShort,
    CorruptFingerprint,
    DecodeError,
    EngineError,
    ParamsMismatch,
    SilentAudio,
)
from soundhash_engine.explaining import explain, explain_comparison
from soundhash_engine.explanation import Explanation
from soundhash_engine.fingerprint import extract, join
from soundhash_engine.index import Index, IndexStatus, Snapshot
from soundhash_engine.live import Final, LiveMatcher, Provisional
from soundhash_engine.live_decode import PcmFormat, PcmResampler, StreamDecoder
from soundhash_engine.matcher import Match, MatchOptions, MatchResult, ScoreParts, match
from soundhash_engine.params import PARAMS, SAMPLE_RATE_HZ, Params
from soundhash_engine.stream import Extractor
from soundhash_engine.types import Fingerprint, Landmarks, Segment
from soundhash_engine.volume import Volume

__all__ = [
    "PARAMS",
    "SAMPLE_RATE_HZ",
    "AudioInfo",
    "ClipTooLong",
    "ClipTooShort",
    "Comparison",
    "CorruptFingerprint",
    "DecodeError",
    "Duplicate",
    "DuplicateOptions",
    "EngineError",
    "Explanation",
    "Extractor",
    "Final",
    "Fingerprint",
    "Index",
    "IndexStatus",
    "Landmarks",
    "LiveMatcher",
    "Match",
    "MatchOptions",
    "MatchResult",
    "Params",
    "ParamsMismatch",
    "PcmFormat",
    "PcmResampler",
    "Provisional",
    "ScoreParts",
    "Segment",
    "SilentAudio",
    "Snapshot",
    "StreamDecoder",
    "Volume",
    "compare",
    "decode_bytes",
    "decode_file",
    "explain",
    "explain_comparison",
    "extract",
    "find_duplicates",
    "join",
    "match",
    "probe",
]
