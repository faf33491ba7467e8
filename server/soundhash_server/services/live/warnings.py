"""What is wrong with the audio of a stream, half second by half second."""

from __future__ import annotations

from collections import deque

import numpy as np

from soundhash_engine.types import Pcm
from soundhash_server.services.live.audio import level_db
from soundhash_server.services.live.events import StreamWarning

SILENT_DB = -60.0
SILENT_STEPS = 6
"""Silence is told when it has lasted 3 s."""
FULL_SCALE = 0.98
CLIPPED_SHARE = 0.01
"""So many of three seconds' samples at full scale are too many: of music whose highest peak is just
at full scale a tenth of this are in nine of ten places, of music overdriven by 6 dB three times as
many in the median."""
LATE_S = 1.0


class Warnings:
    """Looks at what comes; bounded."""

    def __init__(self) -> None:
        self._silent = 0
        self._clipped: deque[float] = deque(maxlen=SILENT_STEPS)

    def of(self, pcm: Pcm, late_s: float) -> tuple[StreamWarning, ...]:
        """The warnings after half a second more, which was searched ``late_s`` after it came."""
        self._silent = self._silent + 1 if level_db(pcm) < SILENT_DB else 0
        self._clipped.append(float(np.mean(np.abs(pcm) >= FULL_SCALE)) if pcm.size else 0.0)
        found = {
            StreamWarning.SILENCE: self._silent >= SILENT_STEPS,
            StreamWarning.CLIPPING: sum(self._clipped) / SILENT_STEPS > CLIPPED_SHARE,
            StreamWarning.LATE: late_s > LATE_S,
        }
        return tuple(warning for warning, is_so in found.items() if is_so)
