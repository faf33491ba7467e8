"""What a round of the search looks up: ranges of hashes, each for some of its changes."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.hypotheses import Hypotheses
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.retrieval import make_probes
from soundhash_engine.types import Landmarks

_MOST_PROBES = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """What to look up for a round: for each probe a range of hashes; see `retrieval`.

    hashes       int64, hash of the first anchor cell; the next cell's is 256 higher
    cells        uint8, how many anchor cells
    first_cell   int16, the first of them
    triple       int32, which triple of the clip
    first_tempo, last_tempo  int16, the tempos for which it asks
    anchor       float64, a triple each: the anchor's frequency, cells
    from_centre  float64, a triple each: the anchor's frame from the clip's centre
    """

    hashes: NDArray[np.int64]
    cells: NDArray[np.uint8]
    first_cell: NDArray[np.int16]
    triple: NDArray[np.int32]
    first_tempo: NDArray[np.int16]
    last_tempo: NDArray[np.int16]
    anchor: NDArray[np.float64]
    from_centre: NDArray[np.float64]

    def __len__(self) -> int:
        return self.hashes.size


def probe(
    landmarks: Landmarks,
    triples: NDArray[np.int32],
    changes: Hypotheses,
    *,
    centre_half_frames: float,
    margin: float,
    params: Params = PARAMS,
) -> Probes:
    """What to look up for a clip's triples (n x 3 indices into its landmarks).

    ``margin``: share of a cell within which the neighbour is asked for too.
    """
    search = params.search
    n = len(triples)
    each = len(changes.tempos) if len(changes.tempos) > 1 else 1
    if margin > 0.0:
        each *= 16 if each == 1 else 4
    most = min(n * each, _MOST_PROBES) + 16
    hashes = np.empty(most, np.int64)
    cells = np.empty(most, np.uint8)
    first_cell = np.empty(most, np.int16)
    triple = np.empty(most, np.int32)
    first_tempo = np.empty(most, np.int16)
    last_tempo = np.empty(most, np.int16)
    anchor = np.empty(n, np.float64)
    made = make_probes(
        landmarks.time,
        landmarks.bin,
        triples,
        changes.tempos,
        changes.lowest,
        changes.highest,
        search.triple_bin_cell_bins,
        search.triple_time_cell_frames,
        2.0 * search.triple_min_dt_frames,
        2.0 * search.triple_max_dt_frames,
        margin,
        anchor,
        hashes,
        cells,
        first_cell,
        triple,
        first_tempo,
        last_tempo,
    )
    return Probes(
        hashes=hashes[:made],
        cells=cells[:made],
        first_cell=first_cell[:made],
        triple=triple[:made],
        first_tempo=first_tempo[:made],
        last_tempo=last_tempo[:made],
        anchor=anchor,
        from_centre=0.5 * (landmarks.time[triples[:, 0]].astype(np.float64) - centre_half_frames),
    )
