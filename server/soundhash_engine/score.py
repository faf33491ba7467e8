"""From evidence to one score, and from the score to a probability.

The score is linear in the evidence; its weights are a logistic regression's, fitted by
``tests/eval/fit_score.py`` on places that were right against the best wrong ones, the wrong ones
including music of the same kind (each clip with its own recording removed).

Fitted on 882 clips in 21 conditions at 6.1 h. At a score of 3, 1 % of the clips whose own recording
is hidden are answered (with recordings that share samples), and none of 240 that are not indexed;
cross-validated over recordings, 95.1 % of the indexed ones are found.
"""

import dataclasses
import math

from soundhash_engine.verify import Evidence

WEIGHT_LZ = 1.304
WEIGHT_UZ = 2.402
WEIGHT_PATCH = 10.881
WEIGHT_IDENTITY = 2.036
BIAS = -9.623

MATCH_SCORE = 3.0
"""A match: from this score on, plus the catalogue term, an answer is given."""
PUBLISH_SCORE = 4.0
"""Sure enough to be said in public (bots), plus the catalogue term."""
CALIBRATION_SLOPE = 0.996
CALIBRATION_BIAS = -2.524
CALIBRATION_HOURS = 6.06
"""Hours indexed when the calibration was measured."""
CATALOGUE_SLOPE = 0.48
"""Score that each doubling of the catalogue costs: more music, better wrong places."""


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
    return (
        Contribution("pair votes", evidence.lz, WEIGHT_LZ),
        Contribution("landmark energy", math.log(max(1.0, evidence.uz)), WEIGHT_UZ),
        Contribution("patch", evidence.overlap * evidence.rp, WEIGHT_PATCH),
        Contribution("unchanged", float(identity), WEIGHT_IDENTITY),
        Contribution("bias", 1.0, BIAS),
    )


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
