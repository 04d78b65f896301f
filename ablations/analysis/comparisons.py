"""What a study's planned comparisons and controls came to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import ablations.analysis.statistics as st
from ablations.analysis import metric_text
from ablations.analysis.tables import Column, Table, listed, markdown
from ablations.records.study_results import StudyResults
from ablations.study import Comparison

COLUMNS = ("comparison", "difference [95% interval]", "Holm p", "predicted", "found", "seeds")
OTHERS = COLUMNS[:-1]  # of controls and exploratory comparisons
LEGEND = (
    "*Difference*: {how} over {seeds}paired seeds: {what}. *Holm p*: exact sign-flip test, adjusted for the {count}. "
    "*Found*: {found}; `unresolved`: no difference was shown, which does not mean equal."
)
BY_P = "`above` or `below` if Holm p < .05"
BY_INTERVAL = "what the interval says, for with fewer than 8 seeds no Holm p is below .05"
SAYS = "has every comparison: reasons, unadjusted p, bootstrap intervals, seeds needed."
GUIDE = (
    "Differences are means over seeds of the paired difference, in the unit that is named; of noise they are factors. "
    "Beside the 95% t interval stands that of the BCa bootstrap, which is too narrow with few seeds (it covers about "
    ".89 of ten). p is that of the exact sign-flip test; Holm p adjusts it for the comparisons of its kind, and "
    'cannot be below {least}. "Seeds for power .8" is how many seeds a t test would need to see a true difference of '
    "the size found four times in five or, if more, those with which Holm p can be below .05 at all."
)
CSV = (
    *map(Column, ("kind", "comparison", "metric", "unit", "difference", "difference low", "difference high")),
    *map(Column, ("BCa low", "BCa high", "seeds", "p", "Holm p", "predicted", "because", "found")),
    Column("seeds for power .8"),
)
METRICS = "Their metrics and units are in tables/comparisons.csv."
ALPHA = 0.05
AS_MEASURED = "The outcomes are not those that the study's reading was written for, so it is left out."
NOTHING = "No planned comparison has finished cells on both sides."
NO_DIFFERENCE = "No significant difference"
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
    def expected(self) -> str:
        """What is found of a control if it is sound: of equal arms no difference."""
        return UNRESOLVED if self.comparison.predicted == "equal" else self.comparison.predicted

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


def shown(found: Sequence[Verdict], columns: Sequence[str] = COLUMNS) -> str:
    """A table for the page; without columns that are empty throughout."""
    rows = [
        [
            str(each.comparison),
            metric_text.difference(each.interval, each.metric),
            number(each.adjusted),
            each.comparison.predicted,
            each.found if each.p == each.p else "",
            str(len(each.differences)),
        ]
        for each in found
    ]
    equal = len({row[-1] for row in rows}) == 1  # the legend says how many seeds
    wanted = [name for name in columns if name != COLUMNS[-1] or not equal]
    kept = [i for i, name in enumerate(COLUMNS) if name in wanted and any(row[i] for row in rows)]
    return markdown([COLUMNS[i] for i in kept], [[row[i] for i in kept] for row in rows])


def legend(found: Sequence[Verdict], kind: str) -> str:
    """How to read :func:`shown`; ``kind`` names the comparisons, for example "planned comparisons"."""
    count = f"{len(found)} {kind}" if len(found) > 1 else f"one {kind.removesuffix('s')}"
    seeds = {len(each.differences) for each in found}
    own = f"{max(seeds)} " if len(seeds) == 1 else ""
    ratios = all(metric_text.unit(each.metric) == "factor" for each in found)
    how = "the first over the second, geometric mean" if ratios else "the first minus the second, mean"
    return LEGEND.format(
        how=how, seeds=own, what=_metrics(found), count=count, found=BY_INTERVAL if max(seeds) < ENOUGH_SEEDS else BY_P
    )


def others(found: Sequence[Verdict], known: str) -> str:
    """What the differences of controls and exploratory comparisons are of; empty if it is what the legend has named.

    Args:
        known: the metric that it has named.
    """
    metrics = {each.metric for each in found}
    return "" if metrics == {known} else METRICS if len(metrics) > 1 else f"Differences: {_metrics(found)}."


def _metrics(found: Sequence[Verdict]) -> str:
    named = [f"{metric_text.name(each.metric)} ({metric_text.unit(each.metric)})" for each in found]
    return "; ".join(dict.fromkeys(named))


def reasons(found: Sequence[Verdict]) -> list[str]:
    """What was predicted, and why, as a numbered list in the order of the table; empty if no reason is known."""
    if not any(each.comparison.because for each in found):
        return []
    said = [(each.comparison.predicted or "no prediction", each.comparison.because) for each in found]
    return [f"{n}. {what}{', because ' if why else ''}{why}." for n, (what, why) in enumerate(said, 1)]


def table(results: StudyResults) -> Table:
    """All comparisons, with all that is known of them."""
    study = results.study
    kinds = {"planned": study.comparisons, "control": study.controls, "exploratory": study.exploratory}
    rows, leasts = [], []
    for kind, wanted in kinds.items():
        if not (found := verdicts(results, wanted)):
            continue
        seeds = max(len(each.differences) for each in found)
        leasts.append(f"{number(min(1.0, len(found) * 2.0 ** (1 - seeds)))} ({kind}, {seeds} seeds)")
        least = math.ceil(1 + math.log2(len(found) / ALPHA))  # len * 2^(1 - n) is Holm's least p
        for each in found:
            bca = st.bca_interval(each.differences)
            needed = each.seeds_needed
            rows.append(
                [
                    kind,
                    str(each.comparison),
                    metric_text.name(each.metric),
                    metric_text.unit(each.metric),
                    *(metric_text.number(x, each.metric) for x in (*each.interval, bca.low, bca.high)),
                    len(each.differences),
                    number(each.p),
                    number(each.adjusted),
                    each.comparison.predicted,
                    each.comparison.because,
                    each.found if each.p == each.p else "",
                    None if needed is None else max(needed, least),
                ]
            )
    guide = GUIDE.format(least=listed(leasts))
    return Table("comparisons", "Details", SAYS, CSV, rows, guide)


def answer(results: StudyResults) -> str:
    """The study's reading or, where it has none for these outcomes, what the planned comparisons came to."""
    read = reading(results)
    if read and read != AS_MEASURED:
        return read
    found = verdicts(results, results.study.comparisons)
    if not found:
        return NOTHING
    said: dict[str, list[Verdict]] = {}
    for each in found:
        above, below = metric_text.directions(each.metric)
        title = {"above": above, "below": below, UNRESOLVED: NO_DIFFERENCE}[each.found]
        said.setdefault(title, []).append(each)
    order = sorted(said, key=NO_DIFFERENCE.__eq__)
    return " ".join([*([read] if read else []), *(_sentence(title, said[title]) for title in order)])


