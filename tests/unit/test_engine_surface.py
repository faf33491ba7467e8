"""The engine's public names are what they say, whatever was imported before."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import soundhash_engine


def test_no_module_hides_a_public_function() -> None:
    modules = [name for _, name, _ in pkgutil.iter_modules(soundhash_engine.__path__)]
    for name in modules:
        importlib.import_module(f"soundhash_engine.{name}")
    for name in soundhash_engine.__all__:
        assert not inspect.ismodule(getattr(soundhash_engine, name)), name


EXPORTS = """
AudioInfo ClipTooLong ClipTooShort Comparison CorruptFingerprint DecodeError Duplicate
DuplicateOptions EngineError Explanation Extractor Final Fingerprint Index IndexStatus Landmarks
LiveMatcher Match MatchOptions MatchResult PARAMS Params ParamsMismatch PcmFormat PcmResampler
Provisional SAMPLE_RATE_HZ ScoreParts Segment SilentAudio Snapshot StreamDecoder Volume compare
decode_bytes decode_file explain explain_comparison extract find_duplicates join match probe
"""


def test_the_public_names_are_frozen() -> None:
    assert sorted(soundhash_engine.__all__) == sorted(EXPORTS.split())
    assert all(getattr(soundhash_engine, name).__doc__ for name in soundhash_engine.__all__)
