"""After `warm` no request waits for a compiler."""

import dataclasses
import importlib
import pkgutil
from pathlib import Path

import numpy as np
from numba.core.dispatcher import Dispatcher
from tests.asking import Kept
from tests.sounds import tune

import soundhash_engine
from soundhash_engine.comparison import compare
from soundhash_engine.explaining import explain
from soundhash_engine.fingerprint import extract, join
from soundhash_engine.index import Index
from soundhash_engine.live import LiveMatcher
from soundhash_engine.matcher import match
from soundhash_engine.postings import RemotePostings
from soundhash_engine.sealing import Merge
from soundhash_engine.volume import Volume
from soundhash_engine.warm import warm


def signatures() -> dict[str, int]:
    """How many versions of each kernel there are."""
    found = {}
    for module in pkgutil.iter_modules(soundhash_engine.__path__, "soundhash_engine."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Dispatcher):
                found[f"{module.name}.{name}"] = len(value.signatures)
    return found


def test_nothing_is_compiled_after_warm(tmp_path: Path) -> None:
    warm()
    before = signatures()
    # Kernels that only other kernels call have none of their own.
    assert sum(n > 0 for n in before.values()) > 20
    # What a server does: recordings come in, are sealed, saved, mapped; clips are asked for.
    recordings = [tune(100, seed) for seed in range(1, 6)]
    fingerprints = [join(extract(pcm)) for pcm in recordings]
    index = Index()
    index.apply([(i, 1, f) for i, f in enumerate(fingerprints[:3])])

    def mapped(merge: Merge) -> Volume:
        volume = merge.in_memory()
        arrays = {}
        for name, array in volume.arrays().items():
            np.save(tmp_path / f"{name}.npy", array)
            arrays[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        return Volume.from_arrays(volume.meta(), arrays)

    assert index.seal(mapped, full=True) is not None
    index.apply([(i, 1, f) for i, f in enumerate(fingerprints[3:], 3)])
    index.remove([1])
    for pcm in (*recordings, tune(10, 77), tune(30, 78)):
        clip = pcm[8000 : 8000 + 15 * 8000].copy()
        clip[30_000:31_500] = 0
        clip.flags.writeable = False
        for found in match(index.snapshot(), clip).matches:
            explain(index.snapshot(), clip, found)
        elsewhere = RemotePostings(Kept(index.snapshot().volumes))
        match(dataclasses.replace(index.snapshot(), postings=elsewhere), clip)
        match(index.snapshot(), np.repeat(clip, 2)[::2][:24_000])
    live = LiveMatcher()
    for at in range(0, 160_000, 4000):
        live.push(recordings[3][at : at + 4000])
        live.step(index.snapshot())
    live.finish(index.snapshot())
    compare(fingerprints[0], fingerprints[4])
    index.seal(mapped, full=True)
    index.seal(mapped)
    after = signatures()
    assert after == before
