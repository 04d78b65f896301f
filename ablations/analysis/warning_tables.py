"""Tables of what the warnings of :mod:`ablations.analysis.alarms` did; the one on the page is a practitioner's."""

from collections.abc import Sequence
from typing import Any

from ablations.analysis import alarms
from ablations.analysis.alarms import CALIBRATED, RULES_OF_THUMB, THUMB, Judged, Pair, Rule
from ablations.analysis.statistics import Interval
from ablations.analysis.tables import Column, Table, Value, markdown
from ablations.records.study_results import StudyResults
from lit_rl.functional.warning_rules import SIGNS

HEADING = "Warnings"
PERCENT: dict[str, Any] = {"unit": "%", "form": ".0f", "interval": True}
RATES = (
    Column("pairs of runs"),
    Column("detected", **PERCENT),
    Column("false alarms", **PERCENT),
    Column("right of two, one of which is faulty", "%", ".0f"),
    Column("harmed"),
    Column("of the harmed, warned in time", **PERCENT),
    Column("iterations from the warning to the harm", "", ".1f", True),
    Column("healthy runs that fell"),
)
GUIDE = (
    "A pair is a faulty run and a healthy one of the same seed. A run is harmed from the first validation on from "
    f"which its accuracy stays more than {100 * alarms.FALL:.0f} points below its best so far or below its twin's; it "
    "takes two validations. Runs that are never harmed are censored: they have no time to the harm. Detected: the "
    "share of faulty runs that drew the warning at all; false alarms: of their healthy twins. Right: detected / "
    "(detected + false alarms), the share of right warnings if every second run is faulty. Shares have exact binomial "
    f"intervals (Clopper and Pearson), times t intervals over runs. Limits: '{THUMB}' are those before any were "
    f"set on runs; '{THUMB}, all prompts' count prompts that are solved, too; those '{CALIBRATED}' are in limits.csv."
)
AREAS = (
    "The area under a metric's ROC curve: the chance that a faulty run looks worse than a healthy one. Of each run the "
    "worst value counts, up to the harm of the faulty one. Intervals are Newcombe's."
)
LIMITS_GUIDE = (
    f"A rule of thumb that flags at most {100 * alarms.MOST_FALSE:.0f}% of the healthy twins of its warning's faults, "
    "on other seeds, stays. For another one the limit is set: of those that flag so few, the one that detects most "
    "faulty runs before harm. No limit gets stricter, for runs of a small study vary less than others. The rates are "
    "those of this metric alone: on the seeds that set it, and on those that are reported."
)
LEGEND = (
    "*Detected*: of the faulty runs; *false alarms*: of their healthy twins. *Right*: of the warnings, if every second "
    "run is faulty. *In time*: of the runs that were harmed ({fall:.0f} points below their best or their twin), before "
    "it showed. {n} healthy runs were harmed."
)
PAGE = ("warning", "limits", "detected %", "false alarms %", "right %", "in time %", "iterations before")


def all_rules(results: StudyResults) -> list[Rule]:
    """The warnings as they are, as they would be over all prompts, and with limits set on other seeds."""
    found = [*alarms.rules(), *alarms.unconditional()]
    if other := alarms.for_limits(results):
        found += alarms.rules({**RULES_OF_THUMB, **alarms.calibrated(other)}, CALIBRATED)
    return sorted(found, key=lambda rule: list(SIGNS).index(rule.warning))


def meant(found: Sequence[Pair], warning: str) -> list[Pair]:
    """The pairs whose fault the warning should tell of."""
    return [pair for pair in found if pair.fault.warning == warning]


def page(results: StudyResults) -> list[str]:
    """For the report's page: a row a warning and its limits."""
    found = alarms.of(results)
    shown = [rule for rule in all_rules(results) if rule.title in (THUMB, CALIBRATED)]
    judged = [(rule, alarms.judged(rule, meant(found, rule.warning))) for rule in shown]
    rows = [[rule.warning, rule.title, *_shown(each)] for rule, each in judged if each.pairs]
    if not rows:
        return []
    fallen = {(pair.twin.arm, pair.twin.seed) for pair in found if pair.twin_falls}
    legend = LEGEND.format(fall=100 * alarms.FALL, n=len(fallen) or "No")
    return ["## When it warns", markdown(PAGE, rows), legend]


def tables(results: StudyResults) -> list[Table]:
    """Of warnings by fault, of areas under ROC curves, and of limits; none without faults."""
    found = alarms.of(results)
    if not found:
        return []
    keys = sorted({(pair.fault.name, results.study.arm(pair.fault.arm).task) for pair in found})
    by = {key: [p for p in found if (p.fault.name, results.study.arm(p.fault.arm).task) == key] for key in keys}
    warned: list[list[Value]] = []
    areas: list[list[Value]] = []
    for (fault, task), own in by.items():
        for rule in all_rules(results):
            if (each := alarms.judged(rule, own)).pairs:
                intended = "yes" if own[0].fault.warning == rule.warning else "no"
                warned.append([fault, task, rule.warning, intended, rule.title, *_numbers(each)])
        for metric in (*RULES_OF_THUMB, *alarms.ALL.values()):
            bad, _ = alarms.extremes(metric, own)
            if bad:
                areas.append([fault, task, metric, len(bad), alarms.area(metric, own)])
    first = (Column("fault"), Column("task"))
    says = "has every warning on every fault."
    return [
        Table(
            "warnings",
            HEADING,
            says,
            (*first, Column("warning"), Column("meant"), Column("limits"), *RATES),
            warned,
            GUIDE,
        ),
        Table(
            "roc",
            HEADING,
            "has the area under the ROC curve of each metric.",
            (*first, Column("metric"), Column("pairs of runs"), Column("area", "", ".3f", True)),
            areas,
            AREAS,
        ),
        _limits(results, found),
    ]


def _limits(results: StudyResults, found: Sequence[Pair]) -> Table:
    other = alarms.for_limits(results)
    limits = alarms.calibrated(other)
    rows: list[list[Value]] = []
    for warning, metrics in SIGNS.items():
        for metric in metrics:
            if metric in limits:
                alone = Rule("", "", {metric: limits[metric]})
                rates = [alarms.judged(alone, meant(pairs, warning)) for pairs in (other, found)]
                shares = [share for each in rates for share in (_percent(each.detected), _percent(each.false))]
                rows.append([metric, warning, RULES_OF_THUMB[metric], limits[metric], *shares])
    columns = (
        *(Column("metric"), Column("warning"), Column("rule of thumb", "", ".3g"), Column("limit set", "", ".3g")),
        *(Column("detected, seeds that set it", **PERCENT), Column("false alarms, seeds that set it", **PERCENT)),
        *(Column("detected", **PERCENT), Column("false alarms", **PERCENT)),
    )
    return Table(
        "limits", HEADING, "has the limits that other seeds set, beside rules of thumb.", columns, rows, LIMITS_GUIDE
    )


def _numbers(each: Judged) -> list[Value]:
    return [
        *(each.pairs, _percent(each.detected), _percent(each.false), 100 * each.precision),
        *(each.harmed, _percent(each.in_time), each.lead, each.twins_fallen),
    ]


def _shown(each: Judged) -> list[str]:
    """As the page has it."""
    rates = Column("", **PERCENT)
    detected, false, in_time = (rates.show(_percent(x)) for x in (each.detected, each.false, each.in_time))
    right = f"{100 * each.precision:.0f}" if each.precision == each.precision else ""
    return [detected, false, right, in_time, Column("", "", ".1f", True).show(each.lead)]


def _percent(x: Interval) -> Interval:
    return Interval(*(100 * y for y in x))
