"""The figure of exact rows that have a share c: what bends, and where continuations pay, as the reward changes."""

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.records.study_results import StudyResults
from ablations.report.figure_style import COLOURS, WIDTH

Rows = list[dict[str, str]]
BIAS, NOISE = ("relative bias", "predicted bias"), ("noise per token", "predicted noise per token")
LABELS = "bias relative to\nthe gradient", "noise per token\nrelative to RLOO"
UNBENT = "one reward for the response;\nreward as earned"
CAPTION = (
    "Exact, as the reward turns from a sum over tokens (c = 0) into another reward (c = 1). Lines: predicted. Points: "
    "enumerated. Above: bias over the length of the gradient. Below: TRePO's noise over RLOO's for as many generated "
    "tokens; below 1 its continuations pay."
)


def draw(results: StudyResults) -> tuple[Figure, str] | None:
    """The figure and its caption; None where the exact rows have no share."""
    rows: Rows = [row for row in results.exact if row.get("c")]
    if not rows:
        return None
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    bent = _named(rows, lambda row: float(row["predicted bias"]) > 0)
    forked = [name for name in _named(rows, lambda row: bool(row[NOISE[1]])) if name != _baseline(rows)]
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    panels = figure.subplots(2, len(tasks), sharex=True, sharey="row", squeeze=False)
    for line, names, columns in zip(panels, (bent, forked), (BIAS, NOISE), strict=True):
        for ax, task in zip(line, tasks, strict=True):
            for i, name in enumerate(names):
                own = [row for row in rows if (row["task"], row["estimator"]) == (task, name)]
                _line(ax, own, columns, name, COLOURS[i % len(COLOURS)])
            ax.grid(axis="y", alpha=0.3)
    for ax, task in zip(panels[0], tasks, strict=True):
        _worst(ax, [row for row in rows if row["task"] == task and row["estimator"] not in bent])
        ax.set(title=task, xticks=(0, 0.5, 1), xlim=(-0.04, 1.04))
    for ax in panels[1]:
        ax.axhline(1, color="black", linewidth=0.8)
        ax.set_xlabel("c")
    for line, label in zip(panels, LABELS, strict=True):
        line[0].set_ylabel(label)
        line[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=7, handlelength=1.3)
    return figure, CAPTION


def _line(ax: Axes, rows: Rows, columns: tuple[str, str], name: str, colour: str) -> None:
    rows = sorted(rows, key=lambda row: float(row["c"]))
    x = [float(row["c"]) for row in rows]
    measured, predicted = ([float(row[column]) for row in rows] for column in columns)
    style: Any = {"color": colour, "linewidth": 1.3}
    ax.plot(x, predicted, label=name, **style)
    ax.plot(x, measured, "o", color=colour, markersize=3.5, clip_on=False)


def _worst(ax: Axes, rows: Rows) -> None:
    """The largest bias of those that should have none."""
    worst: dict[float, float] = {}
    for row in rows:
        worst[float(row["c"])] = max(float(row[BIAS[0]]), worst.get(float(row["c"]), 0.0))
    ax.plot([0, 1], [0, 0], color="black", linewidth=1.3, label=UNBENT)
    ax.plot(list(worst), list(worst.values()), "o", color="black", markersize=3.5, clip_on=False)


def _named(rows: Rows, wanted: Callable[[dict[str, str]], bool]) -> list[str]:
    """The estimators that have such a row."""
    return list(dict.fromkeys(row["estimator"] for row in rows if wanted(row)))


def _baseline(rows: Rows) -> str:
    return next(row["estimator"] for row in rows if float(row[NOISE[0]]) == 1)
