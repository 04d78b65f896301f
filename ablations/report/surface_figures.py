"""The figures of a study's trials: by learning rate, and by how a budget is spent on prompts and responses."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from textwrap import fill
from typing import NamedTuple

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ablations import arm_colours
from ablations.analysis import metric_text
from ablations.analysis.response_surface import (
    Point,
    Shape,
    allocated,
    best_rates,
    first_arms,
    points,
    scaled,
    shape,
    unit,
)
from ablations.report.figure_style import WIDTH, frame, legend
from ablations.study import Arm, Study

SURFACE, ALLOCATION = "surface", "allocation"
MOST_PANELS, MOST_LINES = 12, 7
ACROSS = 4  # panels in a row
APART, ALL = 0.13, 0.6  # lines, at most, and from the first to the last, of the way to the next point
RATES = "Trials: {metric}, against the learning rate{lines}. {bars}"
LINES = ", with a line for each number of responses to a prompt"
SHARES = (
    "At one budget of tokens, how many prompts and how many responses: {metric}, each point at the best of {rates} "
    "learning rates. {bars} The best was taken on these same seeds, so points are a little too high."
)
BARS = "Means over {seeds} seeds with 95% t intervals; circles: chosen."


class Line(NamedTuple):
    """One line of a panel: its points by their place on the axis."""

    label: str
    colour: str
    dashes: str
    points: Mapping[float, Point]


Panels = dict[str, list[Line]]  # by title


def draw(study: Study) -> dict[str, tuple[Figure, str]]:
    """Figures and captions by name; none without trials, and none of more panels or lines than can be read."""
    found = points(study)
    if study.tuning is None or not found:
        return {}
    bars = BARS.format(seeds=len(study.tuning.seeds))
    words = {"metric": metric_text.name(study.deciding_metric), "bars": bars}
    figures = {}
    if _readable(panels := _by_responses(study, found)):
        figures[ALLOCATION] = _allocation(study, panels), SHARES.format(rates=len(study.tuning.rates), **words)
    if len(study.tuning.rates) > 1 and _readable(panels := _by_rate(study, found)):
        figures[SURFACE] = _surface(study, panels), RATES.format(lines=LINES if allocated(study) else "", **words)
    return figures


def _readable(panels: Panels) -> bool:
    return 0 < len(panels) <= MOST_PANELS and max(map(len, panels.values())) <= MOST_LINES


def _by_rate(study: Study, found: Sequence[Point]) -> Panels:
    """A panel an arm with a line an allocation; where no arm has several, and they are few, a panel a task instead."""
    arms, panels = first_arms(study), Panels()
    apart, shades = allocated(study), _shades(study)
    crowded = max(Counter(arm.task for arm in arms.values()).values()) > MOST_LINES
    for name, arm in arms.items():
        for allocation in arm.allocations or ("",):
            own = {each.choice.rate: each for each in found if (each.arm, each.choice.allocation) == (name, allocation)}
            label = _responses(arm, allocation)
            line = Line(label, shades[label], "-", own) if apart else _line(study, arm, own)
            panels.setdefault(name if apart or crowded else arm.task, []).append(line)
    return panels


def _by_responses(study: Study, found: Sequence[Point]) -> Panels:
    """A panel a task with a line an arm that was tried with several numbers of responses to a prompt."""
    panels = Panels()
    for name, arm in first_arms(study).items():
        own = {
            float(size.responses): each
            for each in best_rates(found)
            if each.arm == name and (size := shape(arm, each.choice.allocation)) is not None
        }
        if len(own) > 1:
            panels.setdefault(arm.task, []).append(_line(study, arm, own))
    return panels


def _line(study: Study, arm: Arm, own: Mapping[float, Point]) -> Line:
    """Of an arm, in its colour."""
    colour, dashes = (made(study)[arm.name] for made in (arm_colours.colours, arm_colours.dashes))
    return Line(arm_colours.label(study, arm.name), colour, dashes, own)


def _responses(arm: Arm, allocation: str) -> str:
    """What the allocations of different arms have in common."""
    size = shape(arm, allocation)
    if size is None:
        return allocation or "one allocation"
    return f"{size.responses} response{'s' if size.responses > 1 else ''}"


def _shades(study: Study) -> dict[str, str]:
    """A colour for each label of an allocation, from the fewest responses to the most."""
    seen = {
        _responses(arm, allocation): (shape(arm, allocation) or Shape(0, 0)).responses
        for arm in first_arms(study).values()
        for allocation in arm.allocations or ("",)
    }
    labels = sorted(seen, key=lambda label: seen[label])
    return {label: to_hex(colormaps["viridis"](0.9 * i / max(1, len(labels) - 1))) for i, label in enumerate(labels)}


def _surface(study: Study, panels: Panels) -> Figure:
    figure, axes = _grid(study, panels, min(ACROSS, len(panels)), 1.6 if len(panels) > 2 else 2.6)
    rates = sorted({x for lines in panels.values() for line in lines for x in line.points})
    every = 2 if len(rates) > 5 and len(panels) > 2 else 1  # labels that have room beside each other
    for ax in axes:
        labels = [f"{rate:g}" if i % every == 0 else "" for i, rate in enumerate(rates)]
        ax.set_xticks([math.log2(rate) for rate in rates], labels)
        ax.tick_params(axis="x", labelsize=6.5)
        ax.set_xlabel("learning rate" if ax.xaxis.get_tick_params()["labelbottom"] else "")
    return figure


def _allocation(study: Study, panels: Panels) -> Figure:
    figure, axes = _grid(study, panels, min(2, len(panels)), 3.0)
    for ax, lines in zip(axes, panels.values(), strict=True):
        responses = sorted({x for line in lines for x in line.points})
        ax.set_xticks([math.log2(x) for x in responses], [_shapes(study, lines, x) for x in responses])
        ax.set_xlabel("prompts x responses of an update")
    return figure


def _shapes(study: Study, lines: Sequence[Line], responses: float) -> str:
    """The prompts at a number of responses, those of most arms first; other ones with their arms' names."""
    arms, found = first_arms(study), dict[int, list[str]]()
    for line in lines:
        if (point := line.points.get(responses)) and (size := shape(arms[point.arm], point.choice.allocation)):
            found.setdefault(size.prompts, []).append(line.label)
    most, *others = sorted(found, key=lambda prompts: -len(found[prompts]))
    named = [f"{', '.join(found[prompts])}: {prompts} x {responses:g}" for prompts in others]
    return "\n".join([f"{most} x {responses:g}", *named])


