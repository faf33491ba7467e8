"""Chromaprint (AcoustID): its own fingerprints, compared exhaustively.

The library makes fingerprints, 32 bits eight times a second; looking them up is AcoustID's server's
work. Here every clip is slid over everything that is indexed and the fewest differing bits win,
which no look-up can beat.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.bench.peers.base import Answer, UnavailableError

HOP_S = 4096 / 3 / 11025
"""Of a fingerprint: 4,096 samples at 11,025 Hz, overlapping by two thirds."""


class Chromaprint:
    """Score: how far beyond chance the bits agree, in standard deviations of fair coins.

    The share of equal bits alone would favour clips of one or two words.
    """

    name = "Chromaprint"
    note = "exhaustive comparison of its fingerprints"

    def __init__(self) -> None:
        tool = os.environ.get("FPCALC") or shutil.which("fpcalc")
        if tool is None:
            raise UnavailableError(
                "no fpcalc: install libchromaprint-tools, or set FPCALC to the program"
            )
        self._tool = tool
        said = subprocess.run([tool, "-version"], capture_output=True, text=True, check=True)
        self.version = said.stdout.split()[2]
        self._names: list[str] = []
        self._prints: list[NDArray[np.uint32]] = []

    def _fingerprint(self, path: Path) -> NDArray[np.uint32]:
        ran = subprocess.run(
            [self._tool, "-raw", "-json", "-length", "0", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        # The exit status is no guide: it may be 3 at the end of a file that was read whole.
        made = json.loads(ran.stdout)["fingerprint"] if ran.stdout else []
        return np.array(made, np.uint32)

    def index(self, name: str, path: Path) -> None:
        """See `Peer`."""
        self._names.append(name)
        self._prints.append(self._fingerprint(path))

    def ask(self, path: Path) -> Answer | None:
        """See `Peer`."""
        clip = self._fingerprint(path)
        best: Answer | None = None
        for name, made in zip(self._names, self._prints, strict=True):
            if not 0 < clip.size <= made.size:
                continue
            different = np.zeros(made.size - clip.size + 1, np.uint32)
            for i, word in enumerate(clip):
                different += np.bitwise_count(made[i : i + different.size] ^ word)
            at = int(np.argmin(different))
            bits = 32 * clip.size
            score = (bits - 2.0 * float(different[at])) / bits**0.5
            if best is None or score > best.score:
                best = Answer(name, at * HOP_S, score)
        return best
