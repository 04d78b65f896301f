"""What a study's planned comparisons and controls came to, in words and tables."""

import math
from collections.abc import Mapping, Sequence

import ablations.analysis.statistics as st
from ablations.analysis import metric_text
from ablations.analysis.tables import Column, Table, listed, markdown
from ablations.analysis.verdicts import ALPHA, ENOUGH_SEEDS, EQUAL, NOT_ABOVE, UNRESOLVED, Verdict, verdicts
from ablations.metric_units import FACTOR, unit
from ablations.records.study_results import StudyResults
from ablations.study import Comparison, Study

MATTERS, SEEDS = "matters", "seeds"
COLUMNS = ("comparison", "difference [95% interval]", MATTERS, "Holm p", "predicted", "found", SEEDS)
OTHERS = COLUMNS[:-1]  # of controls and exploratory comparisons
LEGEND = (
    "*Difference*: {how} over {seeds}paired seeds: {what}. *Holm p*: exact sign-flip test, adjusted for the {count}. "
    "*Found*: `equal`: shown to differ by less than what matters{matters} (two one-sided t tests, each at .05, "
    "unadjusted); otherwise {found}; `unresolved`: neither was shown."
)
BY_P = "`above` or `below` if Holm p < .05"
BY_INTERVAL = "`above` or `below` if the interval leaves out 0 (fewer than 8 seeds are too few for Holm p)"
SAYS = "has every comparison: reasons, all p, bootstrap intervals, seeds needed."
GUIDE = (
    "Differences are means over seeds of the paired difference, in the unit that is named; of noise they are factors. "
    "Beside the 95% t interval stands that of the BCa bootstrap, which is too narrow with few seeds (it covers about "
    ".89 of ten). p is that of the exact sign-flip test; Holm p adjusts it for the comparisons of its kind, and "
    'cannot be below {least}. "Matters" is the smallest difference that would matter. p equivalence is the larger p of '
    "two one-sided t tests that the difference is smaller than that, upwards and downwards; where the first is "
    "predicted to be not above, p not above is that of the test upwards alone. Neither is adjusted. Where p "
    "equivalence is below .05, `equal` is found, even if Holm p shows a difference: it is too small to matter. "
    '"Seeds for power .8" is how many seeds a t test would need to see a true difference of '
    "the size found four times in five or, if more, those with which Holm p can be below .05 at all."
)
CSV = (
    *map(Column, ("kind", "comparison", "metric", "unit", "difference", "difference low", "difference high")),
    *map(Column, ("BCa low", "BCa high", MATTERS, SEEDS, "p", "Holm p", "p equivalence", "p not above")),
    *map(Column, ("predicted", "because", "found")),
    Column("seeds for power .8"),
)
ONE_SIDED = "`not above`: a one-sided t test at .05 rules out a rise that matters."
METRICS = "Their metrics and units are in tables/comparisons.csv."
AS_MEASURED = "The outcomes are not those that the study's reading was written for, so it is left out."
NOTHING = "No planned comparison has finished cells on both sides."
NOT_DIFFERENT, NOT_RESOLVED = "No difference that matters", "Unresolved"


def matters(found: Sequence[Verdict]) -> str:
    """The smallest difference that matters, if it is the same for all; otherwise empty."""
    texts = {metric_text.matters(each.matters, each.metric) for each in found}
    return texts.pop() if len(texts) == 1 else ""


