"""Recordings and damaged clips to try things with, made here.

    python -m clients.python.examples.recordings FOLDER

writes six tunes of a minute each into FOLDER, and beside it FOLDER-clip.mp3: ten seconds of
one of them, noisy and at 24 kbit/s.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
from tests.media import encode
from tests.sounds import hiss, tune

from soundhash_engine import SAMPLE_RATE_HZ, decode_file

CLIP_S = 10
NOISE_DB = -5.0


def make_recordings(folder: Path) -> list[Path]:
    """Six tunes of a minute each, unless they are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for seed in range(1, 7):
        path = folder / f"Tune No. {seed}.mp3"
        if not path.exists():
            path.write_bytes(encode(tune(60.0, seed), "mp3", rate_hz=44100, bit_rate=128_000))
        made.append(path)
    return made


def cut_clip(path: Path) -> tuple[bytes, float]:
    """Ten noisy seconds of a recording as a 24 kbit/s MP3, and where they begin in it (s)."""
    pcm = np.concatenate(list(decode_file(path)))
    length = CLIP_S * SAMPLE_RATE_HZ
    start = random.Random(path.name).randrange(max(1, len(pcm) - length))
    clip = pcm[start : start + length]
    noise = hiss(len(clip)).astype(np.float32)
    level = np.sqrt(np.mean(clip**2)) / np.sqrt(np.mean(noise**2)) * 10 ** (NOISE_DB / 20)
    mixed = clip + noise * level
    mixed *= 0.7 / max(1e-6, float(np.abs(mixed).max()))
    data = encode(mixed.astype(np.float32), "mp3", rate_hz=16000, bit_rate=24_000)
    return data, start / SAMPLE_RATE_HZ


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m clients.python.examples.recordings FOLDER")
    folder = Path(sys.argv[1])
    paths = make_recordings(folder)
    clip, start_s = cut_clip(paths[2])
    target = folder.with_name(f"{folder.name}-clip.mp3")
    target.write_bytes(clip)
    print(f"{len(paths)} recordings in {folder}")
    print(f"{target}: {CLIP_S} s of {paths[2].stem} from {start_s:.1f} s")


if __name__ == "__main__":
    main()
