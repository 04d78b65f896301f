"""What is concluded from a comparison: which arm is above, or that they are equal, or that the seeds are too few."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import ablations.analysis.statistics as st
from ablations.metric_units import recorded
from ablations.records.study_results import StudyResults
from ablations.study import Comparison

ALPHA = 0.05
EQUAL, UNRESOLVED = "equal", "unresolved"
NOT_ABOVE = "not above"  # found only where it is predicted
SOUND = {NOT_ABOVE: (NOT_ABOVE, "below", EQUAL)}  # what agrees with a prediction besides the same words
ENOUGH_SEEDS = 8  # for a claim; with fewer no test of six comparisons can reach .05


@dataclass(frozen=True)
class Verdict:
    """A comparison with its outcome; differences in the metric's own unit: of accuracies as fractions, not points.

    Attributes:
        differences: one a seed.
        p, adjusted: of the sign-flip test, NaN without a pair of cells.
        matters: the smallest difference that would matter, in the unit of reports.
    """

    comparison: Comparison
    metric: str
    differences: tuple[float, ...]
    p: float
    adjusted: float
    matters: float

    @property
    def interval(self) -> st.Interval:
        return st.mean_interval(self.differences)

    @property
    def found(self) -> str:
        """``equal`` where the difference is shown to be smaller than what matters, even if it is shown to be one.
        Otherwise ``above`` or ``below`` where the adjusted p is below .05, or else ``unresolved``.

        With too few seeds for that test the t interval decides between these. Where ``not above`` is predicted and
        neither was found, the one-sided t test decides between ``not above`` and ``unresolved``.
        """
        mean, low, high = self.interval
        few = len(self.differences) < ENOUGH_SEEDS
        if few and mean and low == high:  # few differences that happen to agree do not tell how they vary
            return UNRESOLVED
        if self.p_equivalence < ALPHA:
            return EQUAL
        if low * high > 0 if few else self.adjusted < ALPHA:
            return "above" if mean > 0 else "below"
        return NOT_ABOVE if self.comparison.predicted == NOT_ABOVE and self.p_not_above < ALPHA else UNRESOLVED

    @property
    def margin(self) -> float:
        """What ``matters``, in the unit of the differences."""
        return recorded(self.matters, self.metric)

    @property
    def p_equivalence(self) -> float:
        """Of the two one-sided t tests, unadjusted; NaN with fewer than two seeds."""
        return st.equivalence_p(self.differences, self.margin)

    @property
    def p_not_above(self) -> float:
        """Of the one-sided t test that the difference is less than what matters, however far below 0."""
        return st.below_p(self.differences, self.margin)

    @property
    def as_predicted(self) -> bool | None:
        """Whether what was found agrees with the prediction; None if it is unresolved or nothing was predicted."""
        predicted = self.comparison.predicted
        if self.found == UNRESOLVED or not predicted:
            return None
        return self.found in SOUND.get(predicted, (predicted,))

    @property
    def seeds_needed(self) -> int | None:
        """Of the t test, unadjusted."""
        n, mean = len(self.differences), self.interval.mean
        if n < 2 or not mean:
            return None
        sd = math.sqrt(sum((d - mean) ** 2 for d in self.differences) / (n - 1))
        return st.seeds_needed(mean, sd) if sd else 2


def verdicts(results: StudyResults, comparisons: Sequence[Comparison]) -> list[Verdict]:
    """The outcomes of those comparisons that have finished cells on both sides, their p adjusted together."""
    made = []
    for comparison in comparisons:
        if all(results.of(arm) for arm in comparison.arms + comparison.against):
            metric = results.study.metric_of(comparison)
            sides = (results.mean_by_seed(arms, metric) for arms in (comparison.arms, comparison.against))
            made.append((comparison, metric, st.paired(*sides)))
    p = [st.sign_flip_p(differences) for _, _, differences in made]
    return [
        Verdict(comparison, metric, tuple(differences), alone, adjusted, results.study.matters_of(comparison))
        for (comparison, metric, differences), alone, adjusted in zip(made, p, st.holm(p), strict=True)
    ]
