"""Retrieval: which places of the index share triples with a clip, under which pitch and tempo.

A place is a position of the clip's centre on a volume's time line. Votes are counted there, so
that a hypothesis that is a little off in tempo blurs the votes as little as it can.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.hypotheses import Hypotheses
from soundhash_engine.params import PARAMS, Params, SearchParams
from soundhash_engine.postings import Missing, Postings, Question
from soundhash_engine.probes import Probes, probe
from soundhash_engine.retrieval import VOTE_BIN_FRAMES
from soundhash_engine.triples import query_triples
from soundhash_engine.types import Landmarks
from soundhash_engine.volume import Volume

TRIPLE_RANK_LIMIT = 40
"""Landmarks of a clip below this rank make triples: of an anchor beyond it, one triple in 10,000 is
stored."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Places worth a closer look, the likeliest first; all arrays have the same length.

    volume    int32, which of the searched volumes
    position  float64, frame on its time line where the clip's centre lies
    pitch     float64, bins
    tempo     float64
    votes     float64; half a vote less for a change of two things at once, which is rarer
    """

    volume: NDArray[np.int32]
    position: NDArray[np.float64]
    pitch: NDArray[np.float64]
    tempo: NDArray[np.float64]
    votes: NDArray[np.float64]

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


def _strong(landmarks: Landmarks) -> Landmarks:
    """Those of which a recording may have made triples."""
    keep = landmarks.rank < TRIPLE_RANK_LIMIT
    return Landmarks(
        time=landmarks.time[keep],
        bin=landmarks.bin[keep],
        strength=landmarks.strength[keep],
        rank=landmarks.rank[keep],
        n_frames=landmarks.n_frames,
    )


def retrieve(
    postings: Postings,
    volumes: tuple[Volume, ...],
    landmarks: Landmarks,
    changes: Hypotheses,
    *,
    centre_half_frames: float,
    n_targets: int,
    limit: int,
    margin: float,
    least_votes: int,
    most: int,
    aside: int = 0,
    params: Params = PARAMS,
) -> tuple[Candidates, tuple[Missing, ...]]:
    """The ``most`` places with the most votes in all volumes, and what of them did not answer.

    ``landmarks``: of the clip. ``margin``: share of a cell within which the neighbour is probed
    too. ``aside``: the last so many volumes give as many places of their own, after the others'.
    """
    landmarks = _strong(landmarks)
    stretch = 1.0 if len(changes) == 1 else 1.3

    def asked(search: SearchParams) -> Probes:
        # A volume that was made before the search's parameters changed is asked in its own way.
        own = dataclasses.replace(params, search=search)
        triples = query_triples(
            landmarks, n_targets=n_targets, stretch=stretch, limit=limit, params=own
        )
        return probe(
            landmarks,
            triples,
            changes,
            centre_half_frames=centre_half_frames,
            margin=margin,
            params=own,
        )

    question = Question(
        changes=changes,
        probes={search: asked(search) for search in {volume.search for volume in volumes}},
        margin=margin,
        least_votes=least_votes,
    )
    answer = postings.ask(volumes, question)
    parts: list[Candidates] = []
    for i, found in enumerate(answer.found):
        half = np.where(changes.single[found.hypothesis], 0.0, 0.5)
        votes = found.votes.astype(np.float64) - half
        best = np.argsort(-votes, kind="stable")[:most]
        parts.append(
            Candidates(
                volume=np.full(len(best), i, np.int32),
                position=(found.bin[best].astype(np.float64) + 1.0) * VOTE_BIN_FRAMES,
                pitch=changes.pitch[found.hypothesis[best]],
                tempo=changes.tempo[found.hypothesis[best]],
                votes=votes[best],
            )
        )
    if len(parts) == 1:
        return parts[0], answer.missing
    first = len(parts) - aside
    groups = [join_candidates(some, most) for some in (parts[:first], parts[first:]) if some]
    return join_candidates(groups) if len(groups) > 1 else groups[0], answer.missing


def join_candidates(parts: list[Candidates], most: int | None = None) -> Candidates:
    """Candidates of several volumes, the ``most`` with the most votes; None: all as they come."""
    together = Candidates(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in dataclasses.fields(Candidates)
        )
    )
    if most is None:
        return together
    return together.take(np.argsort(-together.votes, kind="stable")[:most])
