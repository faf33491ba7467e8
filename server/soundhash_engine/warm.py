"""Compile and load every kernel before the first request has to wait for it.

`python -m soundhash_engine.warm` at install time fills numba's cache on disk (half a minute);
`warm()` at a process's start loads it from there (a second or two).
"""

import numpy as np

from soundhash_engine.comparison import compare
from soundhash_engine.duplicates import find_duplicates
from soundhash_engine.explaining import explain
from soundhash_engine.fingerprint import extract, join
from soundhash_engine.index import Index
from soundhash_engine.live import LiveMatcher
from soundhash_engine.matcher import match
from soundhash_engine.params import SAMPLE_RATE_HZ
from soundhash_engine.postings import cold_rows
from soundhash_engine.sealing import Merge
from soundhash_engine.types import Pcm
from soundhash_engine.volume import Volume


def _sound(seed: int, duration_s: int) -> Pcm:
    """Random notes with a little noise."""
    random = np.random.default_rng(seed)
    n = duration_s * SAMPLE_RATE_HZ
    notes = np.repeat(200 * 2 ** (random.integers(0, 36, n // 1000 + 1) / 12), 1000)[:n]
    tone = np.sin(2 * np.pi * np.cumsum(notes) / SAMPLE_RATE_HZ)
    return (0.3 * tone + 0.01 * random.standard_normal(n)).astype(np.float32)


def _mapped(merge: Merge) -> Volume:
    """A volume as if mapped from a file: read-only, which numba takes for another type."""
    sealed = merge.in_memory()
    for array in sealed.arrays().values():
        array.flags.writeable = False
    return Volume.from_arrays(sealed.meta(), sealed.arrays())


def warm() -> None:
    """Go every way through the engine once: extract, index, match, explain, stream, compare."""
    recordings = [_sound(1, 20), _sound(2, 20)]
    fingerprints = [join(extract(pcm)) for pcm in recordings]
    index = Index()
    index.apply([(i, 1, fingerprint) for i, fingerprint in enumerate(fingerprints)])
    index.seal(_mapped)
    # The second piece of the tail is merged with the first.
    index.apply([(2, 1, fingerprints[0])])
    index.apply([(3, 1, fingerprints[1])])
    snapshot = index.snapshot()

    clip = recordings[0][40_000:72_000].copy()
    # A drop-out, so that its filling runs too.
    clip[16_000:17_000] = 0
    for found in match(snapshot, clip).matches:
        explain(snapshot, clip, found)
    # What is not there goes through all the rounds.
    match(snapshot, _sound(3, 4))
    live = LiveMatcher()
    live.push(recordings[1])
    live.step(snapshot)
    live.finish(snapshot)
    compare(fingerprints[0], fingerprints[1])
    # What is stored elsewhere; the kernel that reads it there is the tail's.
    for volume in snapshot.volumes:
        cold_rows(volume, 0, 8)
    index.seal(_mapped, full=True)


def warm_comparison() -> None:
    """Go through the comparison of a catalogue, which only some workers ever do."""
    index = Index()
    recordings = [_sound(1, 30), _sound(2, 12), _sound(1, 30)]
    index.apply([(i, 1, join(extract(pcm))) for i, pcm in enumerate(recordings)])
    index.seal(_mapped)
    for told in find_duplicates(index.snapshot()):
        del told


if __name__ == "__main__":
    warm()
    warm_comparison()
