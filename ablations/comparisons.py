"""What a study's planned comparisons and controls came to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import ablations.statistics as st
from ablations import metrics
from ablations.results import Results
from ablations.study import Comparison

COLUMNS = ("comparison", "difference", "BCa", "seeds", "p", "Holm p", "predicted", "found", "seeds for power .8")
CAPTION = (
    "Differences of {what}: mean over seeds of the paired difference with its 95% t interval, beside it the "
    "BCa bootstrap's. p is that of the exact sign-flip test, Holm's adjusts it for the {count}; found is what it "
    "says at .05, with fewer than 8 seeds the t interval. The last column: with how many seeds a true difference of "
    "the size found would be seen four times in five."
)
ALPHA = 0.05
NOTHING = "No planned comparison has finished cells on both sides."
UNRESOLVED = "unresolved"  # not: equal
ENOUGH_SEEDS = 8  # for a claim; with fewer no test of six comparisons can reach .05


@dataclass(frozen=True)
class Verdict:
    """A comparison with its outcome; differences in the metric's own unit: of accuracies as fractions, not points.

    Attributes:
        differences: one a seed.
        p, adjusted: of the sign-flip test, NaN without a pair of cells.
    """

    comparison: Comparison
    metric: str
    differences: tuple[float, ...]
    p: float
    adjusted: float

    @property
    def interval(self) -> st.Interval:
        return st.mean_interval(self.differences)

    @property
    def found(self) -> str:
        """``above`` or ``below`` where the adjusted p is below .05, otherwise ``unresolved``.

        With too few seeds for the test it is the t interval that tells, if it has a width.
        """
        mean, low, high = self.interval
        few = len(self.differences) < ENOUGH_SEEDS
        if not ((low < high and low * high > 0) if few else self.adjusted < ALPHA):
            return UNRESOLVED
        return "above" if mean > 0 else "below"

    @property
    def seeds_needed(self) -> int | None:
        n, mean = len(self.differences), self.interval.mean
        if n < 2 or not mean:
            return None
        sd = math.sqrt(sum((d - mean) ** 2 for d in self.differences) / (n - 1))
        return st.seeds_needed(mean, sd) if sd else 2


def verdicts(results: Results, comparisons: Sequence[Comparison]) -> list[Verdict]:
    """The outcomes of those comparisons that have finished cells on both sides, their p adjusted together."""
    made = []
    for comparison in comparisons:
        if all(results.of(arm) for arm in comparison.arms + comparison.against):
            metric = comparison.metric or results.study.primary_metric
            sides = (results.mean_by_seed(arms, metric) for arms in (comparison.arms, comparison.against))
            made.append((comparison, metric, st.paired(*sides)))
    p = [st.sign_flip_p(differences) for _, _, differences in made]
    return [
        Verdict(comparison, metric, tuple(differences), alone, adjusted)
        for (comparison, metric, differences), alone, adjusted in zip(made, p, st.holm(p), strict=True)
    ]


def sections(results: Results) -> list[str]:
    """The planned comparisons and the controls as Markdown."""
    parts = []
    study = results.study
    for title, wanted, name in (
        ("Planned comparisons", study.comparisons, "planned comparisons"),
        ("Controls", study.controls, "controls"),
    ):
        found = verdicts(results, wanted)
        if found:
            reasons = "\n".join(
                f"- {each.comparison}: {each.comparison.predicted or 'nothing'}, for {each.comparison.because}."
                for each in found
                if each.comparison.because
            )
            names = "; of ".join(
                dict.fromkeys(f"{metrics.name(x)}, {metrics.unit(x)}" for x in (e.metric for e in found))
            )
            said = CAPTION.format(what=names, count=f"{len(found)} {name}")
            parts += [
                f"## {title}",
                markdown(COLUMNS, table(found)),
                said,
                *([f"Predicted:\n\n{reasons}"] if reasons else []),
            ]
    return parts


def table(found: Sequence[Verdict]) -> list[list[str]]:
    """The rows below ``COLUMNS``."""
    return [
        [
            str(each.comparison),
            metrics.difference(each.interval, each.metric),
            metrics.limits(st.bca_interval(each.differences), each.metric),
            str(len(each.differences)),
            number(each.p),
            number(each.adjusted),
            each.comparison.predicted,
            each.found if each.p == each.p else "",
            "" if (needed := each.seeds_needed) is None else f"{needed:,}",
        ]
        for each in found
    ]


def answer(results: Results) -> str:
    """What the planned comparisons say, in two sentences at most."""
    found = verdicts(results, results.study.comparisons)
    resolved = [each for each in found if each.found != UNRESOLVED]
    parts = {"Resolved": resolved, "Not resolved": [each for each in found if each.found == UNRESOLVED]}
    sentences = [
        f"{title}: " + "; ".join(f"{each.comparison} {metrics.difference(each.interval, each.metric)}" for each in some)
        for title, some in parts.items()
        if some
    ]
    return "".join(f"{sentence}. " for sentence in sentences).strip() or NOTHING


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def points(interval: st.Interval, signed: bool = False) -> str:
    """An accuracy, or a difference of two, with its interval if there is one, in points."""
    sign = "+" if signed else ""
    mean = f"{100 * interval.mean:{sign}.1f}"
    flat = interval.low != interval.low or interval.low == interval.high
    return mean if flat else f"{mean} [{100 * interval.low:{sign}.1f}, {100 * interval.high:{sign}.1f}]"


def number(p: float) -> str:
    """A p."""
    return "" if p != p else f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"
