"""Figures of what continuations take away and cost, and of the accuracy of values."""

from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.analysis import continuations, gradient_noise, value_accuracy
from ablations.metric_names import KAPPA, RESPONSE
from ablations.records.study_results import StudyResults
from ablations.report.figure_style import COLOURS, WIDTH, colours, dashes, legend, plain_logarithms

COLUMNS = 3  # panels in a row
FRONTIER = (
    "Noise against generated tokens, both per response and relative to {baseline}. Below the solid line an arm has "
    "less noise at equal generated tokens, below the dotted one at kappa {kappa:g}. Circle, triangle, square: 1, 2, 4 "
    "continuations per cut; hollow: reuse."
)
CROSSING = (
    "Noise relative to {baseline} at equal cost, against kappa, the cost of training a token over that of generating "
    "one."
)
BAND = " Grey: the kappa measured with models like these, {} to {}."
THEORY = "Noise per response relative to {baseline}, measured against predicted, by task."
VALUES = (
    "Values of prefixes against the mean of 256 continuations: mean absolute error (dotted: of the best constant) and "
    "pairs in the right order."
)
STRIDES = ("#FDAE6B", "#F16913", "#B33C00", "#7F2704", "#3B1200")  # from short to long, of TRePO's hue
ELSEWHERE = {"Entropy": ("where entropy is high", "#999933"), "Turns": ("at turns", "#D55E00")}  # cuts, and a colour
MARKERS = {1: "o", 2: "^", 4: "s"}


def draw(results: StudyResults) -> dict[str, tuple[Figure, str]]:
    """The figures, with their captions, of a study that sweeps kappa; of the values, wherever they were measured."""
    figures: dict[str, tuple[Figure, str]] = {}
    if results.study.kappas and gradient_noise.groups(results):
        baseline, kappa = results.label(next(iter(gradient_noise.groups(results)))), max(results.study.kappas)
        figures["frontier"] = _frontier(results, kappa), FRONTIER.format(baseline=baseline, kappa=kappa)
        measured = results.study.measured_kappa
        band = BAND.format(*measured) if measured else ""
        figures["crossing"] = _crossing(results), CROSSING.format(baseline=baseline) + band
        if continuations.theory(results):
            figures["theory"] = _theory(results), THEORY.format(baseline=baseline)
    if value_accuracy.arms(results):
        figures["values"] = _values(results), VALUES
    return figures


