"""The figures of a report, as PNG and SVG."""

import math
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from ablations.analysis import credit, gradient_noise
from ablations.analysis.arm_table import timed
from ablations.analysis.statistics import mean_interval
from ablations.metric_names import SECONDS
from ablations.records.study_results import MOST_ARMS, StudyResults
from ablations.report import (
    alarm_figures,
    answer_figure,
    continuation_figures,
    credit_figures,
    noise_map,
    share_figure,
    surface_figures,
)
from ablations.report.figure_style import STYLE, WIDTH, colours, dashes, frame, legend, plain_logarithms

VALIDATION, TEST = (tuple(f"{split}/{name}" for name in ("accuracy_sampled", "accuracy")) for split in ("val", "test"))
ACCURACY = "Validation accuracy against {axis}. Level lines: arms that generate nothing."
TESTED = "Test accuracy after training. Small points: seeds."
AXES = (
    "Sampled validation accuracy against generated tokens, seconds, iterations and optimizer steps, up to 2.5 times "
    "the median run."
)
GRADIENT = (
    "Left: variance of an iteration's gradient at the start, tr Σ / n. Right: its signal-to-noise ratio, n‖G‖² / tr "
    "Σ, whose estimate may be negative."
)
MOST_LINES = 7  # with a band each in a panel of learning curves
FROZEN = "Gradient noise at frozen policies, relative to RLOO's. Unresolved arms have no point."


def draw(results: StudyResults, folder: Path) -> dict[str, str]:
    """Writes the figures; returns their captions by file name."""
    figures: dict[str, tuple[Figure, str]] = {}
    with rc_context(STYLE):
        if results.study.faults:
            figures["answer"] = alarm_figures.answer(results), alarm_figures.ANSWER
            figures["roc"] = alarm_figures.roc(results), alarm_figures.ROC
        elif (answer := share_figure.draw(results) or answer_figure.draw(results)) is not None:
            figures["answer"] = answer
        figures |= surface_figures.draw(results.study)
        if 0 < len(results.arms) <= MOST_ARMS:
            axis = "seconds of training" if timed(results) else "generated tokens"
            figures["accuracy"] = _accuracy(results), ACCURACY.format(axis=axis)
            figures["test_accuracy"] = _test_accuracy(results), TESTED
        if results.arms:
            figures["axes"] = _axes(results), AXES
        if any(results.first(arm, "gradient/norm_sq") for arm in results.arms):
            figures["gradient_variance"] = _gradient(results), GRADIENT
        if gradient_noise.arms(results) and not results.study.kappas and not noise_map.mapped(results):
            figures["frozen"] = _frozen(results), FROZEN
        figures |= continuation_figures.draw(results)
        critics = credit_figures.with_pretraining(results)
        if critics and len(results.arms) <= MOST_ARMS:
            figures["critic"] = credit_figures.critic(results, critics), credit_figures.CRITICS
        if credit.arms(results):
            figures["credit"] = credit_figures.maps(results), credit_figures.MAPS
        if recovered := credit_figures.recovered_arms(results):
            figures["recovered"] = credit_figures.recovered(results, recovered), credit_figures.RECOVERED
        for name, (figure, _) in figures.items():
            figure.savefig(folder / f"{name}.png")
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    return {f"{name}.png": caption for name, (_, caption) in figures.items()}


def _accuracy(results: StudyResults) -> Figure:
    parts = [(part, arms) for arms in results.groups.values() for part in _parts(results, arms)]
    figure = Figure(figsize=(WIDTH, 2.9 * len(parts)), layout="constrained")
    subfigures = figure.subfigures(len(parts), 1, squeeze=False)[:, 0]
    for row, (part, arms) in zip(subfigures, parts, strict=True):
        axes = row.subplots(1, 2, sharey=True)
        for ax, metric, title in zip(axes, VALIDATION, ("sampled at temperature 1", "greedy"), strict=True):
            for arm in part:
                _learning_curve(ax, results, arm, metric)
            ax.set(title=title, xlabel="seconds of training" if timed(results) else "generated tokens (thousands)")
        seen = [results.curve(arm, metric) for arm in arms for metric in VALIDATION]
        axes[0].set_ylim(*frame([100 * v for curve in seen for values in curve.values() for v in values], 0, 100))
        axes[0].set_ylabel("validation accuracy (%)")
        legend(row, axes[0])
    return figure


