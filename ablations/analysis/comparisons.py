"""What a study's planned comparisons and controls came to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import ablations.analysis.statistics as st
from ablations.analysis import metric_text
from ablations.records.study_results import StudyResults
from ablations.study import Comparison

COLUMNS = ("comparison", "difference", "BCa", "seeds", "p", "Holm p", "predicted", "found", "seeds for power .8")
CAPTION = (
    "Differences of {what}: mean over seeds of the paired difference with its 95% t interval, beside it the BCa "
    "bootstrap's, which is too narrow with few seeds (it covers about .89 of ten). p is that of the exact sign-flip "
    "test; Holm's adjusts it for the {count}, and can't be below {least} with {seeds} seeds. Found: what Holm's p says "
    "at .05 (below 8 seeds, what the t interval says). The last column: how many seeds a t test would need to see a "
    "true difference of the size found four times in five or, if more, Holm's p to get below .05 at all."
)
ALPHA = 0.05
AS_MEASURED = "The outcomes are not those that the study's reading was written for, so it is left out."
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
        Verdict(comparison, metric, tuple(differences), alone, adjusted)
        for (comparison, metric, differences), alone, adjusted in zip(made, p, st.holm(p), strict=True)
    ]


def section(results: StudyResults, title: str, wanted: Sequence[Comparison]) -> list[str]:
    """Comparisons that are adjusted together, as Markdown; nothing if none of them has finished cells."""
    found = verdicts(results, wanted)
    if not found:
        return []
    reasons = "\n".join(
        f"- {each.comparison}: {each.comparison.predicted or 'no prediction'}, for {each.comparison.because}."
        for each in found
        if each.comparison.because
    )
    names = "; of ".join(
        dict.fromkeys(f"{metric_text.name(each.metric)}, {metric_text.unit(each.metric)}" for each in found)
    )
    seeds = max(len(each.differences) for each in found)
    least = number(min(1.0, len(found) * 2.0 ** (1 - seeds)))
    said = CAPTION.format(what=names, count=f"{len(found)} {title.lower()}", least=least, seeds=seeds)
    return [
        f"## {title}",
        markdown(COLUMNS, table(found)),
        said,
        *([f"Predicted:\n\n{reasons}"] if reasons else []),
    ]


def table(found: Sequence[Verdict]) -> list[list[str]]:
    """The rows below ``COLUMNS``, of comparisons that are adjusted together."""
    least = math.ceil(1 + math.log2(len(found) / ALPHA)) if found else 0  # len * 2^(1 - n) is Holm's least p
    return [
        [
            str(each.comparison),
            metric_text.difference(each.interval, each.metric),
            metric_text.limits(st.bca_interval(each.differences), each.metric),
            str(len(each.differences)),
            number(each.p),
            number(each.adjusted),
            each.comparison.predicted,
            each.found if each.p == each.p else "",
            "" if (needed := each.seeds_needed) is None else f"{max(needed, least):,}",
        ]
        for each in found
    ]


def answer(results: StudyResults) -> str:
    """What the outcomes come to: :func:`reading`, then each of them, then the controls."""
    study = results.study
    found, controls = verdicts(results, study.comparisons), verdicts(results, study.controls)
    if not found:
        return NOTHING
    said: dict[str, list[str]] = {}
    for each in found:
        above, below = metric_text.directions(each.metric)
        title = {"above": above, "below": below, UNRESOLVED: "Not resolved"}[each.found]
        said.setdefault(title, []).append(_difference(each))
    parts = [" ".join(f"{title}: {'; '.join(said[title])}." for title in sorted(said, key="Not resolved".__eq__))]
    if read := reading(results):
        parts.insert(0, read)
    if controls:
        failed = [_difference(each) for each in controls if each.found != _expected(each)]
        parts.append(
            f"Controls: {len(controls) - len(failed)} of {len(controls)} came out as predicted"
            + (f", and not {'; '.join(failed)}." if failed else ".")
        )
    return "\n\n".join(parts)


def reading(results: StudyResults) -> str:
    """The study's own words on its outcomes, if these are still the same; empty without any."""
    study = results.study
    if study.reading is None or results.smoke:
        return ""
    found = (*verdicts(results, study.comparisons), *verdicts(results, study.exploratory))
    outcomes = tuple(each.found for each in found)
    return study.reading.text if outcomes == study.reading.outcomes else AS_MEASURED


def _difference(verdict: Verdict) -> str:
    return f"{verdict.comparison} {metric_text.difference(verdict.interval, verdict.metric)}"


def _expected(verdict: Verdict) -> str:
    """What is found of a control if it is sound; equal is what can't be told apart."""
    return UNRESOLVED if verdict.comparison.predicted == "equal" else verdict.comparison.predicted


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