def _panels(results: StudyResults, height: float) -> tuple[Figure, list[tuple[Axes, str, list[str]]]]:
    """A panel for each task: with its baseline and all its frozen arms."""
    groups = gradient_noise.groups(results)
    columns = min(COLUMNS, len(groups))
    lines = -(-len(groups) // columns)
    width = WIDTH * max(2, columns) / COLUMNS  # of one panel, too, two: its legend is as wide
    figure = Figure(figsize=(width, height * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for ax in panels.flat[len(groups) :]:
        ax.set_visible(False)
    found = []
    for ax, (baseline, arms) in zip(panels.flat, groups.items(), strict=False):
        ax.set_title(results.study.arm(baseline).task, fontsize=8)
        ax.tick_params(labelbottom=True)
        found.append((ax, baseline, arms))
    return figure, found


def _frontier(results: StudyResults, kappa: float) -> Figure:
    figure, panels = _panels(results, 2.3)
    for ax, baseline, arms in panels:
        base = gradient_noise.measured(results, baseline)
        own = _tokens(base, "generated")
        grid = np.geomspace(0.8, 20, 50)
        ax.plot(grid, 1 / grid, color="grey", linewidth=0.8)
        trained = _tokens(base, "trained") / own
        ax.plot(grid, (1 + kappa * trained) / (grid + kappa * trained), color="grey", linewidth=0.8, linestyle=":")
        for arm in arms:
            found, arguments = gradient_noise.measured(results, arm), results.config(arm)["model"]["init_args"]
            ratio = gradient_noise.relative(found, base, RESPONSE)
            x, stride = _tokens(found, "generated") / own, _stride(results, arm)
            colour = "black" if arm == baseline else _colour(results, arm)
            face = "white" if arguments.get("reuse") else colour
            marker = MARKERS.get(arguments.get("continuations", 1), "D")
            ax.plot([x, x], [ratio.low, ratio.high], color=colour, linewidth=0.7)
            others = f"stride {stride}" if stride else _elsewhere(results, arm)[0]
            label = others if arm != baseline else results.label(baseline)
            style: dict[str, Any] = {"color": colour, "markerfacecolor": face, "markersize": 4, "linestyle": ""}
            named = label not in ax.get_legend_handles_labels()[1] and not arguments.get("reuse")
            ax.plot(x, ratio.mean, marker, label=label if named else None, **style)
        ax.set(xlabel="tokens per response", ylabel="noise per response")
        plain_logarithms(ax)
    legend(figure, *(ax for ax, _, _ in panels))
    return figure


def _crossing(results: StudyResults) -> Figure:
    """The arms with continuations; those with one alone where they are many. Critics cost nothing more."""
    figure, panels = _panels(results, 2.2)
    grid = np.geomspace(0.1, 30, 12)
    labels = {results.label(arm) for arm in results.study.arm_names}
    most = 1 if len(labels) > len(COLOURS) + 1 else max(MARKERS)  # a colour each, and the baseline's
    for ax, baseline, arms in panels:
        base = gradient_noise.measured(results, baseline)
        for arm in arms:
            arguments = results.config(arm)["model"]["init_args"]
            paid = 0 < arguments.get("continuations", 0) <= most
            if not paid or arguments.get("root") or arguments.get("fill"):
                continue
            found = gradient_noise.measured(results, arm)
            y = [gradient_noise.relative(found, base, f"{KAPPA}{kappa}") for kappa in grid]
            colour, line = _colour(results, arm), ":" if arguments.get("reuse") else "-"
            style: Any = {"color": colour, "linestyle": line, "linewidth": 1.2}
            ax.plot(grid, [each.mean for each in y], label=results.label(arm).removeprefix("TRePO "), **style)
            low, high = [each.low for each in y], [each.high for each in y]
            ax.fill_between(grid, low, high, color=colour, alpha=0.12, linewidth=0)
        ax.axhline(1, color="grey", linewidth=0.6)
        if results.study.measured_kappa:
            ax.axvspan(*results.study.measured_kappa, color="grey", alpha=0.15, linewidth=0)
        ax.set(xlabel="kappa", ylabel="noise at equal cost")
        plain_logarithms(ax)
    legend(figure, *(ax for ax, _, _ in panels))
    return figure


def _theory(results: StudyResults) -> Figure:
    figure = Figure(figsize=(0.6 * WIDTH, 3.6), layout="constrained")
    ax = figure.subplots()
    seen = []
    for number, (baseline, arms) in enumerate(gradient_noise.groups(results).items()):
        base, colour = gradient_noise.measured(results, baseline), COLOURS[number % len(COLOURS)]
        for arm in arms:
            theory = continuations.predicted(results, arm)
            if theory is None:
                continue
            ratio = gradient_noise.relative(gradient_noise.measured(results, arm), base, RESPONSE)
            ax.plot([theory, theory], [ratio.low, ratio.high], color=colour, linewidth=0.7)
            label = results.study.arm(arm).task
            named = label not in ax.get_legend_handles_labels()[1]
            marker = "os^"[number // len(COLOURS) % 3]
            ax.plot(theory, ratio.mean, marker, color=colour, markersize=4, label=label if named else None)
            seen += [theory, ratio.mean]
    ends = [0.8 * min(seen), 1.25 * max(seen)]
    ax.plot(ends, ends, color="grey", linewidth=0.6)
    ax.set(xlabel="predicted noise per response", ylabel="measured")
    plain_logarithms(ax)
    ax.legend(fontsize=7)
    return figure


def _values(results: StudyResults) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    arms = value_accuracy.arms(results)
    places = sorted({place for arm in arms for place in value_accuracy.by_position(results, arm, "mae")})
    for number, arm in enumerate(arms):
        shift = places[0] / 32 * (number - (len(arms) - 1) / 2)  # the first place is the stride
        style: Any = {"color": colours(results)[arm], "marker": "o", "markersize": 3, "linewidth": 1}
        style["linestyle"] = dashes(results, arm)
        for ax, what, scale in ((left, "mae", 1), (right, "ranking", 100)):
            found = value_accuracy.by_position(results, arm, what)
            x, y = [t + shift for t in found], [scale * each.mean for each in found.values()]
            ax.plot(x, y, label=results.label(arm), **style)
            for place, each in zip(x, found.values(), strict=True):
                ax.plot([place, place], [scale * each.low, scale * each.high], color=style["color"], linewidth=0.7)
        spread = value_accuracy.by_position(results, arm, "spread")
        if number == 0:
            left.plot(list(spread), [each.mean for each in spread.values()], color="grey", linestyle=":")
    left.set_ylim(bottom=0)
    right.axhline(50, color="grey", linewidth=0.6, linestyle=":")
    left.set(xlabel="tokens of the prefix", ylabel="mean absolute error")
    right.set(xlabel="tokens of the prefix", ylabel="pairs in the right order (%)", ylim=(0, 104))
    for ax in (left, right):
        ax.set(xticks=places, xlim=(0, places[0] + places[-1]))
    legend(figure, left)
    return figure


def _colour(results: StudyResults, arm: str) -> str:
    """By stride; grey without cuts."""
    strides = sorted({every for each in gradient_noise.arms(results) if (every := _stride(results, each))})
    if every := _stride(results, arm):
        return STRIDES[strides.index(every) % len(STRIDES)]
    return _elsewhere(results, arm)[1]


def _elsewhere(results: StudyResults, arm: str) -> tuple[str, str]:
    """Where an arm is cut that has no stride, and its colour."""
    rule = results.config(arm)["model"]["init_args"].get("cuts", {}).get("class_path", "")
    return ELSEWHERE.get(rule.rpartition(".")[2], ("no cuts", "grey"))


def _stride(results: StudyResults, arm: str) -> int | None:
    cuts = results.config(arm)["model"]["init_args"].get("cuts", {})
    return cuts.get("init_args", {}).get("every")


def _tokens(found: dict[int, Any], what: str) -> float:
    """A response."""
    return fmean(getattr(noise, what) / noise.responses for noise in found.values())
