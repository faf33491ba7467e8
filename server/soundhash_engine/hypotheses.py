"""The changes under which a clip is looked up: of pitch, tempo, speed, or two of them."""

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Hypotheses:
    """Pairs of a pitch and a tempo under which a clip is looked up, in order of tempo and pitch.

    pitch  float64, bins (1/36 octave) that the clip lies above the recording
    tempo  float64, seconds of the recording that pass in a second of the clip
    tempos           float64, each tempo once
    lowest, highest  float64, the pitches that go with each of ``tempos``
    above            int32 (tempos, 65): for each tempo the first hypothesis whose pitch is above
                     −32, −31, … 31 bins, and the end of its hypotheses
    """

    pitch: NDArray[np.float64]
    tempo: NDArray[np.float64]
    tempos: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    above: NDArray[np.int32]

    def __len__(self) -> int:
        return self.pitch.size


_MOST_PITCH = 32


def hypotheses(pairs: Iterable[tuple[float, float]]) -> Hypotheses:
    """Hypotheses of (pitch, tempo), those that come twice once."""
    ordered = sorted({(tempo, pitch) for pitch, tempo in pairs})
    tempo = np.array([v for v, _ in ordered], np.float64)
    pitch = np.array([p for _, p in ordered], np.float64)
    tempos, first = np.unique(tempo, return_index=True)
    end = np.append(first[1:], len(tempo))
    steps = np.arange(-_MOST_PITCH, _MOST_PITCH)
    above = np.array(
        [
            [*(b + np.searchsorted(pitch[b:e], steps, side="right")), e]
            for b, e in zip(first, end, strict=True)
        ],
        np.int32,
    )
    return Hypotheses(
        pitch=pitch,
        tempo=tempo,
        tempos=tempos,
        lowest=pitch[first],
        highest=pitch[end - 1],
        above=above,
    )


IDENTITY = hypotheses([(0.0, 1.0)])


@functools.cache
def narrow_hypotheses() -> Hypotheses:
    """The 33 changes within about 11 %: none, speed ±1…6 bins, pitch ±1…6, tempo 1.025^±1…4."""
    steps = [k for n in range(1, 7) for k in (n, -n)]
    pairs = [(float(k), 2 ** (k / 36)) for k in steps]
    pairs += [(float(k), 1.0) for k in steps]
    pairs += [(0.0, 1.025**k) for n in range(1, 5) for k in (n, -n)]
    return hypotheses(pairs)


@functools.cache
def wide_hypotheses() -> Hypotheses:
    """Everything that people do to clips: 344 changes of speed, tempo, pitch, or two of them.

    Speed 1.0125^k for k = −24 … 25 (0.742 … 1.364), tempo 1.0125^±1…13 (0.851 … 1.175), pitch
    ±1 … 8 bins, and tempo 1.0125^±2,4…14 with pitch ±1 … 9.
    """
    pairs = [(36 * np.log2(1.0125) * k, 1.0125**k) for k in range(-24, 26) if k]
    pairs += [(0.0, 1.0125**k) for k in range(-13, 14) if k]
    pairs += [(float(k), 1.0) for k in range(-8, 9) if k]
    pairs += [(float(p), 1.0125 ** (2 * k)) for k in range(-7, 8) if k for p in range(-9, 10) if p]
    return hypotheses(pairs)
