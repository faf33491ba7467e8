"""Golden fingerprints: what version 1 of the parameters gives for made-up tunes.

`python -m tests.unit.golden.fingerprints` writes fingerprints.json anew. Do that only together
with a new `Params.version`: a difference means that everything stored has to be made again.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from tests.sounds import tune

from soundhash_engine.fingerprint import extract
from soundhash_engine.landmarks import find_landmarks
from soundhash_engine.params import PARAMS
from soundhash_engine.types import Landmarks

PATH = Path(__file__).with_suffix(".json")
TUNES = ((1, 100.0), (2, 30.0), (3, 2.5))
"""Seed and length in seconds."""


def compute() -> dict[str, object]:
    """Everything that is pinned, of all tunes."""
    out: dict[str, object] = {"params_digest": PARAMS.digest, "version": PARAMS.version}
    for seed, duration_s in TUNES:
        pcm = tune(duration_s, seed)
        segments = extract(pcm)
        out[f"tune {seed}"] = {
            "pcm_md5": hashlib.md5(pcm.tobytes()).hexdigest(),
            "segments": [
                {
                    "md5": segment.md5,
                    "landmarks": segment.landmark_count,
                    "vector_head": [
                        round(float(x), 4) for x in np.frombuffer(segment.vector, "<f4")[:4]
                    ],
                }
                for segment in segments
            ],
            "reference": _digest(find_landmarks(pcm)),
            "query": _digest(find_landmarks(pcm[:80_000], query=True)),
        }
    return out


def _digest(landmarks: Landmarks) -> dict[str, object]:
    digest = hashlib.md5()
    for field in (landmarks.time, landmarks.bin, landmarks.strength, landmarks.rank):
        digest.update(field.astype("<i4").tobytes())
    return {"landmarks": len(landmarks), "md5": digest.hexdigest()}


if __name__ == "__main__":
    PATH.write_text(json.dumps(compute(), indent=2) + "\n")
