"""The one figure on a report's first page: what answers the study's question at a glance."""

from collections.abc import Sequence
from statistics import fmean
from textwrap import fill
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.analysis import gradient_noise, metric_text
from ablations.analysis.arm_table import CURVE, timed
from ablations.analysis.statistics import Interval, mean_interval
from ablations.analysis.verdicts import UNRESOLVED, Verdict, verdicts
from ablations.metric_names import NOISE, SECONDS, TOKEN
from ablations.metric_units import neutral, scaled, unit
from ablations.records.study_results import TEST, StudyResults
from ablations.report import effect_figure, noise_map
from ablations.report.figure_style import WIDTH, colours, dashes, frame, plain_logarithms

ANSWER = "answer.png"
MOST_LINES = 6
LINE = 4.0  # percent of an axis' height that a label at the end of a line takes
CURVES = "{metric} against {axis}: means over seeds with 95% t intervals{more}."
NOISES = (
    "Gradient noise per generated token relative to {baseline} on the same frozen policies. Left of the line an arm "
    "has less noise for the same number of generated tokens. Bars: 95% intervals."
)
FOREST = (
    "Planned comparisons: difference in {metric}. Bars: 95% t intervals. Hollow points are unresolved. Grey: "
    "differences too small to matter."
)
ENDS = "Sampled test accuracy at the end of training: mean over seeds with its 95% t interval. Dashed: the start."


class Line(NamedTuple):
    """A label at the end of a line."""

    y: float
    text: str
    colour: str


def draw(results: StudyResults) -> tuple[Figure, str] | None:
    """The figure and its caption; None where nothing was measured that it could show."""
    if results.study.kappas and results.study.primary_metric.startswith(NOISE):
        return (
            (_noise(results), NOISES.format(baseline=gradient_noise.baselines(results))) if _of_noise(results) else None
        )
    if noise_map.mapped(results):
        return noise_map.draw(results)
    if (effects := effect_figure.draw(results)) is not None:
        return effects
    lines = _lines(results)
    if lines and max(map(len, lines.values())) <= MOST_LINES:
        axis = "seconds of training" if timed(results) else "generated tokens"
        more = (
            "; the dashed line generates nothing"
            if any(not _grows(results, arm) for arms in lines.values() for arm in arms)
            else ""
        )
        return _curves(results, lines), CURVES.format(metric="Sampled validation accuracy", axis=axis, more=more)
    found = _planned(results)
    if any(each.comparison.predicted for each in found):
        return _forest(found), FOREST.format(metric=metric_text.name(found[0].metric))
    return (_ends(results), ENDS) if any(results.by_seed(arm, TEST[2]) for arm in results.arms) else None


def _planned(results: StudyResults) -> list[Verdict]:
    """The comparisons of the primary metric."""
    found = verdicts(results, results.study.comparisons)
    return [each for each in found if each.metric == results.study.primary_metric]


def _lines(results: StudyResults) -> dict[str, list[str]]:
    """The arms of the planned comparisons by task, and with them those of the exploratory ones, if there is room; none
    where comparisons are means over tasks."""
    study = results.study
    for wanted in ((*study.comparisons, *study.exploratory), study.comparisons):
        if any(len(each.arms) > 1 for each in wanted):
            return {}
        named = {arm for each in wanted for arm in each.arms + each.against}
        found: dict[str, list[str]] = {}
        for arm in results.arms:
            if (arm in named or not wanted) and any(cell.curves.get(CURVE) for cell in results.of(arm)):
                found.setdefault(study.arm(arm).task, []).append(arm)
        if found and max(map(len, found.values())) <= MOST_LINES:
            break
    return found


def _grows(results: StudyResults, arm: str) -> bool:
    """Whether the arm goes along the axis: it generates tokens."""
    return any(cell.generated for cell in results.of(arm))


