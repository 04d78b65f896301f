"""How figures look: sizes, colours and frames that they share."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ablations import arm_colours
from ablations.records.study_results import StudyResults

COLOURS = arm_colours.OTHERS  # of what is no arm
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "svg.hashsalt": "ablations",  # the same numbers give the same file
}
FEW, MANY = 8, 1000  # from the first to the last tick of a logarithmic axis
WIDTH = 7.0  # inches: two columns of text


def colours(results: StudyResults) -> dict[str, str]:
    """By arm."""
    return arm_colours.colours(results.study)


def dashes(results: StudyResults, arm: str) -> str:
    """The style of its lines."""
    return arm_colours.dashes(results.study)[arm]


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
    """Logarithmic axes of what was drawn, with ordinary numbers: more of them the shorter the axis."""
    for name in which:
        ax.set(**{f"{name}scale": "log"})
        axis = {"x": ax.xaxis, "y": ax.yaxis}[name]
        low, high = axis.get_view_interval()
        subs = (1, 1.5, 2, 3, 5, 7) if high < FEW * low else (1, 2, 5) if high < MANY * low else (1,)
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.set_minor_formatter(NullFormatter())
