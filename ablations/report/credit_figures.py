"""Figures of credit: maps over positions, how much of the exact gradient is recovered, and critics."""

from statistics import fmean, median
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablations.analysis import credit, gradient_noise
from ablations.records.study_results import CRITIC, StudyResults
from ablations.report.figure_style import WIDTH, colours, dashes, legend

MAP = "YlGnBu"  # of shares
MAPS = (
    "Each position's share of the gradient, |g_t| / Σ |g_t|: estimated above, exact below; grey: no gradient. "
    "Numbers: sampled test accuracy."
)
CRITICS = (
    "The critic on responses that it is not yet fitted to: explained variance, and bias over the returns' standard "
    "deviation. Medians over seeds; dotted: pretraining."
)
BOUNDS = ("explained variance", -1.5, 1.1), ("bias / sd of the returns", -3, 3)  # of the axes, at most
RECOVERED = (
    "Part of the exact gradient that an estimate recovers at each position, E[g_t] · e_t / ‖e_t‖²: 1 is unbiased. "
    "Positions have at least 2% of the exact gradient; GRPO has its own axis."
)


def with_pretraining(results: StudyResults) -> list[list[str]]:
    """The arms with a critic, of the groups in which one is pretrained."""
    explained = CRITIC[0], CRITIC[2]
    groups = [
        [arm for arm in arms if any(results.first(arm, e) for e in explained)] for arms in results.groups.values()
    ]
    return [arms for arms in groups if any(results.first(arm, CRITIC[0]) for arm in arms)]


def critic(results: StudyResults, groups: list[list[str]]) -> Figure:
    figure = Figure(figsize=(WIDTH, (2.7 if len(groups) < 4 else 1.9) * len(groups)), layout="constrained")
    for row, arms in zip(figure.subfigures(len(groups), 1, squeeze=False)[:, 0], groups, strict=True):
        axes = row.subplots(1, 2)
        for arm in arms:
            colour = colours(results)[arm]
            for ax, before, after in zip(axes, CRITIC[:2], CRITIC[2:], strict=True):
                for metric, style in ((before, ":"), (after, dashes(results, arm))):
                    curve = {step: median(values) for step, values in results.curve(arm, metric).items() if values}
                    label = arm if metric == after else None
                    ax.plot(list(curve), list(curve.values()), color=colour, linestyle=style, label=label, linewidth=1)
                for cell in results.of(arm):
                    if curve := cell.curves[after]:
                        ax.plot(min(curve), curve[min(curve)], "o", color=colour, markersize=4)
        for ax, (label, least, most) in zip(axes, BOUNDS, strict=True):
            ax.axhline(0, color="grey", linewidth=0.6)
            low, high = ax.get_ylim()
            ax.set(xlabel="iteration", ylabel=label, ylim=(max(low, least), min(high, most)))
        legend(row, axes[0])
    return figure


def maps(results: StudyResults) -> Figure:
    """Maps of iteration and position, a column an arm: the estimate above the exact one."""
    measured = [arm for arm in credit.arms(results) if results.study.arm(arm).trial]
    groups = [arms for group in results.groups.values() if (arms := [arm for arm in group if arm in measured])]
    columns = max(map(len, groups))
    figure = Figure(figsize=(max(WIDTH, 1.1 * columns), 0.2 + 2.4 * len(groups)), layout="constrained")
    panels = figure.subplots(2 * len(groups), columns, squeeze=False)
    norm = PowerNorm(0.5, 0, 1)
    for ax in panels.flat:
        ax.axis("off")
    for pairs, arms in zip(panels.reshape(-1, 2, columns).swapaxes(1, 2), groups, strict=True):
        for (estimate, exact), arm in zip(pairs, arms, strict=False):
            _map(estimate, credit.shares(results, arm, "share"), norm)
            _map(exact, credit.shares(results, arm, "exact"), norm)
            accuracy = 100 * fmean(results.by_seed(arm, "test/accuracy_sampled").values())
            estimate.set_title(f"{fill(arm, 12, break_long_words=False)}\n{accuracy:.1f}%", fontsize=8)
            estimate.tick_params(labelbottom=False)
            exact.set_xlabel("iteration")
        for ax, kind in zip(pairs[0], ("estimate", "exact"), strict=True):
            ax.set_ylabel(f"{kind}\nposition")
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


def recovered_arms(results: StudyResults) -> dict[str, list[str]]:
    """The frozen arms by their baseline, three of a task or more, with a gradient at more than two positions."""
    groups = gradient_noise.groups(results)
    known = {first: [arm for arm in arms if credit.recovered(results, arm)] for first, arms in groups.items()}
    return {first: arms for first, arms in known.items() if len(credit.recovered(results, first)) > 2 < len(arms)}


def recovered(results: StudyResults, groups: dict[str, list[str]]) -> Figure:
    """A panel an arm, a row a task."""
    columns = max(map(len, groups.values()))
    figure = Figure(figsize=(max(WIDTH, 1.1 * columns), 0.3 + 1.7 * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), columns, sharex=True, squeeze=False)
    for line, arms in zip(panels, groups.values(), strict=True):
        for ax, arm in zip(line, arms, strict=False):
            found = credit.recovered(results, arm)
            ax.axhline(1, color="grey", linewidth=0.6)
            ax.axhline(0, color="grey", linewidth=0.6)
            for t, interval in found.items():
                ax.plot([t + 1, t + 1], [interval.low, interval.high], color=colours(results)[arm])
                ax.plot(t + 1, interval.mean, "o", color=colours(results)[arm], markersize=3)
            ax.set_title(fill(results.label(arm), 14, break_long_words=False), fontsize=7)
            ax.set_xlabel("position")
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            scale = max(1.0, median(each.mean for each in found.values()) / 1.5)  # of an arm that rescales
            ax.set_ylim(-0.6 * scale, 2.1 * scale)
        line[0].set_ylabel(f"{results.study.arm(arms[0]).task}\nrecovered")
    return figure
