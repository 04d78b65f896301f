"""The figures of a report, as PNG and SVG."""

import math
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from ablations import credit
from ablations.results import CRITIC, Results
from ablations.statistics import mean_interval

# Okabe and Ito's colours, which the colour-blind tell apart; the baseline is black
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MAP = "YlGnBu"  # of shares
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "svg.hashsalt": "ablations",  # the same numbers give the same file
}
VALIDATION, TEST = (tuple(f"{split}/{name}" for name in ("accuracy_sampled", "accuracy")) for split in ("val", "test"))
WIDTH = 7.0  # inches: two columns of text


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Writes the figures; returns their captions by file name."""
    with rc_context(STYLE):
        figures = {
            "accuracy": (
                _accuracy(results),
                "Validation accuracy against generated tokens: mean over seeds, band: 95% t interval (cut at the "
                "frame). Black: the arm that gains are measured against. Level lines: arms that generate nothing, at "
                "their end.",
            ),
            "test_accuracy": (
                _test_accuracy(results),
                "Test accuracy after training: mean over seeds and 95% t interval (cut at the frame). Small: seeds.",
            ),
        }
        if any(results.first(arm, "gradient/norm_sq") for arm in results.arms):
            figures["gradient_variance"] = (
                _gradient(results),
                "Left: variance of one iteration's gradient at the shared start, tr Σ / n with n groups. Right: "
                "signal-to-noise ratio of an iteration's gradient, n‖G‖² / tr Σ; the estimate of ‖G‖² is unbiased, so "
                "it may be negative. Large points and lines: means over seeds; small points: seeds.",
            )
        if groups := _with_pretraining(results):
            figures["critic"] = (
                _critic(results, groups),
                "The critic on an iteration's responses, not yet fitted to them: explained variance of their returns, "
                "and bias over their standard deviation. Lines: means over seeds; points: seeds, where the policy "
                "starts. Dotted: pretraining, while the policy waits.",
            )
        if credit.arms(results):
            figures["credit"] = (
                _credit(results),
                "Each position's share of the gradient, |g_t| / Σ |g_t|, mean over seeds: of the arm's rollouts, and "
                "below it of the exact gradient at the same weights. The colours' scale is a square root. Grey: no "
                "gradient. Numbers: sampled test accuracy at the end.",
            )
        for name, (figure, _) in figures.items():
            figure.savefig(folder / f"{name}.png")
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    return {f"{name}.png": caption for name, (_, caption) in figures.items()}


def _colours(results: Results) -> dict[str, str]:
    study, colours = results.study, dict[str, str]()
    for baseline in map(study.baseline_of, study.arm_names):
        others = [arm for arm in study.arm_names if study.baseline_of(arm) == baseline != arm]
        colours.update({arm: COLOURS[i % len(COLOURS)] for i, arm in enumerate(others)}, **{baseline: "black"})
    return colours


def _dashes(results: Results, arm: str) -> str:
    """Solid lines, and broken ones where the colours are used up."""
    baseline = results.study.baseline_of(arm)
    others = [each for each in results.study.arm_names if results.study.baseline_of(each) == baseline != each]
    return "-" if arm == baseline or others.index(arm) < len(COLOURS) else "--"


def _rows(figure: Figure, results: Results) -> list[tuple[SubFigure, list[str]]]:
    """A row of panels for each group of arms with one baseline."""
    groups = list(results.groups.values())
    return list(zip(figure.subfigures(len(groups), 1, squeeze=False)[:, 0], groups, strict=True))


def _legend(row: SubFigure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    width = 0.35 + 0.058 * max(map(len, labels), default=0)  # inches, of an entry
    columns = max(1, min(6, int(WIDTH / width)))
    row.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=1.2, columnspacing=1.2)


def _frame(seen: list[float], least: float = -math.inf, most: float = math.inf) -> tuple[float, float]:
    """Limits of an axis around the values seen: intervals from few seeds would dwarf them."""
    low, high = (f([v for v in seen if math.isfinite(v)], default=0.0) for f in (min, max))
    margin = 0.15 * (high - low) or 1.0
    return max(least, low - margin), min(most, high + margin)


def _accuracy(results: Results) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.9 * len(results.groups)), layout="constrained")
    for row, arms in _rows(figure, results):
        axes = row.subplots(1, 2, sharey=True)
        for ax, metric, title in zip(axes, VALIDATION, ("sampled at temperature 1", "greedy"), strict=True):
            for arm in arms:
                _learning_curve(ax, results, arm, metric)
            ax.set(title=title, xlabel="generated tokens (thousands)")
        seen = [results.curve(arm, metric) for arm in arms for metric in VALIDATION]
        axes[0].set_ylim(*_frame([100 * v for curve in seen for values in curve.values() for v in values], 0, 100))
        axes[0].set_ylabel("validation accuracy (%)")
        _legend(row, axes[0])
    return figure


def _learning_curve(ax: Axes, results: Results, arm: str, metric: str) -> None:
    colour = _colours(results)[arm]
    curve = {step: mean_interval([100 * v for v in values]) for step, values in results.curve(arm, metric).items()}
    if not curve:
        return
    tokens = {step: fmean(values) / 1000 for step, values in results.curve(arm, "tokens/generated").items()}
    if any(tokens.values()):
        x = [tokens[step] for step in curve]
        style: Any = {"color": colour, "marker": "o", "markersize": 2.5, "linestyle": _dashes(results, arm)}
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


def _test_accuracy(results: Results) -> Figure:
    arms = results.arms
    figure = Figure(figsize=(WIDTH, 0.8 + 0.28 * len(arms)), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, metric, title in zip(axes, TEST, ("sampled at temperature 1", "greedy"), strict=True):
        for y, arm in enumerate(arms):
            values = [100 * value for value in results.by_seed(arm, metric).values()]
            colour = _colours(results)[arm]
            interval = mean_interval(values)
            seeds = [y + 0.3] * len(values)
            ax.plot(values, seeds, "o", color=colour, markersize=3, alpha=0.6, markeredgewidth=0, clip_on=False)
            ax.plot([interval.low, interval.high], [y, y], color=colour)
            ax.plot(interval.mean, y, "o", color=colour, markersize=5, clip_on=False)
        ax.set(title=title, xlabel="test accuracy (%)")
        ax.grid(axis="x", alpha=0.3)
    seen = [100 * value for arm in arms for metric in TEST for value in results.by_seed(arm, metric).values()]
    axes[0].set_xlim(*_frame(seen, 0, 100))
    axes[0].set_yticks(range(len(arms)), arms)
    axes[0].set_ylim(len(arms) - 0.5, -0.5)
    return figure


def _gradient(results: Results) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.6 * len(results.groups)), layout="constrained")
    for row, arms in _rows(figure, results):
        # arms that generate nothing follow another gradient
        _gradient_row(row, results, [arm for arm in arms if any(cell.generated for cell in results.of(arm))])
    return figure


def _gradient_row(row: SubFigure, results: Results, arms: list[str]) -> None:
    left, right = row.subplots(1, 2, width_ratios=(1, 1.3))
    colours = _colours(results)
    shades: dict[str, Any] = {"markersize": 3, "alpha": 0.5, "markeredgewidth": 0, "linestyle": "", "marker": "o"}
    for y, arm in enumerate(arms):
        noise = [1000 * value for value in results.start_noise(arm).values()]
        left.plot(noise, [y + 0.3] * len(noise), color=colours[arm], **shades)
        left.plot(fmean(noise), y, "o", color=colours[arm], markersize=6)
        curve = {step: [v for v in vs if math.isfinite(v)] for step, vs in results.curve(arm, "gradient/snr").items()}
        curve = {step: values for step, values in curve.items() if values}
        for step, values in curve.items():
            right.plot([step] * len(values), values, color=colours[arm], **shades)
        means, dashes = [fmean(values) for values in curve.values()], _dashes(results, arm)
        right.plot(list(curve), means, color=colours[arm], label=arm, linestyle=dashes)
    left.set_yticks(range(len(arms)), arms)
    left.set_ylim(len(arms) - 0.5, -0.5)
    left.set_xlim(left=0)
    left.grid(axis="x", alpha=0.3)
    left.set(xlabel="tr Σ / n at the start (thousandths)")
    right.axhline(0, color="grey", linewidth=0.6)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(xlabel="iteration", ylabel="n ‖G‖² / tr Σ")
    _legend(row, right)


def _with_pretraining(results: Results) -> list[list[str]]:
    """The arms with a critic, of the groups in which one is pretrained."""
    explained = CRITIC[0], CRITIC[2]
    groups = [
        [arm for arm in arms if any(results.first(arm, e) for e in explained)] for arms in results.groups.values()
    ]
    return [arms for arms in groups if any(results.first(arm, CRITIC[0]) for arm in arms)]


def _critic(results: Results, groups: list[list[str]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.7 * len(groups)), layout="constrained")
    rows = figure.subfigures(len(groups), 1, squeeze=False)[:, 0]
    for row, arms in zip(rows, groups, strict=True):
        axes = row.subplots(1, 2)
        for arm in arms:
            colour = _colours(results)[arm]
            for ax, before, after in zip(axes, CRITIC[:2], CRITIC[2:], strict=True):
                for metric, style in ((before, ":"), (after, _dashes(results, arm))):
                    curve = {step: fmean(values) for step, values in results.curve(arm, metric).items() if values}
                    label = arm if metric == after else None
                    ax.plot(list(curve), list(curve.values()), color=colour, linestyle=style, label=label, linewidth=1)
                for cell in results.of(arm):
                    if curve := cell.curves[after]:
                        ax.plot(min(curve), curve[min(curve)], "o", color=colour, markersize=4)
        for ax, label in zip(axes, ("explained variance", "bias / sd of the returns"), strict=True):
            ax.axhline(0, color="grey", linewidth=0.6)
            ax.set(xlabel="iteration", ylabel=label)
        _legend(row, axes[0])
    return figure


def _credit(results: Results) -> Figure:
    """Maps of iteration and position, a column an arm: the estimate above the exact one."""
    measured = credit.arms(results)
    groups = [arms for group in results.groups.values() if (arms := [arm for arm in group if arm in measured])]
    columns = max(map(len, groups))
    figure = Figure(figsize=(WIDTH, 0.2 + 2.4 * len(groups)), layout="constrained")
    panels = figure.subplots(2 * len(groups), columns, squeeze=False)
    norm = PowerNorm(0.5, 0, 1)
    for ax in panels.flat:
        ax.axis("off")
    for pairs, arms in zip(panels.reshape(-1, 2, columns).swapaxes(1, 2), groups, strict=True):
        for (estimate, exact), arm in zip(pairs, arms, strict=False):
            _map(estimate, credit.shares(results, arm, "share"), norm)
            _map(exact, credit.shares(results, arm, "exact"), norm)
            accuracy = 100 * fmean(results.by_seed(arm, "test/accuracy_sampled").values())
            estimate.set_title(f"{fill(arm, 12)}\n{accuracy:.1f}%", fontsize=8)
            estimate.tick_params(labelbottom=False)
            exact.set_xlabel("iteration")
        for ax, label in zip(pairs[0], ("estimate", "exact"), strict=True):
            ax.set_ylabel(f"{label}\nposition")
    figure.colorbar(ScalarMappable(norm, MAP), ax=panels, label="share of the gradient", shrink=0.6, aspect=30)
    return figure


def _map(ax: Axes, shares: dict[int, list[float]], norm: PowerNorm) -> None:
    """Iterations are evenly spaced."""
    steps, grid = list(shares), np.array(list(shares.values())).T
    half = (steps[1] - steps[0]) / 2 if len(steps) > 1 else 0.5
    extent = (steps[0] - half, steps[-1] + half, len(grid) + 0.5, 0.5)
    ax.axis("on")
    ax.set_facecolor("lightgrey")
    ax.spines[:].set_visible(True)
    ax.imshow(grid, aspect="auto", interpolation="nearest", norm=norm, cmap=MAP, extent=extent)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
