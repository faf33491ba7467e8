"""Fit the score, the glance and the confidence on evaluation sets.

    python -m tests.eval.fit_score --set DIR... [--limit N] [--hidden 2] [--processes 2]
                                   [--json]

Every clip is searched through all rounds: with everything indexed and, every ``--hidden``-th of
them, with its own recording hidden (leave-one-out: music of the same makers is the null that
counts). An answer that sounds the same as the clip's own place is no mistake and left out, and so
are twins (``twins.txt``): recordings of the same music that the sound does not tell, other takes or
mixes.

Positives are the right places, negatives the best places of hidden and of unindexed clips. A
logistic regression gives the start; then the weights climb what is wanted, the recall at the
scores that 1, 0.5 and 0.25 % of hidden and 0.5, 0.2 and 0.1 % of unindexed clips reach: the bulk
of easy places would pull a regression elsewhere. Fourfold cross-validation over recordings shows
what the weights are worth on others.

The score's scale is the regression's; its bias puts ``MATCH_SCORE`` where one in a thousand of the
clips that are not indexed is answered. The confidence is a logistic of the best answer's score
where half of the clips are indexed.
"""

import argparse
import dataclasses
import json
import math
import multiprocessing
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from soundhash_engine import score as current
from soundhash_engine import window
from soundhash_engine.index import Snapshot
from soundhash_engine.landmarks import query_features
from soundhash_engine.params import PARAMS
from soundhash_engine.score import contributions
from soundhash_engine.warm import warm
from soundhash_engine.window import Hit, WindowSearch
from tests.eval.data import (
    OFFSET_TOLERANCE_S,
    Query,
    Repeats,
    index_folder,
    read_pcm,
    read_queries,
    read_twins,
)

Floats = NDArray[np.float64]
FOLDS = 4
NULLS_A_SEARCH = 4
RIGHT_A_SEARCH = 2
HIDDEN_SHARES = (0.01, 0.005, 0.0025)
UNINDEXED_SHARES = (0.005, 0.002, 0.001)
GLANCE = ("landmark energy", "contrast met", "coinciding landmarks", "unchanged")
GLANCE_LOSS = 0.001
"""Share of the right places that the match threshold lets pass and a glance may turn away."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One place of one search.

    search    number of the search
    group     recording that the clip comes from: what cross-validation keeps together
    kind      right, hidden (wrong, the clip's own recording hidden) or unindexed
    features  values of the score's terms but the bias
    """

    search: int
    group: str
    kind: str
    features: tuple[float, ...]


def features_of(hit: Hit) -> tuple[float, ...]:
    """What the score is made of."""
    return tuple(term.value for term in contributions(hit.evidence, identity=hit.identity)[:-1])


def start_s(hit: Hit, n_frames: int) -> float:
    """Where the clip's first sample lies in the recording."""
    lead = 0.5 * PARAMS.n_fft_samples / PARAMS.hop_samples
    frames = hit.position + lead - hit.tempo * (0.5 * (n_frames - 1) + lead)
    return frames / PARAMS.frames_per_s


class Collector:
    """Searches a set's clips and keeps the places that count."""

    def __init__(self, folder: Path, hidden: int, twins: dict[str, set[str]]) -> None:
        index, self._names = index_folder(folder / "refs")
        self._everything = index.snapshot()
        self._ids = {name: number for number, name in self._names.items()}
        self._repeats = Repeats(folder / "refs")
        self._hidden = hidden
        self._twins = twins

    def __call__(self, numbered: tuple[int, Query]) -> list[tuple[str, str, tuple[float, ...]]]:
        """Kind, group and features of a clip's places; a kind ``searched`` for each search."""
        number, query = numbered
        features = query_features(read_pcm(query.path))
        if not len(features.landmarks):
            return []
        n_frames = features.landmarks.n_frames
        out: list[tuple[str, str, tuple[float, ...]]] = []

        def search(snapshot: Snapshot) -> tuple[Hit, ...]:
            return WindowSearch(snapshot, features).run(math.inf).hits

        def sounds_like(name: str, at_s: float) -> bool:
            length_s = query.length_s * query.speed
            return bool(query.source) and self._repeats.alike(
                query.source, query.source_offset_s, name, at_s, length_s
            )

        group = query.source or query.path.name
        if query.track:
            out.append(("searched right", group, ()))
            found = 0
            for rank, hit in enumerate(search(self._everything)):
                at_s = start_s(hit, n_frames)
                name = self._names[hit.recording_id]
                right = name == query.track and (
                    abs(at_s - query.offset_s) <= OFFSET_TOLERANCE_S
                    or (rank < RIGHT_A_SEARCH and sounds_like(name, at_s))
                )
                if right and found < RIGHT_A_SEARCH:
                    out.append(("right", group, features_of(hit)))
                    found += 1
        if not query.track or number % self._hidden == 0:
            kind = "hidden" if query.track else "unindexed"
            out.append((f"searched {kind}", group, ()))
            alike = ({query.track} | self._twins[query.track]) & self._ids.keys()
            snapshot = self._everything.without([self._ids[name] for name in alike])
            wrong = [
                hit
                for hit in search(snapshot)[: NULLS_A_SEARCH + 1]
                if self._names[hit.recording_id] not in self._twins[query.source]
                and not (
                    hit.score > current.MATCH_SCORE - 3.0
                    and sounds_like(self._names[hit.recording_id], start_s(hit, n_frames))
                )
            ]
            out += [(kind, group, features_of(hit)) for hit in wrong[:NULLS_A_SEARCH]]
        return out


