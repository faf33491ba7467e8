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
    single           bool, whether people make the change by one control: speed, tempo or pitch
    above            int32 (tempos, 65): for each tempo the first hypothesis whose pitch is above
                     −32, −31, … 31 bins, and the end of its hypotheses
    """

    pitch: NDArray[np.float64]
    tempo: NDArray[np.float64]
    tempos: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    single: NDArray[np.bool_]
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
        single=(tempo == 1.0) | (pitch == 0.0) | (np.abs(pitch - 36.0 * np.log2(tempo)) < 1e-6),
        above=above,
    )


IDENTITY = hypotheses([(0.0, 1.0)])


@functools.cache
def single_hypotheses() -> Hypotheses:
    """The 91 changes that people make by one control.

    Speed 1.0125^k for k = −24 … 25 (0.742 … 1.364), tempo 1.0125^±1…13 (0.851 … 1.175), pitch
    ±1 … 8 bins.
    """
    return hypotheses(_single())


def _single() -> list[tuple[float, float]]:
    pairs = [(36 * np.log2(1.0125) * k, 1.0125**k) for k in range(-24, 26) if k]
    pairs += [(0.0, 1.0125**k) for k in range(-13, 14) if k]
    return pairs + [(float(k), 1.0) for k in range(-8, 9) if k]


@functools.cache
def wide_hypotheses() -> Hypotheses:
    """The 344 changes of one thing or two: the single ones, and tempo with pitch.

    Tempo 1.0125^±2,4…14 with pitch ±1 … 9.
    """
    both = [(float(p), 1.0125 ** (2 * k)) for k in range(-7, 8) if k for p in range(-9, 10) if p]
    return hypotheses(_single() + both)
