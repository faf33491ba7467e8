"""Clean clips of one and two seconds: is the right place among those that are answered?

    python -m tests.eval.short --set DIR [--clips 300] [--seed 5]

Clips are cut at random from the set's recordings, near-silence left out (below −60 dB of full
scale). *place*: the answer is the right recording within 0.5 s; *place or loop*: that, or one of
the equal places that the answer names (``also_at_s``); *recording*: the right one anywhere.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from soundhash_engine import EngineError, MatchOptions, match
from soundhash_engine.index import Snapshot
from soundhash_engine.params import SAMPLE_RATE_HZ
from soundhash_engine.types import Pcm
from soundhash_engine.warm import warm
from tests.eval.data import OFFSET_TOLERANCE_S, index_folder, read_pcm

LENGTHS_S = (1.0, 2.0)
SILENCE = 1e-3


def judge(snapshot: Snapshot, clip: Pcm, recording_id: int, at_s: float) -> tuple[bool, bool, bool]:
    """Whether the place, the place or a loop of it, and the recording are right."""
    try:
        matches = match(snapshot, clip, MatchOptions(top=1)).matches
    except EngineError:
        return False, False, False
    if not matches or matches[0].recording_id != recording_id:
        return False, False, False
    starts = (matches[0].video_start_s, *matches[0].also_at_s)
    near = [abs(start_s - at_s) <= OFFSET_TOLERANCE_S for start_s in starts]
    return near[0], any(near), True


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True, dest="folder")
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args(arguments)
    warm()
    index, names = index_folder(options.folder / "refs")
    snapshot = index.snapshot()
    ids = sorted(names)
    for length_s in LENGTHS_S:
        rng = np.random.default_rng(options.seed)
        verdicts: list[tuple[bool, bool, bool]] = []
        while len(verdicts) < options.clips:
            recording_id = ids[rng.integers(len(ids))]
            pcm = read_pcm(options.folder / "refs" / f"{names[recording_id]}.wav")
            at = round(rng.uniform(0.0, pcm.size / SAMPLE_RATE_HZ - length_s) * SAMPLE_RATE_HZ)
            clip = pcm[at : at + round(length_s * SAMPLE_RATE_HZ)]
            if np.sqrt(np.mean(clip**2)) >= SILENCE:
                verdicts.append(judge(snapshot, clip, recording_id, at / SAMPLE_RATE_HZ))
        place, loop, recording = (100.0 * np.mean(verdicts, axis=0)).tolist()
        print(
            f"{length_s:g} s, {len(verdicts)} clips: place {place:.1f} %, "
            f"place or loop {loop:.1f} %, recording {recording:.1f} %"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
