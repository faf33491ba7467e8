"""From judged answers to figures: recall, false answers, errors, reliability, latency."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import beta

from tests.eval.data import Query

FOUND = frozenset({"hit", "repeat", "twin"})
FALSE_RATES = (0.0, 0.001, 0.005, 0.01)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """One query's best answer, judged, whether or not it is good enough to be given.

    verdict     hit; repeat: the right recording where it sounds the same; twin: another recording
                that holds the same sound; offset: the right recording elsewhere; wrong: another
                recording. Of a clip that is not indexed: shared (a recording that does hold the
                same sound) or false. missed, silent: no answer at all
    track       answered recording, empty for none
    offset_s    where the clip's first sample lies in it
    score       NaN without an answer
    confidence  0 without an answer
    given       the confidence reaches the engine's threshold
    seconds     engine time
    """

    query: Query
    verdict: str
    track: str
    offset_s: float
    score: float
    confidence: float
    speed: float
    pitch: float
    given: bool
    seconds: float

    @property
    def right(self) -> bool:
        """The answer is right, given or not."""
        return self.verdict in FOUND or self.verdict == "shared"

    @property
    def found(self) -> bool:
        """Counts as found."""
        return self.given and self.verdict in FOUND

    @property
    def indexed(self) -> bool:
        """The clip's recording is in the index."""
        return self.query.kind != "negative"


