"""Retrieval: which places of the index share triples with a clip, under which pitch and tempo.

A place is a position of the clip's centre on a volume's time line. Votes are counted there, so
that a hypothesis that is a little off in tempo blurs the votes as little as it can.
"""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.params import PARAMS, Params
from soundhash_engine.postings import Missing, Postings, Question
from soundhash_engine.retrieval import (
    VOTE_BIN_FRAMES,
    lay_out,
    make_hashes,
    make_soft_hashes,
)
from soundhash_engine.triples import query_triples
from soundhash_engine.types import Landmarks
from soundhash_engine.volume import Volume


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Hypotheses:
    """Pairs of a pitch and a tempo under which a clip is looked up.

    pitch  float64, bins (1/36 octave) that the clip lies above the recording
    tempo  float64, seconds of the recording that pass in a second of the clip
    """

    pitch: NDArray[np.float64]
    tempo: NDArray[np.float64]

    def __len__(self) -> int:
        return self.pitch.size


def _hypotheses(pairs: list[tuple[float, float]]) -> Hypotheses:
    return Hypotheses(
        pitch=np.array([p for p, _ in pairs], np.float64),
        tempo=np.array([v for _, v in pairs], np.float64),
    )


IDENTITY = _hypotheses([(0.0, 1.0)])


@functools.cache
def narrow_hypotheses() -> Hypotheses:
    """The 32 changes within about 11 %: speed ±1…6 bins, pitch ±1…6, tempo 1.025^±1…4."""
    steps = [k for n in range(1, 7) for k in (n, -n)]
    pairs = [(float(k), 2 ** (k / 36)) for k in steps]
    pairs += [(float(k), 1.0) for k in steps]
    pairs += [(0.0, 1.025**k) for n in range(1, 5) for k in (n, -n)]
    return _hypotheses(pairs)


@functools.cache
def wide_hypotheses() -> Hypotheses:
    """Everything that people do to clips: 344 changes of speed, tempo, pitch, or two of them.

    Speed 1.0125^k for k = −24 … 25 (0.742 … 1.364), tempo 1.0125^±1…13 (0.851 … 1.175), pitch
    ±1 … 8 bins, and tempo 1.025^±1…7 with pitch ±1 … 9.
    """
    pairs = [(36 * np.log2(1.0125) * k, 1.0125**k) for k in range(-24, 26) if k]
    pairs += [(0.0, 1.0125**k) for k in range(-13, 14) if k]
    pairs += [(float(k), 1.0) for k in range(-8, 9) if k]
    pairs += [(float(p), 1.025**k) for k in range(-7, 8) if k for p in range(-9, 10) if p]
    return _hypotheses(pairs)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Places worth a closer look, most votes first; all arrays have the same length.

    volume    int32, which of the searched volumes
    position  float64, frame on its time line where the clip's centre lies
    pitch     float64, bins
    tempo     float64
    votes     int32
    """

    volume: NDArray[np.int32]
    position: NDArray[np.float64]
    pitch: NDArray[np.float64]
    tempo: NDArray[np.float64]
    votes: NDArray[np.int32]

    def __len__(self) -> int:
        return self.position.size

    def take(self, rows: NDArray[np.intp]) -> "Candidates":
        """The candidates at ``rows``."""
        return Candidates(
            self.volume[rows],
            self.position[rows],
            self.pitch[rows],
            self.tempo[rows],
            self.votes[rows],
        )


def hash_triples(
    landmarks: Landmarks,
    triples: NDArray[np.int32],
    hypotheses: Hypotheses,
    which: int,
    *,
    margin: float,
    params: Params = PARAMS,
) -> NDArray[np.uint64]:
    """The hashes that ``retrieve`` looks up under one of the hypotheses."""
    search = params.search
    most = len(triples) * (32 if margin > 0 else 1) + 32
    hashes = np.empty(most, np.uint64)
    shifts = np.empty(most, np.float32)
    pitch, tempo = float(hypotheses.pitch[which]), float(hypotheses.tempo[which])
    cell_bins, cell_frames = search.triple_bin_cell_bins, search.triple_time_cell_frames
    limits = (2.0 * search.triple_min_dt_frames, 2.0 * search.triple_max_dt_frames)
    marks = (landmarks.time, landmarks.bin, triples)
    if margin > 0.0:
        n = make_soft_hashes(
            *marks, pitch, tempo, 0.0, cell_bins, cell_frames, *limits, margin, hashes, shifts
        )
    else:
        x, first, last, from_centre = np.empty((4, len(triples)), np.float64)
        differences = np.empty(len(triples), np.int64)
        lay_out(*marks, 0.0, cell_bins, x, differences, first, last, from_centre)
        n = make_hashes(
            x,
            differences,
            first,
            last,
            from_centre,
            pitch / cell_bins,
            tempo,
            cell_frames,
            *limits,
            hashes,
            shifts,
        )
    return hashes[:n]


def retrieve(
    postings: Postings,
    volumes: tuple[Volume, ...],
    landmarks: Landmarks,
    hypotheses: Hypotheses,
    *,
    centre_half_frames: float,
    n_targets: int,
    limit: int | None,
    about: int | None,
    margin: float,
    least_votes: int,
    most: int,
    params: Params = PARAMS,
) -> tuple[Candidates, tuple[Missing, ...]]:
    """The ``most`` places with the most votes in all volumes, and what of them did not answer.

    ``landmarks``: of the clip, already cut to the round's rank. ``margin``: share of a cell within
    which the neighbour is probed too.
    """
    stretch = 1.0 if len(hypotheses) == 1 else 1.3
    # A volume that was made before the search's parameters changed is asked in its own way.
    triples = {
        search: query_triples(
            landmarks,
            n_targets=n_targets,
            stretch=stretch,
            limit=limit,
            about=about,
            params=dataclasses.replace(params, search=search),
        )
        for search in {volume.search for volume in volumes}
    }
    answer = postings.ask(
        volumes,
        Question(
            time=landmarks.time,
            bin=landmarks.bin,
            triples=triples,
            pitch=hypotheses.pitch,
            tempo=hypotheses.tempo,
            centre_half_frames=centre_half_frames,
            margin=margin,
            least_votes=least_votes,
        ),
    )
    parts: list[Candidates] = []
    for i, found in enumerate(answer.found):
        best = np.argsort(-found.votes, kind="stable")[:most]
        parts.append(
            Candidates(
                volume=np.full(len(best), i, np.int32),
                position=(found.bin[best].astype(np.float64) + 1.0) * VOTE_BIN_FRAMES,
                pitch=hypotheses.pitch[found.hypothesis[best]],
                tempo=hypotheses.tempo[found.hypothesis[best]],
                votes=found.votes[best],
            )
        )
    candidates = parts[0] if len(parts) == 1 else join_candidates(parts, most)
    return candidates, answer.missing


def join_candidates(parts: list[Candidates], most: int) -> Candidates:
    """Candidates of several volumes, the ``most`` with the most votes."""
    together = Candidates(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in dataclasses.fields(Candidates)
        )
    )
    return together.take(np.argsort(-together.votes, kind="stable")[:most])
