"""Figures of the warnings: how often they are right and how early they come, and their ROC curves."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.analysis import alarms
from ablations.analysis.alarms import CALIBRATED, RULES_OF_THUMB, THUMB, Pair
from ablations.analysis.statistics import Interval
from ablations.analysis.warning_tables import all_rules, meant
from ablations.records.study_results import StudyResults
from ablations.report.figure_style import COLOURS, WIDTH
from lit_rl.functional.warning_rules import SIGNS, badness

ANSWER = (
    "Runs that draw the warning: faulty ones (filled) and healthy twins (hollow). Right: iterations from the warning "
    "to the harm; small points are runs. Bars: 95% intervals."
)
ROC = "Detection against false alarms over all limits of a metric; area under the curve. Crosses: rules of thumb."
SHIFT = 0.2  # of a row, from one bar to the next


def answer(results: StudyResults) -> Figure:
    found = alarms.of(results)
    rows = [(fault, results.study.arm(fault.arm).task) for fault in results.study.faults]
    figure = Figure(figsize=(WIDTH, 1.4 + 0.44 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.6, 1))
    most = 1.0
    kinds = dict.fromkeys(rule.title for rule in all_rules(results) if rule.title in (THUMB, CALIBRATED))
    for y, (fault, _) in enumerate(rows):
        own = [pair for pair in found if pair.fault == fault]
        for n, (title, colour) in enumerate(zip(kinds, COLOURS, strict=False)):
            rule = next(r for r in all_rules(results) if (r.warning, r.title) == (fault.warning, title))
            each, at = alarms.judged(rule, own), y + SHIFT * (2 * n - len(kinds) + 0.5)
            for m, (share, face) in enumerate(((each.detected, colour), (each.false, "white"))):
                _bar(left, at + m * SHIFT, Interval(*(100 * x for x in share)), colour, face)
            right.plot(each.leads, [at + SHIFT] * len(each.leads), ".", color=colour, markersize=2.5, alpha=0.5)
            _bar(right, at, each.lead, colour, colour)
            most = max([most, *each.leads])
    left.set_yticks(range(len(rows)), [f"{fault.warning}:\n{fault.name}, {task}" for fault, task in rows], fontsize=6.5)
    left.set(ylim=(len(rows) - 0.5, -0.5), xlim=(-3, 103), xlabel="runs that draw the warning (%)")
    right.set(xlim=(-0.03 * most, 1.03 * most), xlabel="iterations before the harm")
    for ax in (left, right):
        ax.grid(axis="x", alpha=0.2)
    for title, colour in zip(kinds, COLOURS, strict=False):
        limits = title if title == THUMB else f"limits {title}"
        left.plot([], [], "o", color=colour, markersize=4, label=f"{limits}, faulty")
        left.plot([], [], "o", color=colour, markersize=4, markerfacecolor="white", label=f"{limits}, healthy")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def roc(results: StudyResults) -> Figure:
    """A panel a warning, with a curve for each of its metrics."""
    found = alarms.of(results)
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    for ax, (warning, metrics) in zip(figure.subplots(2, 2, sharex=True, sharey=True).flat, SIGNS.items(), strict=True):
        own = meant(found, warning)
        for metric, colour in zip(metrics, COLOURS, strict=False):
            _curve(ax, metric, own, colour)
        ax.plot([0, 100], [0, 100], color="grey", linewidth=0.6, linestyle=":")
        ax.set(title=warning, xlabel="false alarms (%)", ylabel="detected (%)", xlim=(-3, 103), ylim=(-3, 103))
        if ax.get_legend_handles_labels()[1]:
            ax.legend(fontsize=6.5, loc="lower right")
    return figure


def _curve(ax: Axes, metric: str, found: list[Pair], colour: str) -> None:
    bad, good = alarms.extremes(metric, found)
    if not bad:
        return
    x, y = zip(*alarms.roc(bad, good), strict=True)
    area = alarms.area(metric, found)
    label = f"{metric} ({area.mean:.2f} [{area.low:.2f}, {area.high:.2f}])"
    ax.plot([100 * v for v in x], [100 * v for v in y], color=colour, linewidth=1.3, label=label)
    limit = badness(metric, RULES_OF_THUMB[metric])
    here = [100 * sum(v > limit for v in values) / len(values) for values in (good, bad)]
    ax.plot(*here, "x", color=colour, markersize=6)


def _bar(ax: Axes, y: float, interval: Interval, colour: str, face: str) -> None:
    if interval.mean == interval.mean:
        ax.plot([interval.low, interval.high], [y, y], linewidth=1, color=colour)
        ax.plot(interval.mean, y, "o", markersize=4, markerfacecolor=face, color=colour, clip_on=False)
