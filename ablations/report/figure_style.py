"""How figures look: sizes, colours and frames that they share."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ablations.records.study_results import StudyResults

# Okabe and Ito's colours, which the colour-blind tell apart; the baseline is black
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "svg.hashsalt": "ablations",  # the same numbers give the same file
}
MANY = 1000  # from the first to the last tick of a logarithmic axis
WIDTH = 7.0  # inches: two columns of text


def colours(results: StudyResults) -> dict[str, str]:
    """By arm; equal labels of different tasks have one colour."""
    return {arm: "black" if n < 0 else COLOURS[n % len(COLOURS)] for arm, n in _numbers(results).items()}


def dashes(results: StudyResults, arm: str) -> str:
    """Solid lines, and broken ones where the colours are used up."""
    return ("-", "--", ":")[max(0, _numbers(results)[arm]) // len(COLOURS) % 3]


def _numbers(results: StudyResults) -> dict[str, int]:
    """-1 for baselines, the others counted in the order of their labels."""
    study, numbers = results.study, dict[str, int]()
    trained = [arm.name for arm in study.arms if not arm.frozen]  # frozen arms may have another baseline
    baselines = {results.label(study.baseline_of(arm)) for arm in trained or study.arm_names}
    for arm in study.arm_names:
        if (own := results.label(arm)) not in baselines:
            numbers.setdefault(own, len(numbers))
    return {arm: numbers.get(results.label(arm), -1) for arm in study.arm_names}


def rows(figure: Figure, results: StudyResults) -> list[tuple[SubFigure, list[str]]]:
    """A row of panels for each group of arms with one baseline."""
    groups = list(results.groups.values())
    return list(zip(figure.subfigures(len(groups), 1, squeeze=False)[:, 0], groups, strict=True))


def legend(row: Any, *axes: Axes) -> None:
    """Below a figure or a row of it: what the axes name, each name once."""
    named = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    labels, handles = list(named), list(named.values())
    width = 0.45 + 0.058 * max(map(len, labels), default=0)  # inches, of an entry
    columns = max(1, min(6, int(WIDTH / width)))
    row.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=2.4, columnspacing=1.2)


def frame(seen: list[float], least: float = -math.inf, most: float = math.inf) -> tuple[float, float]:
    """Limits of an axis around the values seen: intervals from few seeds would dwarf them."""
    low, high = (f([v for v in seen if math.isfinite(v)], default=0.0) for f in (min, max))
    margin = 0.15 * (high - low) or 1.0
    return max(least, low - margin), min(most, high + margin)


def plain_logarithms(ax: Axes, which: str = "xy") -> None:
    """Logarithmic axes of what was drawn, with ordinary numbers at 1, 2 and 5, or where they are many at 1."""
    for name in which:
        ax.set(**{f"{name}scale": "log"})
        axis = {"x": ax.xaxis, "y": ax.yaxis}[name]
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < MANY * low else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.set_minor_formatter(NullFormatter())