def _grid(study: Study, panels: Panels, across: int, height: float) -> tuple[Figure, list[Axes]]:
    """Panels with the same axes, x in doublings, with lines that stand a little apart, and a legend below."""
    metric = study.deciding_metric
    figure = Figure(figsize=(WIDTH, 0.8 + height * math.ceil(len(panels) / across)), layout="constrained")
    grid = figure.subplots(math.ceil(len(panels) / across), across, squeeze=False, sharex=True, sharey=True)
    axes: list[Axes] = list(grid.flat)
    for ax in axes[len(panels) :]:
        ax.remove()
    axes = axes[: len(panels)]
    places = sorted({math.log2(x) for lines in panels.values() for line in lines for x in line.points})
    apart = min(APART, ALL / max(map(len, panels.values()))) * min((b - a for a, b in pairwise(places)), default=1.0)
    seen: list[float] = []
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        for n, line in enumerate(lines):
            seen += _draw(ax, line, metric, apart * (n - (len(lines) - 1) / 2))
        ax.set_title(title, fontsize=8)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.grid(axis="y", alpha=0.3)
    for ax in axes[-across:]:  # the lowest of each column
        ax.tick_params(axis="x", labelbottom=True)
    axes[0].set_ylim(*(frame(seen, -2, 102) if unit(metric) == "%" else frame(seen)))
    figure.supylabel(f"{fill(metric_text.name(metric), 40)} ({unit(metric)})", y=0.58, fontsize=8)
    shades = list(_shades(study))
    named = {line.label: line for lines in panels.values() for line in lines}
    titled = all(title.endswith(line.label) for title, lines in panels.items() for line in lines)
    for line in sorted(named.values(), key=lambda line: shades.index(line.label) if line.label in shades else 0):
        if not titled:
            axes[0].plot([], [], color=line.colour, linestyle=line.dashes, label=line.label)
    axes[0].plot([], [], "o", color="black", markerfacecolor="white", markersize=5, label="chosen")
    legend(figure, axes[0])
    return figure, axes


def _draw(ax: Axes, line: Line, metric: str, aside: float) -> list[float]:
    """A line; returns the values that it has, limits of intervals among them."""
    places = sorted(line.points)
    x = [math.log2(place) + aside for place in places]
    y = [scaled(line.points[place], metric) for place in places]
    ax.plot(x, [each.mean for each in y], "o", linestyle=line.dashes, color=line.colour, linewidth=1.2, markersize=2.5)
    ax.vlines(x, [each.low for each in y], [each.high for each in y], color=line.colour, linewidth=0.7, alpha=0.7)
    for place, at, each in zip(places, x, y, strict=True):
        if line.points[place].chosen:
            ax.plot(at, each.mean, "o", color=line.colour, markerfacecolor="white", markersize=5, markeredgewidth=1.2)
    return [value for each in y for value in each]
