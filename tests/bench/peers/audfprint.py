"""audfprint (github.com/dpwe/audfprint): pairs of spectral peaks in a hash table.

It is on no package index: AUDFPRINT names a folder with its modules. Its defaults, except that
times do not wrap after six minutes; clips are analysed at four shifts, as its command line does.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.peers.base import Answer, UnavailableError
from tests.eval.audio import Audio, read

MAX_FRAMES = 1 << 17
"""Longest recording, in its frames of 23 ms: 50 minutes."""


def _read(path: str, sr: int, channels: int) -> tuple[Audio, int]:
    return read(Path(path), sr), sr


class Audfprint:
    """Score: equal pairs at the best offset."""

    name = "audfprint"
    version = "2019-09"
    note = "its defaults, four shifts a clip"

    def __init__(self) -> None:
        folder = os.environ.get("AUDFPRINT")
        if not folder or not (Path(folder) / "audfprint_match.py").exists():
            raise UnavailableError(
                "on no package index: set AUDFPRINT to a copy of github.com/dpwe/audfprint"
            )
        sys.path.insert(0, folder)
        analyze, match, table, audio_read = (
            importlib.import_module(name)
            for name in ("audfprint_analyze", "audfprint_match", "hash_table", "audio_read")
        )
        # Its own reader calls the ffmpeg program.
        setattr(audio_read, "audio_read", _read)  # noqa: B010
        self._analyzer: Any = analyze.Analyzer()
        self._matcher: Any = match.Matcher()
        self._table: Any = table.HashTable(maxtime=MAX_FRAMES)

    def index(self, name: str, path: Path) -> None:
        """See `Peer`."""
        self._analyzer.shifts = 1
        self._table.store(name, self._analyzer.wavfile2hashes(str(path)))

    def ask(self, path: Path) -> Answer | None:
        """See `Peer`."""
        self._analyzer.shifts = 4
        hashes = self._analyzer.wavfile2hashes(str(path))
        # Below its least count there is no answer: 5 by default, and too many for a curve.
        self._matcher.threshcount = 0
        if len(hashes) == 0 or self._table.get_hits(hashes).size == 0:
            return None
        found = np.atleast_2d(self._matcher.match_hashes(self._table, hashes))
        if not found.size:
            return None
        recording, count, frames = (int(value) for value in found[0, :3])
        seconds = frames * self._analyzer.n_hop / self._analyzer.target_sr
        return Answer(self._table.names[recording], seconds, float(count))