def shown(
    found: Sequence[Verdict],
    columns: Sequence[str] = COLUMNS,
    known: str = "",
    beside: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """A table for the page; without columns that are empty throughout.

    Args:
        known: the smallest difference that matters, as the page has said it; its column is left out if all have it.
        beside: further columns by heading, which follow the difference.
    """
    rows = [
        [
            str(each.comparison),
            metric_text.difference(each.interval, each.metric),
            metric_text.matters(each.matters, each.metric),
            number(each.adjusted),
            each.comparison.predicted,
            each.found if each.p == each.p else "",
            str(len(each.differences)),
        ]
        for each in found
    ]
    equal = len({row[-1] for row in rows}) == 1  # the legend says how many seeds
    told = {*([SEEDS] if equal else []), *([MATTERS] if known and known == matters(found) else [])}
    wanted = [name for name in columns if name not in told]
    kept = [i for i, name in enumerate(COLUMNS) if name in wanted and any(row[i] for row in rows)]
    lines = [[row[i] for i in kept] for row in ([*COLUMNS], *rows)]
    behind = 1 + lines[0].index(COLUMNS[1])
    for heading, texts in (beside or {}).items():
        for line, text in zip(lines, (heading, *texts), strict=True):
            line.insert(behind, text)
        behind += 1
    return markdown(lines[0], lines[1:])


def legend(found: Sequence[Verdict], kind: str) -> str:
    """How to read :func:`shown`; ``kind`` names the comparisons, for example "planned comparisons"."""
    count = f"{len(found)} {kind}" if len(found) > 1 else f"one {kind.removesuffix('s')}"
    seeds = {len(each.differences) for each in found}
    own = f"{max(seeds)} " if len(seeds) == 1 else ""
    ratios = {unit(each.metric) == FACTOR for each in found}
    least = matters(found)
    how = "the first minus the second, mean" if False in ratios else "the first over the second, geometric mean"
    how += ", or of factors the first over the second, geometric mean," * (len(ratios) > 1)
    return LEGEND.format(
        how=how,
        seeds=own,
        what=_metrics(found),
        count=count,
        matters=f", {least}" if least else "",
        found=BY_INTERVAL if max(seeds) < ENOUGH_SEEDS else BY_P,
    )


def others(found: Sequence[Verdict], known: str) -> str:
    """What the differences of controls and exploratory comparisons are of; empty if it is what the legend has named.

    Args:
        known: the metric that it has named.
    """
    metrics = {each.metric for each in found}
    return "" if metrics == {known} else METRICS if len(metrics) > 1 else f"Differences: {_metrics(found)}."


def _metrics(found: Sequence[Verdict]) -> str:
    named = [f"{metric_text.name(each.metric)} ({unit(each.metric)})" for each in found]
    return "; ".join(dict.fromkeys(named))


def reasons(found: Sequence[Verdict]) -> list[str]:
    """What was predicted, and why, as a numbered list in the order of the table; empty if no reason is known."""
    if not any(each.comparison.because for each in found):
        return []
    return _numbered([_reason(each.comparison) for each in found])


def announced(study: Study) -> list[str]:
    """The planned comparisons with what was predicted, and why, as a numbered list: before there are cells."""
    return _numbered([f"{each}: {_reason(each)}" for each in study.comparisons])


def _reason(comparison: Comparison) -> str:
    why = comparison.because
    return f"{comparison.predicted or 'no prediction'}{', because ' if why else ''}{why}"


def _numbered(texts: Sequence[str]) -> list[str]:
    return [f"{n}. {text}." for n, text in enumerate(texts, 1)]


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
                    unit(each.metric),
                    *(metric_text.number(x, each.metric) for x in (*each.interval, bca.low, bca.high)),
                    f"{each.matters:g}",
                    len(each.differences),
                    *map(number, (each.p, each.adjusted, each.p_equivalence)),
                    number(each.p_not_above) if each.comparison.predicted == NOT_ABOVE else "",
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
        titles = {"above": above, "below": below, NOT_ABOVE: f"Not {above[0].lower()}{above[1:]}"}
        title = (titles | {EQUAL: NOT_DIFFERENT, UNRESOLVED: NOT_RESOLVED})[each.found]
        said.setdefault(title, []).append(each)
    last = (NOT_DIFFERENT, NOT_RESOLVED)
    order = sorted(said, key=lambda title: last.index(title) if title in last else -1)
    return " ".join([*([read] if read else []), *(_sentence(title, said[title]) for title in order)])


def _sentence(title: str, found: Sequence[Verdict]) -> str:
    """Outcomes of one kind, with their mean differences."""
    means = [metric_text.difference(each.interval._replace(low=math.nan, high=math.nan), each.metric) for each in found]
    against = {each.comparison.against for each in found}
    if len(against) > 1 or any(each.comparison.name for each in found):
        whole = [f"{each.comparison} ({mean})" for each, mean in zip(found, means, strict=True)]
        return f"{title}: {'; '.join(whole)}."
    link = {NOT_DIFFERENT: "from", NOT_RESOLVED: "against"}.get(title, "than")
    names = [f"{' + '.join(each.comparison.arms)} ({mean})" for each, mean in zip(found, means, strict=True)]
    return f"{title} {link} {' + '.join(*against)}: {'; '.join(names)}."


def reading(results: StudyResults) -> str:
    """The study's own words on its outcomes, if these are still the same; empty without any."""
    study = results.study
    if study.reading is None or results.smoke:
        return ""
    found = (*verdicts(results, study.comparisons), *verdicts(results, study.exploratory))
    outcomes = tuple(each.found for each in found)
    return study.reading.text if outcomes == study.reading.outcomes else AS_MEASURED


def controls(found: Sequence[Verdict]) -> str:
    """How many came out as they have to, which seeds are too few to tell of, and which did not."""
    said: dict[bool | None, list[str]] = {True: [], None: [], False: []}
    for each in found:
        said[each.as_predicted].append(f"*{each.comparison}*")
    parts = [f"{len(said[True])} of {len(found)} controls came out as predicted"]
    others = (("not resolved", said[None]), ("against the prediction", said[False]))
    text = "; ".join([*parts, *(f"{how}: {listed(names)}" for how, names in others if names)]) + "."
    return f"{text} {ONE_SIDED}" if any(each.found == NOT_ABOVE for each in found) else text


def number(p: float) -> str:
    """A p."""
    return "" if p != p else f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"
