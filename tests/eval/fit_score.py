"""Fit the score's weights and the confidence on an evaluation set.

    python -m tests.eval.fit_score --set DIR [--limit N] [--twins A=B ...] [--json]

Every clip is searched twice, through all rounds: with everything indexed, and with its own
recording hidden (leave-one-out: music of the same kind is the null that counts). ``--twins`` names
recordings that share sound, an enhanced version or the same samples: an answer with the other one
is no mistake, so both are hidden. Right places of the first search are the positives, the best
places of the second and of clips that are not indexed the negatives.

The weights are a logistic regression's, moved so that a score of 3 leaves ``--false`` percent of
the hidden clips answered. Fourfold cross-validation over recordings shows what they are worth on
others. The confidence is a logistic of the best answer's score where half of the clips are
indexed.
"""

import argparse
import dataclasses
import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from soundhash_engine import score as current
from soundhash_engine.index import Index, Snapshot
from soundhash_engine.landmarks import query_features
from soundhash_engine.params import PARAMS
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

FEATURES = ("lz", "uz", "patch", "identity")
FOLDS = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """The best place of one search.

    right  whether it is where the clip comes from
    hidden the clip's own recording was not searched
    """

    query: Query
    features: tuple[float, ...]
    right: bool
    hidden: bool


def features_of(hit: Hit) -> tuple[float, ...]:
    """What the score is made of."""
    evidence = hit.evidence
    return (
        evidence.lz,
        math.log(max(1.0, evidence.uz)),
        evidence.overlap * evidence.rp,
        float(hit.identity),
    )


def start_s(hit: Hit, n_frames: int) -> float:
    """Where the clip's first sample lies in the recording."""
    lead = 0.5 * PARAMS.n_fft_samples / PARAMS.hop_samples
    frames = hit.position + lead - hit.tempo * (0.5 * (n_frames - 1) + lead)
    return frames / PARAMS.frames_per_s


def collect(
    index: Index,
    names: dict[int, str],
    queries: Sequence[Query],
    repeats: Repeats,
    twins: dict[str, set[str]],
) -> list[Sample]:
    """The best places of every clip, its own recording searched and hidden."""
    ids = {name: number for number, name in names.items()}
    everything = index.snapshot()
    samples: list[Sample] = []

    def best(query: Query, snapshot: Snapshot, hidden: bool) -> None:
        features = query_features(read_pcm(query.path))
        result = WindowSearch(snapshot, features).run(math.inf)
        seen: set[bool] = set()
        for hit in result.hits:
            at_s = start_s(hit, features.landmarks.n_frames)
            right = (
                not hidden
                and names[hit.recording_id] == query.track
                and (
                    abs(at_s - query.offset_s) <= OFFSET_TOLERANCE_S
                    or repeats.same_sound(
                        query.track, query.offset_s, at_s, query.length_s * query.speed
                    )
                )
            )
            # With its own recording there, other places may be repeats: only right ones count.
            if right not in seen and (right or hidden or not query.track):
                samples.append(Sample(query, features_of(hit), right, hidden))
            seen.add(right)

    for query in queries:
        if query.track:
            best(query, everything, hidden=False)
            alike = {query.track} | twins[query.track]
            best(query, everything.without([ids[name] for name in alike]), hidden=True)
        else:
            best(query, everything, hidden=True)
    return samples


def logistic(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Weights and bias of a slightly regularised logistic regression."""
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-9
    z = np.column_stack([(x - mean) / deviation, np.ones(len(x))])

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = z @ w
        penalty = np.append(w[:-1], 0.0)
        value = np.logaddexp(0.0, -(2.0 * y - 1.0) * margin).sum() + 0.01 * (penalty**2).sum()
        return float(value), z.T @ (1.0 / (1.0 + np.exp(-margin)) - y) + 0.02 * penalty

    w = minimize(loss, np.zeros(z.shape[1]), jac=True, method="L-BFGS-B").x
    weights = w[:-1] / deviation
    return weights, float(w[-1] - weights @ mean)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True, dest="folder")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--twins", nargs="*", default=[])
    parser.add_argument("--false", type=float, default=0.5, dest="false_percent")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    twins = read_twins(options.twins)
    warm()
    index, names = index_folder(options.folder / "refs")
    queries = read_queries(options.folder, options.limit)
    samples = collect(index, names, queries, Repeats(options.folder / "refs"), twins)

    x = np.array([s.features for s in samples])
    y = np.array([float(s.right) for s in samples])
    fold = np.array([zlib.crc32(s.query.track.encode()) % FOLDS for s in samples])
    indexed = sum(bool(q.track) for q in queries)
    weights, bias = logistic(x, y)
    current_scores = (
        x
        @ np.array(
            [
                current.WEIGHT_LZ,
                current.WEIGHT_UZ,
                current.WEIGHT_PATCH,
                current.WEIGHT_IDENTITY,
            ]
        )
        + current.BIAS
    )
    crossed = np.zeros(len(x))
    for k in range(FOLDS):
        w, b = logistic(x[fold != k], y[fold != k])
        crossed[fold == k] = x[fold == k] @ w + b

    right = y > 0
    null = np.array([s.hidden and bool(s.query.track) for s in samples])
    outside = np.array([not s.query.track for s in samples])

    def threshold(scores: NDArray[np.float64], percent: float) -> float:
        """The score above which this share of the hidden clips is answered."""
        padded = np.concatenate([scores[null], np.full(max(0, indexed - null.sum()), -99.0)])
        return float(np.quantile(padded, 1.0 - percent / 100.0))

    def recall(scores: NDArray[np.float64], at: float) -> float:
        return 100.0 * float((scores[right] >= at).sum()) / max(1, indexed)

    bias += 3.0 - threshold(x @ weights + bias, options.false_percent)
    scores = x @ weights + bias
    # The best answer of each search, right or not, where half of the clips are indexed.
    calibration, shift = logistic(scores[:, None], y)
    report = {
        "clips": len(queries),
        "hours": index.snapshot().hours,
        "weights": dict(zip(FEATURES, weights.round(3).tolist(), strict=True)),
        "bias": round(bias, 3),
        "calibration_slope": round(float(calibration[0]), 3),
        "calibration_bias": round(shift, 3),
        "cross_validated_recall_percent": {
            f"{p} % of hidden clips answered": round(recall(crossed, threshold(crossed, p)), 1)
            for p in (2.0, 1.0, 0.5, 0.2)
        },
        "present_weights": {
            "recall_percent": round(recall(current_scores, current.MATCH_SCORE), 1),
            "hidden_answered_percent": round(
                100.0 * float((current_scores[null] >= current.MATCH_SCORE).mean()), 2
            ),
            "unindexed_answered": int((current_scores[outside] >= current.MATCH_SCORE).sum()),
            "unindexed_best": round(float(current_scores[outside].max(initial=-99.0)), 2),
        },
    }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        for name, value in report.items():
            print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
