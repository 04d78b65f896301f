"""What rewards for tokens bring, and what a stronger scalar brings, by task and critic: enumerated, and learned."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from ablations.analysis.exact_table import HEADING
from ablations.analysis.statistics import Interval, mean_interval, paired
from ablations.analysis.tables import Column, Table, Value
from ablations.records.study_results import StudyResults
from ablations.studies.token_information import (
    ABC,
    ABC_PLACEMENT,
    CAUSAL,
    EFFECTS,
    IMPLIED,
    LAST,
    OWN,
    RTO,
    RTO_SCALAR,
    RTO_TOKENS,
    SAMPLES,
    SCALAR,
    SCORED,
    STRONGER,
    STUDY,
    TOKEN_INFORMATION,
)
from ablations.study import Comparison

# scalar and placement of an exact row, and what it is compared with
SIDES = {
    TOKEN_INFORMATION: ((OWN, CAUSAL), (OWN, LAST)),
    SCALAR: ((STRONGER, LAST), (SCORED, LAST)),
    RTO_TOKENS: ((IMPLIED, RTO), (IMPLIED, LAST)),
    RTO_SCALAR: ((IMPLIED, LAST), (OWN, LAST)),
    ABC_PLACEMENT: ((OWN, ABC), (OWN, LAST)),
}
SAYS = "has what token information and a stronger scalar bring, by task and critic."
GUIDE = (
    "*Token information*: the causal placement against the last token, for the task's own reward; on word problems the "
    "attention's. *Stronger scalar*: the stronger reward model against the weaker one, both paid at the last token. "
    "*RTO's tokens*: RTO against itself with everything paid at the last token; *RTO's scalar*: the latter against the "
    "task's own reward paid there, and so is *ABC's placement*. *Samples*, enumerated: how many times as many bring "
    "equal progress, tr Σ over the squared part of the mean along the gradient of the task's reward; below 1 is "
    "better. *Points*, learned: the difference in sampled validation accuracy averaged over the budget, with its 95% t "
    "interval over seeds, unadjusted."
)
ACCURACY = "pair accuracy"


def enumerated(results: StudyResults) -> dict[str, dict[str, float]]:
    """Factors of the samples for equal progress, by effect and setting (``KeyToken, no critic``)."""
    if results.study.name != STUDY.name:
        return {}
    rows = {
        (row["task"], row["critic"], row["scalar"], row["placement"]): float(row[SAMPLES])
        for row in results.exact
        if row["weighting"] == "to_go"
    }
    settings = dict.fromkeys(key[:2] for key in rows)
    found = {
        name: {
            ", ".join(each): rows[*each, *one] / rows[*each, *other]
            for each in settings
            if {(*each, *one), (*each, *other)} <= set(rows)
        }
        for name, (one, other) in SIDES.items()
    }
    return {name: factors for name, factors in found.items() if factors}


def learned(results: StudyResults) -> dict[str, dict[str, Interval]]:
    """Differences in the primary metric, in points, by effect and setting: of those that have cells on both sides."""
    if results.study.name != STUDY.name:
        return {}
    found = {
        name: {setting: _points(results, each) for setting, each in settings.items() if _finished(results, each)}
        for name, settings in EFFECTS.items()
    }
    return {name: settings for name, settings in found.items() if settings}


def _finished(results: StudyResults, comparison: Comparison) -> bool:
    return all(results.of(arm) for arm in comparison.arms + comparison.against)


def _points(results: StudyResults, comparison: Comparison) -> Interval:
    metric = results.study.primary_metric
    one, other = (results.mean_by_seed(arms, metric) for arms in (comparison.arms, comparison.against))
    return mean_interval([100 * x for x in paired(one, other)])


def table(results: StudyResults) -> Table:
    """A row a setting; without rows where the study is another."""
    exact, points = enumerated(results), learned(results)
    by_effect: list[Mapping[str, Any]] = [*exact.values(), *points.values()]
    settings = dict.fromkeys(each for found in by_effect for each in found)
    columns = [
        Column("setting"),
        *(Column(f"{name}, samples", "x", ".2f") for name in SIDES),
        *(Column(name, "points", ".1f", True) for name in SIDES),
    ]
    rows: list[list[Value]] = [
        [
            setting,
            *(exact.get(name, {}).get(setting) for name in SIDES),
            *(points.get(name, {}).get(setting) for name in SIDES),
        ]
        for setting in settings
    ]
    return Table("effects", HEADING, SAYS, columns, rows, GUIDE)


def sentence(results: StudyResults) -> str:
    """The enumerated effects, means over tasks by critic; empty without any."""
    found = enumerated(results)
    if not found:
        return ""
    lead = []
    if {RTO_TOKENS, RTO_SCALAR} <= set(found):
        tokens, scalar = found[RTO_TOKENS], found[RTO_SCALAR]
        more = sum(scalar[each] < tokens[each] for each in tokens)
        lead.append(f"Enumerated, RTO's scalar saves more samples than its tokens in {more} of {len(tokens)} settings.")
    if ABC_PLACEMENT in found:
        costs = sum(factor > 1 for factor in found[ABC_PLACEMENT].values())
        lead.append(f"ABC's placement costs samples in {costs} of {len(found[ABC_PLACEMENT])}.")
    critics = dict.fromkeys(each.partition(", ")[2] for factors in found.values() for each in factors)
    said = []
    for name, settings in found.items():
        means = [fmean([x for each, x in settings.items() if each.partition(", ")[2] == critic]) for critic in critics]
        said.append(f"{name} {', '.join(f'{mean:.2f}' for mean in means)}")
    accuracies = {
        scalar: [float(row[ACCURACY]) for row in results.exact if row["scalar"] == scalar]
        for scalar in (SCORED, STRONGER)
    }
    ranges = [f"{100 * min(each):.0f} to {100 * max(each):.0f} %" for each in accuracies.values() if each]
    models = f" The reward models rank {' and '.join(ranges)} of pairs as the task does." if len(ranges) == 2 else ""
    factors = f"Samples for equal progress as a factor ({', '.join(critics)}; below 1 is better): {'; '.join(said)}."
    return " ".join([*lead, factors]) + models