def bounds(count: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper–Pearson interval of a share, each 0 … 1."""
    if not of:
        return 0.0, 1.0
    tail = (1.0 - level) / 2.0
    low = float(beta.ppf(tail, count, of - count + 1)) if count else 0.0
    high = float(beta.ppf(1.0 - tail, count + 1, of - count)) if count < of else 1.0
    return low, high


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median and 95th percentile."""
    if not values:
        return None
    return {"median": float(np.median(values)), "p95": float(np.percentile(values, 95))}


def percent(part: Sequence[Outcome]) -> float | None:
    """Found, at the engine's threshold."""
    return 100.0 * sum(o.found for o in part) / len(part) if part else None


def sweep(outcomes: Sequence[Outcome]) -> list[tuple[float, float, float]]:
    """(score, share found, share of unindexed clips answered) at every possible threshold.

    Highest score first. Answers of unindexed clips that do hold the sound are not counted as
    false.
    """
    indexed = sum(o.indexed for o in outcomes)
    absent = sum(not o.indexed and o.verdict != "shared" for o in outcomes)
    answers = sorted(
        (o for o in outcomes if o.track and o.verdict != "shared"), key=lambda o: -o.score
    )
    points: list[tuple[float, float, float]] = []
    found = wrong = 0
    for i, o in enumerate(answers):
        found += o.verdict in FOUND
        wrong += not o.indexed
        if i + 1 == len(answers) or answers[i + 1].score < o.score:
            points.append((o.score, found / max(1, indexed), wrong / max(1, absent)))
    return points


def at_false_rate(points: Sequence[tuple[float, float, float]], rate: float) -> dict[str, float]:
    """The most that is found with at most this share of unindexed clips answered."""
    allowed = [point for point in points if point[2] <= rate]
    score, found, _ = max(allowed, key=lambda point: point[1], default=(float("inf"), 0.0, 0.0))
    return {"score": score, "recall_percent": 100.0 * found}


def reliability(outcomes: Sequence[Outcome], bins: int = 10) -> list[dict[str, float]]:
    """How often answers of each confidence are right, where half of the clips are indexed.

    Clips weigh as much as makes both halves equal. ``low`` … ``high`` is the 95 % interval of the
    bin's share, from as many answers as its weights are worth.
    """
    answers = [o for o in outcomes if o.track]
    indexed = sum(o.indexed for o in outcomes)
    absent = len(outcomes) - indexed
    rows = []
    for k in range(bins):
        part = [o for o in answers if k <= o.confidence * bins < k + 1 + (k == bins - 1)]
        if not part:
            continue
        weights = np.array([1.0 / (indexed if o.indexed else max(1, absent)) for o in part])
        right = np.array([o.right for o in part], float)
        share = float((weights * right).sum() / weights.sum())
        worth = float(weights.sum() ** 2 / (weights**2).sum())
        low, high = bounds(round(share * worth), max(1, round(worth)))
        rows.append(
            {
                "answers": len(part),
                "confidence": float((weights * [o.confidence for o in part]).sum() / weights.sum()),
                "right": share,
                "low": low,
                "high": high,
            }
        )
    return rows


def row(part: Sequence[Outcome], lengths: Sequence[float]) -> dict[str, Any]:
    """Figures of some indexed clips."""
    errors = [abs(o.offset_s - o.query.offset_s) for o in part if o.found and o.verdict == "hit"]
    counts: dict[str, int] = defaultdict(int)
    for o in part:
        counts[o.verdict if o.given else "missed"] += 1
    low, high = bounds(sum(o.found for o in part), len(part))
    return {
        "clips": len(part),
        "prepared": all(o.query.prepared for o in part),
        "recall_percent": percent(part),
        "recall_bounds_percent": [100.0 * low, 100.0 * high],
        "best_answer_right_percent": 100.0 * sum(o.verdict in FOUND for o in part) / len(part)
        if part
        else None,
        "by_length_percent": {
            f"{length:g}": percent([o for o in part if o.query.length_s == length])
            for length in lengths
        },
        "within_100_ms_percent": 100.0 * sum(e <= 0.1 for e in errors) / len(part)
        if part
        else None,
        **{name: counts[name] for name in ("repeat", "twin", "offset", "wrong", "missed")},
        "offset_error_ms": spread([1000.0 * e for e in errors]),
        "speed_error_percent": spread(
            [100.0 * abs(o.speed / o.query.speed - 1.0) for o in part if o.found]
        ),
        "pitch_error_percent": spread(
            [100.0 * abs(o.pitch / o.query.pitch - 1.0) for o in part if o.found]
        ),
        "latency_ms": spread([1000.0 * o.seconds for o in part]),
    }


def _grouped(part: Sequence[Outcome], key: Callable[[Query], str]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in part:
        groups[key(outcome.query)].append(outcome)
    return groups


def summarise(outcomes: Sequence[Outcome], publish_confidence: float) -> dict[str, Any]:
    """All figures, as JSON. ``publish_confidence``: the threshold for saying it in public."""
    positive = [o for o in outcomes if o.indexed]
    negative = [o for o in outcomes if not o.indexed]
    lengths = sorted({o.query.length_s for o in positive})
    public = [o for o in outcomes if o.confidence >= publish_confidence]

    def false(part: Sequence[Outcome]) -> dict[str, Any]:
        wrong = sum(o.verdict == "false" for o in part)
        low, high = bounds(wrong, len(negative))
        return {
            "false": wrong,
            "shared": sum(o.verdict == "shared" for o in part),
            "percent": 100.0 * wrong / max(1, len(negative)),
            "bounds_percent": [100.0 * low, 100.0 * high],
        }

    groups = {
        "prepared": [o for o in positive if o.query.prepared],
        "unprepared": [o for o in positive if not o.query.prepared],
        "music": [o for o in positive if o.query.kind == "music"],
        "speech": [o for o in positive if o.query.kind == "speech"],
    }
    points = sweep(outcomes)
    return {
        "conditions": {
            name: row(part, lengths)
            for name, part in _grouped(positive, lambda q: q.condition).items()
        },
        "families": {
            name: row(part, lengths)
            for name, part in _grouped(positive, lambda q: q.family).items()
        },
        "groups": {name: row(part, lengths) for name, part in groups.items() if part},
        "all": row(positive, lengths),
        "unindexed": {
            "clips": len(negative),
            **false([o for o in negative if o.given]),
            "latency_ms": spread([1000.0 * o.seconds for o in negative]),
        },
        "published": {
            "recall_percent": 100.0
            * sum(o.verdict in FOUND for o in public if o.indexed)
            / max(1, len(positive)),
            "wrong": sum(o.verdict in {"wrong", "offset"} for o in public),
            **false([o for o in public if not o.indexed]),
        },
        "at_false_rate": {f"{rate:g}": at_false_rate(points, rate) for rate in FALSE_RATES},
        "by_group_at_false_rate": {
            name: at_false_rate(sweep([*part, *negative]), 0.001)
            for name, part in groups.items()
            if part
        },
        "curve": [[round(x, 6) for x in point] for point in points],
        "reliability": reliability(outcomes),
    }


def print_table(summary: dict[str, Any], by: str = "families") -> None:
    """The figures for people; ``by``: families or conditions."""
    everything = summary["all"]
    lengths = list(everything["by_length_percent"])
    nothing = {"median": float("nan"), "p95": float("nan")}
    print(
        f"{'':<20}{'clips':>6}"
        + "".join(f"{length + ' s':>7}" for length in lengths)
        + f"{'all':>7}{'right':>7}{'wrong':>6}{'offset':>7}{'err ms':>7}{'p95':>5}"
        + f"{'spd %':>7}{'ms':>7}{'p95':>7}"
    )
    rows = [*summary[by].items(), *summary["groups"].items(), ("ALL", everything)]
    for name, figures in rows:
        error = figures["offset_error_ms"] or nothing
        speed = figures["speed_error_percent"] or nothing
        latency = figures["latency_ms"] or nothing
        shares = [figures["by_length_percent"].get(length) for length in lengths]
        print(
            f"{name:<20}{figures['clips']:6d}"
            + "".join("      –" if s is None else f"{s:7.1f}" for s in shares)
            + f"{figures['recall_percent']:7.1f}{figures['best_answer_right_percent']:7.1f}"
            + f"{figures['wrong']:6d}{figures['offset']:7d}"
            + f"{error['median']:7.1f}{error['p95']:5.0f}{speed['p95']:7.2f}"
            + f"{latency['median']:7.1f}{latency['p95']:7.1f}"
        )
    for name, key in (("threshold", "unindexed"), ("publish threshold", "published")):
        part = summary[key]
        recall = part.get("recall_percent", everything["recall_percent"])
        low, high = part["bounds_percent"]
        print(
            f"at the {name}: recall {recall:.2f} %, false answers {part['false']} of "
            f"{summary['unindexed']['clips']} (95 %: {low:.3f} … {high:.3f} %), besides "
            f"{part['shared']} of recordings that hold the same sound"
        )
    for rate, at in summary["at_false_rate"].items():
        print(
            f"recall {at['recall_percent']:.2f} % at ≤ {100 * float(rate):g} % false answers "
            f"(score ≥ {at['score']:.2f})"
        )
    for name, at in summary["by_group_at_false_rate"].items():
        print(f"  {name}: {at['recall_percent']:.2f} % at ≤ 0.1 % (score ≥ {at['score']:.2f})")
    print("confidence: answers, said, right (95 %)")
    for figures in summary["reliability"]:
        print(
            f"  {figures['answers']:6d}{100 * figures['confidence']:7.1f}"
            f"{100 * figures['right']:7.1f} ({100 * figures['low']:.1f} … "
            f"{100 * figures['high']:.1f})"
        )
    absent = summary["unindexed"]["latency_ms"] or nothing
    print(f"unindexed clips: {absent['median']:.1f} ms median, {absent['p95']:.1f} ms p95")