def _curves(results: StudyResults, lines: dict[str, list[str]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    panels = figure.subplots(1, len(lines), squeeze=False, sharey=True)[0]
    axis, scale = (SECONDS, 1) if timed(results) else ("tokens/generated", 1000)
    for ax, (task, arms) in zip(panels, lines.items(), strict=True):
        ends, right = [], 0.0
        for arm in arms:
            least = len(results.of(arm)) / 2  # where budgets end runs, few seeds go furthest
            seen = {step: values for step, values in results.curve(arm, CURVE).items() if len(values) >= least}
            curve = {step: mean_interval([100 * v for v in values]) for step, values in seen.items()}
            colour, name = colours(results)[arm], results.label(arm)
            if not _grows(results, arm):
                end = curve[max(curve)]
                ax.axhline(end.mean, color=colour, linestyle="--", linewidth=1)
                ends.append(Line(end.mean, name, colour))
                continue
            places = {0: 0.0} | {step: fmean(values) / scale for step, values in results.curve(arm, axis).items()}
            x = [places[step] for step in curve]
            y = list(curve.values())
            ax.plot(x, [each.mean for each in y], color=colour, linestyle=dashes(results, arm), linewidth=1.6)
            ax.fill_between(x, [e.low for e in y], [e.high for e in y], color=colour, alpha=0.1, linewidth=0)
            ends.append(Line(y[-1].mean, name, colour))
            right = max(right, x[-1])
        ax.set(xlabel="seconds of training" if timed(results) else "generated tokens (thousands)", title=task)
        ax.set_xlim(0, right or None)
        ax.grid(axis="y", alpha=0.3)
        _label(ax, ends)
    means = [
        100 * fmean(values) for arms in lines.values() for arm in arms for values in results.curve(arm, CURVE).values()
    ]
    low, high = frame(means, 0, 102)
    panels[0].set(ylabel="sampled validation accuracy (%)", ylim=(low, high))
    for ax in panels:
        _spread(ax, high - low)
    return figure


def _label(ax: Axes, ends: Sequence[Line]) -> None:
    for end in ends:
        ax.annotate(
            end.text,
            (1, end.y),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            color=end.colour,
            va="center",
            fontsize=8,
        )


def _spread(ax: Axes, height: float) -> None:
    """Moves labels apart that would cover each other, as little as need be."""
    labels = sorted(ax.texts, key=lambda text: text.xy[1])  # type: ignore[attr-defined]
    least = height * LINE * 1.6 / 100
    places = [text.xy[1] for text in labels]  # type: ignore[attr-defined]
    for _ in range(200):
        for i in range(len(places) - 1):
            if (close := least - (places[i + 1] - places[i])) > 0:
                places[i] -= close / 2
                places[i + 1] += close / 2
    high = ax.get_ylim()[1]
    above = max(0.0, max(places, default=high) - high)
    for text, y in zip(labels, places, strict=True):
        text.xy = (1, y - above)  # type: ignore[attr-defined]


def _of_noise(results: StudyResults) -> list[str]:
    """Labels of the arms whose noise per generated token is compared, in the order of the comparisons."""
    planned = [each for each in results.study.comparisons if results.study.metric_of(each) == f"{NOISE}{TOKEN}"]
    measured = gradient_noise.arms(results)
    return list(dict.fromkeys(results.label(each.arms[0]) for each in planned if each.arms[0] in measured))[:4]


def _noise(results: StudyResults) -> Figure:
    """A panel an arm with a row a task or, of one task, a row an arm."""
    labels, groups = _of_noise(results), gradient_noise.groups(results)
    found: dict[tuple[str, str], tuple[str, Interval]] = {}
    for first, arms in groups.items():
        base = gradient_noise.measured(results, first)
        for arm in arms:
            if results.label(arm) in labels:
                ratio = gradient_noise.relative(gradient_noise.measured(results, arm), base, TOKEN)
                found[results.label(arm), results.study.arm(arm).task] = arm, ratio
    compared = {results.study.arm(arm).task for each in results.study.comparisons for arm in each.arms}
    tasks = [task for task in dict.fromkeys(task for _, task in found) if task in compared]
    single = len(tasks) == 1
    names, columns = (labels, 1) if single else (tasks, len(labels))
    figure = Figure(figsize=(WIDTH, 0.9 + 0.32 * len(names)), layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False, sharex=True, sharey=True)[0]
    for (name, task), (arm, ratio) in found.items():
        if task not in tasks:
            continue
        ax, y = (panels[0], labels.index(name)) if single else (panels[labels.index(name)], tasks.index(task))
        colour = colours(results)[arm]
        ax.plot([ratio.low, ratio.high], [y, y], color=colour, linewidth=2)
        ax.plot(ratio.mean, y, "o", color=colour, markersize=5)
        ax.annotate(
            f"{ratio.mean:.2f}", (ratio.mean, y), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=7
        )
        if not single:
            ax.set_title(fill(name, 15), fontsize=8, color=colour)
    baseline = gradient_noise.baselines(results)
    for ax in panels:
        ax.axvline(1, color="black", linewidth=0.8, zorder=1)
        ax.margins(x=0.12)
        plain_logarithms(ax, "x")
        ax.grid(axis="x", alpha=0.2)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.7)
    figure.supxlabel(f"noise per generated token, relative to {baseline} (less than 1: less noise)", fontsize=8)
    return figure


def _forest(found: Sequence[Verdict]) -> Figure:
    figure = Figure(figsize=(WIDTH, 0.9 + 0.36 * len(found)), layout="constrained")
    ax, said = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    metric = found[0].metric
    said.axis("off")
    for x, text in ((0, "predicted"), (0.5, "found")):
        said.text(x, -0.9, text, va="center", fontweight="bold")
    for y, each in enumerate(found):
        mean, low, high = (scaled(x, metric) for x in each.interval)
        sure = each.found != UNRESOLVED
        colour = "#0072B2" if sure else "#777777"
        least, most = (scaled(sign * each.margin, metric) for sign in (-1, 1))
        ax.barh(y, most - least, height=1, left=least, color="#DDDDDD", zorder=0)  # what doesn't matter
        ax.plot([low, high], [y, y], color=colour, linewidth=2)
        ax.plot(mean, y, "o", color=colour, markersize=6, markerfacecolor=colour if sure else "white")
        for x, text in ((0, each.comparison.predicted or "-"), (0.5, each.found)):
            said.text(x, y, text, va="center", color=colour)
    ax.axvline(neutral(metric), color="black", linewidth=0.8, zorder=1)
    ax.grid(axis="x", alpha=0.2)
    ax.set_yticks(range(len(found)), [str(each.comparison).replace(" against ", "\nagainst ") for each in found])
    ax.set_ylim(len(found) - 0.5, -1.2)
    ax.set_xlabel(f"difference ({unit(metric)}); right of 0 the first is better")
    return figure


def _ends(results: StudyResults) -> Figure:
    """A panel a group of arms with one baseline, a row an arm."""
    groups = {first: [arm for arm in arms if arm != first] for first, arms in results.groups.items()}
    most = max(map(len, groups.values()))
    figure = Figure(figsize=(WIDTH, 0.8 + 0.25 * most), layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False, sharex=True)[0]
    seen = []
    for ax, (first, arms) in zip(panels, groups.items(), strict=True):
        for y, arm in enumerate(arms):
            values = [100 * value for value in results.by_seed(arm, TEST[2]).values()]
            interval, colour = mean_interval(values), colours(results)[arm]
            ax.plot([interval.low, interval.high], [y, y], color=colour, linewidth=2)
            ax.plot(interval.mean, y, "o", color=colour, markersize=5, clip_on=False)
            seen += values
        if start := list(results.by_seed(first, TEST[2]).values()):
            ax.axvline(100 * fmean(start), color="#555555", linestyle="--", linewidth=1)
            seen.append(100 * fmean(start))
        ax.set_yticks(range(len(arms)), [results.label(arm) for arm in arms])
        ax.set_ylim(len(arms) - 0.5, -0.5)
        ax.grid(axis="x", alpha=0.2)
        ax.set(title=results.study.arm(first).task, xlabel="sampled test accuracy (%)")
    panels[0].set_xlim(*frame(seen, 0, 101))
    return figure