_of_this_set: dict[str, Collector] = {}
"""What the processes of a pool inherit."""


def _collect(numbered: tuple[int, Query]) -> list[tuple[str, str, tuple[float, ...]]]:
    return _of_this_set["collector"](numbered)


class Data:
    """All samples as arrays."""

    def __init__(self, searches: Sequence[Sequence[tuple[str, str, tuple[float, ...]]]]) -> None:
        flat = [(n, *one) for n, found in enumerate(searches) for one in found]
        self.total = {
            kind: sum(one[1] == f"searched {kind}" for one in flat)
            for kind in ("right", "hidden", "unindexed")
        }
        places = [one for one in flat if not one[1].startswith("searched")]
        self.search = np.array([one[0] for one in places])
        self.kind = np.array([one[1] for one in places])
        self.fold = np.array([zlib.crc32(one[2].encode()) % FOLDS for one in places])
        self.x = np.array([one[3] for one in places], np.float64)
        self.right = self.kind == "right"

    def searches(self, kind: str, mask: NDArray[np.bool_] | None = None) -> "Searches":
        """The samples of a kind by search."""
        rows = np.flatnonzero((self.kind == kind) & (True if mask is None else mask))
        _, group = np.unique(self.search[rows], return_inverse=True)
        return Searches(rows, group, int(group.max(initial=-1)) + 1)

    def best(self, scores: Floats, kind: str) -> Floats:
        """The best score of each search of a kind that found a place, highest first."""
        return self.searches(kind).best(scores)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Searches:
    """Rows of samples, the number of the search that each belongs to, and how many there are."""

    rows: NDArray[np.intp]
    group: NDArray[np.intp]
    count: int

    def best(self, scores: Floats) -> Floats:
        """The best score of each search, highest first."""
        out = np.full(self.count, -99.0)
        np.maximum.at(out, self.group, scores[self.rows])
        return np.sort(out)[::-1]


def logistic(x: Floats, y: Floats, penalty: float = 3.0) -> tuple[Floats, float]:
    """Weights and bias of a regularised logistic regression on standardised columns."""
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-9
    z = np.column_stack([(x - mean) / deviation, np.ones(len(x))])

    def loss(w: Floats) -> tuple[float, Floats]:
        margin = z @ w
        shrunk = np.append(w[:-1], 0.0)
        value = np.logaddexp(0.0, -(2.0 * y - 1.0) * margin).sum() + penalty * (shrunk**2).sum()
        return float(value), z.T @ (1.0 / (1.0 + np.exp(-margin)) - y) + 2.0 * penalty * shrunk

    w = minimize(loss, np.zeros(z.shape[1]), jac=True, method="L-BFGS-B").x
    weights = w[:-1] / deviation
    return weights, float(w[-1] - weights @ mean)


def climb(data: Data, mask: NDArray[np.bool_]) -> Floats:
    """Weights that recall most at the wanted false rates, on the samples of ``mask``."""
    deviation = data.x.std(axis=0) + 1e-9
    start, _ = logistic(data.x[mask], data.right[mask].astype(np.float64))
    scale = float(np.linalg.norm(start * deviation))
    share = float(mask.mean())
    searches = {kind: data.searches(kind, mask) for kind in ("right", "hidden", "unindexed")}

    def missed(w: Floats) -> float:
        scores = data.x @ (w / np.linalg.norm(w) * scale / deviation)
        right = searches["right"].best(scores)
        value = 0.0
        for kind, shares in (("hidden", HIDDEN_SHARES), ("unindexed", UNINDEXED_SHARES)):
            null = searches[kind].best(scores)
            for part in shares:
                at = int(data.total[kind] * share * part)
                level = null[max(0, at - 1) : at + 2].mean() if at < len(null) else -99.0
                value += float(np.tanh((right - level) / 1.5).sum())
        return -value / len(right)

    best = minimize(
        missed, start * deviation, method="Powell", options={"maxiter": 5, "xtol": 5e-3}
    ).x
    return np.asarray(best / np.linalg.norm(best) * scale / deviation)