def _parts(results: StudyResults, arms: list[str]) -> list[list[str]]:
    """Of a group: what is read in one panel, each with the baseline and the arms that generate nothing."""
    shared = [a for a in arms if a == results.study.baseline_of(a) or not any(c.generated for c in results.of(a))]
    others = [arm for arm in arms if arm not in shared]
    lines = max(1, -(-len(others) // MOST_LINES))
    each = -(-len(others) // lines)
    return [[*shared, *others[each * line : each * (line + 1)]] for line in range(lines)]


def _learning_curve(ax: Axes, results: StudyResults, arm: str, metric: str) -> None:
    colour = colours(results)[arm]
    least = len(results.of(arm)) / 2  # where budgets end runs, few seeds go furthest
    known = {step: values for step, values in results.curve(arm, metric).items() if len(values) >= least}
    curve = {step: mean_interval([100 * v for v in values]) for step, values in known.items()}
    if not curve:
        return
    axis, scale = (SECONDS, 1) if timed(results) else ("tokens/generated", 1000)
    places = {0: 0.0} | {step: fmean(values) / scale for step, values in results.curve(arm, axis).items()}
    if any(places.values()):
        x = [places[step] for step in curve]
        style: Any = {"color": colour, "marker": "o", "markersize": 2.5, "linestyle": dashes(results, arm)}
        ax.plot(x, [y.mean for y in curve.values()], label=arm, **style)
        ax.fill_between(
            x, [y.low for y in curve.values()], [y.high for y in curve.values()], color=colour, alpha=0.15, linewidth=0
        )
    else:
        end = curve[max(curve)]
        baseline = arm == results.study.baseline_of(arm)
        ax.axhline(end.mean, color=colour, linestyle="--" if baseline else ":", label=arm)
        if not baseline:
            ax.axhspan(end.low, end.high, color=colour, alpha=0.12, linewidth=0)


def _test_accuracy(results: StudyResults) -> Figure:
    arms = results.arms
    figure = Figure(figsize=(WIDTH, 0.8 + 0.28 * len(arms)), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, metric, title in zip(axes, TEST, ("sampled at temperature 1", "greedy"), strict=True):
        for y, arm in enumerate(arms):
            values = [100 * value for value in results.by_seed(arm, metric).values()]
            colour = colours(results)[arm]
            interval = mean_interval(values)
            seeds = [y + 0.3] * len(values)
            ax.plot(values, seeds, "o", color=colour, markersize=3, alpha=0.6, markeredgewidth=0, clip_on=False)
            ax.plot([interval.low, interval.high], [y, y], color=colour)
            ax.plot(interval.mean, y, "o", color=colour, markersize=5, clip_on=False)
        ax.set(title=title, xlabel="test accuracy (%)")
        ax.grid(axis="x", alpha=0.3)
    seen = [100 * value for arm in arms for metric in TEST for value in results.by_seed(arm, metric).values()]
    axes[0].set_xlim(*frame(seen, 0, 100))
    axes[0].set_yticks(range(len(arms)), arms)
    axes[0].set_ylim(len(arms) - 0.5, -0.5)
    return figure


def _gradient(results: StudyResults) -> Figure:
    # arms that generate nothing follow another gradient
    drawn = [
        [arm for arm in arms if any(cell.generated for cell in results.of(arm)) and results.start_noise(arm)]
        for arms in results.groups.values()
    ]
    heights = [max(2.6, 1.0 + 0.2 * len(arms)) for arms in drawn]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    for row, arms in zip(figure.subfigures(len(drawn), 1, False, height_ratios=heights)[:, 0], drawn, strict=True):
        _gradient_row(row, results, arms)
    return figure


def _gradient_row(row: SubFigure, results: StudyResults, arms: list[str]) -> None:
    left, right = row.subplots(1, 2, width_ratios=(1, 1.3))
    shade = colours(results)
    shades: dict[str, Any] = {"markersize": 3, "alpha": 0.5, "markeredgewidth": 0, "linestyle": "", "marker": "o"}
    for y, arm in enumerate(arms):
        noise = [1000 * value for value in results.start_noise(arm).values()]
        left.plot(noise, [y + 0.3] * len(noise), color=shade[arm], **shades)
        left.plot(fmean(noise), y, "o", color=shade[arm], markersize=6)
        curve = {step: [v for v in vs if math.isfinite(v)] for step, vs in results.curve(arm, "gradient/snr").items()}
        curve = {step: values for step, values in curve.items() if values}
        for step, values in curve.items():
            right.plot([step] * len(values), values, color=shade[arm], **shades)
        means = [fmean(values) for values in curve.values()]
        right.plot(list(curve), means, color=shade[arm], label=arm, linestyle=dashes(results, arm))
    left.set_yticks(range(len(arms)), arms)
    left.set_ylim(len(arms) - 0.5, -0.5)
    left.set_xlim(left=0)
    left.grid(axis="x", alpha=0.3)
    left.set(xlabel="tr Σ / n at the start (thousandths)")
    right.axhline(0, color="grey", linewidth=0.6)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(xlabel="iteration", ylabel="n ‖G‖² / tr Σ")
    legend(row, right)


def _axes(results: StudyResults) -> Figure:
    """A row a group of arms, a column an axis."""
    names = {"tokens": "generated tokens", "seconds": "seconds", "iterations": "iterations", "steps": "optimizer steps"}
    # results of an earlier version know neither seconds nor steps
    names = {axis: name for axis, name in names.items() if any(len(cell.axis(axis)) > 1 for cell in results.cells)}
    height = 2.6 if len(results.groups) < 3 else 1.6
    figure = Figure(figsize=(WIDTH, 0.6 + height * len(results.groups)), layout="constrained")
    panels = figure.subplots(len(results.groups), len(names), sharey="row", squeeze=False)
    for line, (baseline, arms) in zip(panels, results.groups.items(), strict=True):
        trained = [arm for arm in arms if any(cell.generated for cell in results.of(arm))]
        for ax, axis in zip(line, names, strict=True):
            for arm in trained:
                _band(ax, results, arm, axis)
            ends = sorted(max(cell.axis(axis).values()) for arm in trained for cell in results.of(arm))
            ax.set_xlim(0, min(1.05 * ends[-1], 2.5 * ends[len(ends) // 2]))  # one slow arm would press the others
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.tick_params(axis="x", labelsize=6)
        line[0].set_ylim(max(0, line[0].get_ylim()[0]), min(104, line[0].get_ylim()[1]))
        line[0].set_ylabel(f"{results.study.arm(baseline).task}\nsampled accuracy (%)".strip())
    for ax, name in zip(panels[-1], names.values(), strict=True):
        ax.set_xlabel(name)
    legend(figure, max(panels[:, 0], key=lambda ax: len(ax.get_legend_handles_labels()[1])))
    return figure


def _band(ax: Axes, results: StudyResults, arm: str, axis: str) -> None:
    """Seeds end at different places, so each is read off at the same ones, up to the median end; ends hold on."""
    curves = [cell.along(VALIDATION[0], axis) for cell in results.of(arm)]
    curves = [curve for curve in curves if curve]
    grid = np.linspace(0, median([max(curve) for curve in curves]), max(map(len, curves)))
    values = np.array([np.interp(grid, sorted(curve), [curve[x] for x in sorted(curve)]) for curve in curves])
    y, colour = [mean_interval(list(100 * column)) for column in values.T], colours(results)[arm]
    style: Any = {"color": colour, "linestyle": dashes(results, arm), "linewidth": 1}
    ax.plot(grid, [each.mean for each in y], label=results.label(arm), **style)
    ax.fill_between(grid, [each.low for each in y], [each.high for each in y], color=colour, alpha=0.12, linewidth=0)


def _frozen(results: StudyResults) -> Figure:
    """A row a task, a column a cost."""
    groups = gradient_noise.groups(results)
    most = max(map(len, groups.values()))
    figure = Figure(figsize=(WIDTH, 0.4 + (0.5 + 0.17 * most) * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), len(gradient_noise.COSTS), sharey="row", sharex=True, squeeze=False)
    for line, (baseline, arms) in zip(panels, groups.items(), strict=True):
        other = gradient_noise.measured(results, baseline)
        for ax, cost in zip(line, gradient_noise.COSTS, strict=True):
            for y, arm in enumerate(arms):
                ratio = gradient_noise.relative(gradient_noise.measured(results, arm), other, cost)
                ax.plot([ratio.low, ratio.high], [y, y], color=colours(results)[arm])
                ax.plot(ratio.mean, y, "o", color=colours(results)[arm], markersize=4)
            ax.axvline(1, color="grey", linewidth=0.6)
            ax.set_yticks(range(len(arms)), [results.label(arm) for arm in arms])
            ax.set_ylim(len(arms) - 0.5, -0.5)
        line[0].set_title(results.study.arm(baseline).task, loc="left", fontsize=8)
    for ax in panels.flat:
        plain_logarithms(ax, "x")
    for ax, cost in zip(panels[-1], gradient_noise.COSTS, strict=True):
        ax.set_xlabel(f"noise per {cost}, relative")
    return figure
