"""The map of estimators: the gradient noise of each at every cost, a point a task."""

from math import log
from statistics import fmean

from matplotlib.figure import Figure

from ablations.analysis import gradient_noise
from ablations.analysis.statistics import Interval
from ablations.metric_names import NOISE, TOKEN
from ablations.records.study_results import StudyResults
from ablations.report.figure_style import COLOURS, WIDTH, legend, plain_logarithms

CAPTION = (
    "Gradient noise at the same frozen policies relative to {baseline}'s, when as many trained responses, generated "
    "tokens or seconds are spent, a point a task. Left of the line an estimator has less noise. Rows go from the least "
    "noise per token to the most, in the mean over tasks. Bars: 95% t intervals over seeds."
)
SPREAD = 0.7  # of a row's height that its points take


def mapped(results: StudyResults) -> bool:
    """Whether the study asks for noise at frozen policies, and some was measured."""
    study = results.study
    return study.primary_metric.startswith(NOISE) and not study.kappas and bool(gradient_noise.arms(results))


def draw(results: StudyResults) -> tuple[Figure, str]:
    """The figure and its caption: a panel a cost, a row an estimator, a colour a task."""
    groups = gradient_noise.groups(results)
    rows = _rows(results)
    figure = Figure(figsize=(WIDTH, 1.1 + 0.42 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(gradient_noise.COSTS), sharex=True, sharey=True)
    for ax, cost in zip(panels, gradient_noise.COSTS, strict=True):
        for n, (first, arms) in enumerate(groups.items()):
            task, colour = results.study.arm(first).task, COLOURS[n % len(COLOURS)]
            aside = SPREAD * ((n + 0.5) / len(groups) - 0.5)
            for arm in arms:
                if arm != first:
                    y, ratio = rows.index(results.label(arm)) + aside, relative(results, arm, cost)
                    ax.plot([ratio.low, ratio.high], [y, y], color=colour, linewidth=1)
                    ax.plot(ratio.mean, y, "o", color=colour, markersize=3, label=task)
        for y in range(0, len(rows), 2):
            ax.axhspan(y - 0.5, y + 0.5, color="#F2F2F2", zorder=0)
        ax.axvline(1, color="black", linewidth=0.8, zorder=1)
        ax.set_xlabel(f"noise per {'generated ' if cost == TOKEN else ''}{cost}")
        plain_logarithms(ax, "x")
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    legend(figure, *panels)
    return figure, CAPTION.format(baseline=gradient_noise.baselines(results))


def relative(results: StudyResults, arm: str, cost: str) -> Interval:
    """An arm's noise at a cost, as a factor of that of the arm it is compared with."""
    own, other = (gradient_noise.measured(results, each) for each in (arm, gradient_noise.baseline(results, arm)))
    return gradient_noise.relative(own, other, cost)


def _rows(results: StudyResults) -> list[str]:
    """The estimators, from the least noise per token to the most; without what they are compared with."""
    found: dict[str, list[float]] = {}
    for first, arms in gradient_noise.groups(results).items():
        for arm in arms:
            if arm != first:
                found.setdefault(results.label(arm), []).append(log(relative(results, arm, TOKEN).mean))
    return sorted(found, key=lambda label: fmean(found[label]))