def _sentence(title: str, found: Sequence[Verdict]) -> str:
    """Outcomes of one kind, with their mean differences."""
    means = [metric_text.difference(each.interval._replace(low=math.nan, high=math.nan), each.metric) for each in found]
    against = {each.comparison.against for each in found}
    if len(against) > 1 or any(each.comparison.name for each in found):
        whole = [f"{each.comparison} ({mean})" for each, mean in zip(found, means, strict=True)]
        return f"{title}: {'; '.join(whole)}."
    than = f"{'from' if title == NO_DIFFERENCE else 'than'} {' + '.join(*against)}"
    names = [f"{' + '.join(each.comparison.arms)} ({mean})" for each, mean in zip(found, means, strict=True)]
    return f"{title} {than}: {'; '.join(names)}."


def reading(results: StudyResults) -> str:
    """The study's own words on its outcomes, if these are still the same; empty without any."""
    study = results.study
    if study.reading is None or results.smoke:
        return ""
    found = (*verdicts(results, study.comparisons), *verdicts(results, study.exploratory))
    outcomes = tuple(each.found for each in found)
    return study.reading.text if outcomes == study.reading.outcomes else AS_MEASURED


def controls(found: Sequence[Verdict]) -> str:
    """How many came out as they have to, and which did not."""
    failed = [str(each.comparison) for each in found if each.found != each.expected]
    sound = f"{len(found) - len(failed)} of {len(found)} controls came out as theory says"
    return f"{sound}, and these did not: {listed(failed)}." if failed else f"{sound}."


def number(p: float) -> str:
    """A p."""
    return "" if p != p else f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"