def recall(data: Data, scores: Floats, kind: str, share: float) -> float:
    """Percent of the indexed clips found where so many of a kind's clips are answered."""
    null = data.best(scores, kind)
    at = int(data.total[kind] * share)
    level = null[at] if at < len(null) else -99.0
    return 100.0 * float((data.best(scores, "right") > level).sum()) / max(1, data.total["right"])


def curve(data: Data, scores: Floats) -> dict[str, float]:
    """Recall at false rates of both kinds."""
    rates = [("hidden", s) for s in (0.02, *HIDDEN_SHARES)]
    rates += [("unindexed", s) for s in (*UNINDEXED_SHARES, 0.0)]
    return {f"{100 * s:g} % of {k}": round(recall(data, scores, k, s), 1) for k, s in rates}


def cross_validate(data: Data, fit: Callable[[NDArray[np.bool_]], Floats]) -> Floats:
    """Scores of every sample by weights that its fold had no part in, levelled fold by fold."""
    out = np.zeros(len(data.x))
    for fold in range(FOLDS):
        rest = data.fold != fold
        scores = data.x @ fit(rest)
        null = np.sort(scores[rest & ~data.right])[::-1]
        out[~rest] = scores[~rest] - null[int(0.002 * len(null))]
    return out


def fit_glance(data: Data, accepted: NDArray[np.bool_]) -> dict[str, float]:
    """Weights of the cheap terms; 0 is where almost every accepted right place passes."""
    columns = [current.TERMS.index(name) for name in GLANCE]
    weights, _ = logistic(data.x[:, columns], data.right.astype(np.float64), 0.1)
    scores = data.x[:, columns] @ weights
    bias = -float(np.quantile(scores[data.right & accepted], GLANCE_LOSS))
    passing = float((scores[~data.right] + bias >= 0.0).mean())
    named = dict(zip(GLANCE, weights.round(3).tolist(), strict=True))
    return named | {"bias": round(bias, 3), "wrong places that pass": round(passing, 4)}


def report(data: Data) -> dict[str, Any]:
    """All that is fitted and what it is worth."""
    everything = np.ones(len(data.x), np.bool_)
    weights = climb(data, everything)
    scores = data.x @ weights
    null = np.concatenate([data.best(scores, kind) for kind in ("hidden", "unindexed")])
    absent = data.total["hidden"] + data.total["unindexed"]
    bias = current.MATCH_SCORE - float(np.sort(null)[::-1][int(absent * 0.001)])
    scores += bias
    right = data.best(scores, "right")
    # Half of the clips that are asked are indexed; what was not found counts as a wrong answer.
    wrong = np.sort(np.concatenate([data.best(scores, k) for k in ("hidden", "unindexed")]))
    x = np.concatenate([right, wrong])[:, None]
    y = np.concatenate([np.ones(len(right)), np.zeros(len(wrong))])
    slope, shift = logistic(x, y, 0.0)
    present = data.x @ np.array([current.WEIGHTS[name] for name in current.TERMS]) + current.BIAS
    return {
        "searches": data.total,
        "weights": dict(zip(current.TERMS, weights.round(3).tolist(), strict=True)),
        "bias": round(bias, 3),
        "calibration_slope": round(float(slope[0]), 3),
        "calibration_bias": round(shift, 3),
        "best null scores": [round(v, 2) for v in wrong[::-1][:12].tolist()],
        "glance": fit_glance(data, scores >= current.MATCH_SCORE),
        "recall, cross-validated": curve(data, cross_validate(data, lambda m: climb(data, m))),
        "recall, present weights": curve(data, present),
        "right places verified": round(100.0 * len(right) / max(1, data.total["right"]), 2),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", type=Path, nargs="+", required=True, dest="folders")
    parser.add_argument("--limit", type=int, help="about this many clips of each set")
    parser.add_argument("--hidden", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    warm()
    # What a glance would turn away has to be seen to fit the glance.
    window.GLANCE_LEAST = -4.0
    searches: list[list[tuple[str, str, tuple[float, ...]]]] = []
    context = multiprocessing.get_context("fork")
    for folder in options.folders:
        _of_this_set["collector"] = Collector(folder, options.hidden, read_twins(folder))
        queries = list(enumerate(read_queries(folder, options.limit)))
        with context.Pool(options.processes) as pool:
            searches += pool.map(_collect, queries, chunksize=8)
    figures = report(Data(searches))
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, value in figures.items():
            print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
