"""From evidence to one score, and from the score to a probability.

The score is linear in the evidence. Its weights are fitted by ``tests/eval/fit_score.py`` on places
that were right against the best wrong ones, the wrong ones including music of the same makers (each
clip with its own recording hidden); ADR 0010 says what was tried.

Fitted on 5,192 clips of 17.6 h in 87 conditions, cross-validated over recordings: where one in a
thousand clips that are not indexed is answered, 97.1 % of the indexed ones are found.
"""

import dataclasses
import math

from soundhash_engine.verify import Evidence

WEIGHTS = {
    "pair votes": 0.816,
    "landmark energy": 2.517,
    "contrast met": 1.165,
    "patch against shifted": 0.431,
    "whitened patch": 0.102,
    "coinciding landmarks": 6.102,
    "unchanged": 2.365,
}
"""Score a unit of each term."""
TERMS = tuple(WEIGHTS)
BIAS = -12.028

MATCH_SCORE = 3.0
"""A match: from this score on, plus the catalogue term, an answer is given."""
PUBLISH_SCORE = 5.0
"""Sure enough to be said in public (bots), plus the catalogue term."""
CALIBRATION_SLOPE = 1.240
CALIBRATION_BIAS = -2.270
CALIBRATION_HOURS = 8.8
"""Hours indexed when the calibration was measured."""
CATALOGUE_SLOPE = 0.2
"""Score that each doubling of the catalogue costs: more music, better wrong places. The best wrong
score of the hundredth clip rose by 0.3 a doubling from 2 to 18 h of real music, by 0.1 from 6 to
1,000 h of made-up music."""


@dataclasses.dataclass(frozen=True, slots=True)
class Contribution:
    """One term of a score: ``weight · value``.

    name    what the term is; stable for one version of the score
    value   the feature as it enters the sum, 1 for the bias
    weight  score a unit of the feature
    """

    name: str
    value: float
    weight: float

    @property
    def contribution(self) -> float:
        """What the term adds to the score."""
        return self.weight * self.value


def contributions(evidence: Evidence, *, identity: bool) -> tuple[Contribution, ...]:
    """The terms whose sum is the score; ``identity``: neither pitch nor tempo changed."""
    values = (
        evidence.lz,
        math.log(max(1.0, evidence.uz)),
        evidence.met,
        evidence.rz,
        evidence.overlap * evidence.whitened,
        evidence.coinciding,
        float(identity),
    )
    terms = (
        Contribution(name, value, weight)
        for (name, weight), value in zip(WEIGHTS.items(), values, strict=True)
    )
    return (*terms, Contribution("bias", 1.0, BIAS))


def score(evidence: Evidence, *, identity: bool) -> float:
    """The score s of one place."""
    return sum(term.contribution for term in contributions(evidence, identity=identity))


def catalogue_term(hours: float) -> float:
    """What is taken off a score in a catalogue of this size; negative for a smaller one."""
    return CATALOGUE_SLOPE * math.log2(max(hours, 0.5) / CALIBRATION_HOURS)


def confidence(score: float, hours: float) -> float:
    """Probability, 0 … 1, that the best answer with this score is right."""
    x = CALIBRATION_SLOPE * (score - catalogue_term(hours)) + CALIBRATION_BIAS
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, x))))


MATCH_CONFIDENCE = 1.0 / (1.0 + math.exp(-(CALIBRATION_SLOPE * MATCH_SCORE + CALIBRATION_BIAS)))
"""Confidence of a score at the match threshold."""
PUBLISH_CONFIDENCE = 1.0 / (1.0 + math.exp(-(CALIBRATION_SLOPE * PUBLISH_SCORE + CALIBRATION_BIAS)))
"""Confidence of a score at the publish threshold."""
