"""Two bars a setting: what rewards for tokens bring, and what a stronger scalar brings."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.analysis import effects
from ablations.analysis.statistics import Interval
from ablations.records.study_results import StudyResults
from ablations.report.figure_style import COLOURS, WIDTH, legend, plain_logarithms
from ablations.studies.token_information import RTO_SCALAR, RTO_TOKENS, SCALAR, TOKEN_INFORMATION

Effects = Mapping[str, Mapping[str, float | Interval]]  # by name and setting
CAPTION = (
    "What rewards for tokens and a stronger scalar bring. Left: the causal placement against the last token, and the "
    "stronger against the weaker reward model. Right: RTO against itself paid at the last token, and that against the "
    "task's own reward. {parts}"
)
ENUMERATED = "Enumerated: samples for equal progress, as a factor; left of 1 is better."
LEARNED = (
    "Learned: difference in sampled validation accuracy over the budget, 95% t intervals; right of 0 is better. On "
    "word problems: attention."
)
PAIRS = (TOKEN_INFORMATION, SCALAR), (RTO_TOKENS, RTO_SCALAR)
SHADES = {name: COLOURS[(i + 4 * j) % len(COLOURS)] for j, names in enumerate(PAIRS) for i, name in enumerate(names)}
HEIGHT = 0.36  # of a bar; a setting has two


def draw(results: StudyResults) -> tuple[Figure, str] | None:
    """The figure and its caption; None for another study. A row of panels for what was enumerated, one for learning."""
    exact, points = effects.enumerated(results), effects.learned(results)
    lines: list[Effects] = [found for found in (exact, points) if found]
    if not lines:
        return None
    settings = [list(dict.fromkeys(each for bars in found.values() for each in bars)) for found in lines]
    counts = [len(each) for each in settings]
    figure = Figure(figsize=(WIDTH, 0.9 + 0.6 * len(lines) + 0.26 * sum(counts)), layout="constrained")
    panels = figure.subplots(len(lines), len(PAIRS), sharey="row", squeeze=False, height_ratios=counts)
    for axes, found, named in zip(panels, lines, settings, strict=True):
        tasks = list(dict.fromkeys(setting.partition(",")[0] for setting in named))
        named.sort(key=lambda setting: tasks.index(setting.partition(",")[0]))
        for ax, names in zip(axes, PAIRS, strict=True):
            _bars(ax, named, {name: found.get(name, {}) for name in names}, 1.0 if found is exact else 0.0)
            if found is exact:
                plain_logarithms(ax, "x")
            ax.set_xlabel("samples for equal progress (x)" if found is exact else "difference (points)")
        axes[0].set_yticks(range(len(named)), named)
        axes[0].set_ylim(len(named) - 0.5, -0.5)
    legend(figure, *panels.flat)
    return figure, CAPTION.format(parts=" ".join([*([ENUMERATED] if exact else []), *([LEARNED] if points else [])]))


def _bars(ax: Axes, settings: Sequence[str], found: Effects, neutral: float) -> None:
    """From ``neutral``, with intervals where there are some."""
    for n, name in enumerate(found):
        for y, setting in enumerate(settings):
            value = found[name].get(setting)
            if value is None:
                continue
            place, mean = y + (n - 0.5) * HEIGHT, value.mean if isinstance(value, Interval) else value
            ax.barh(place, mean - neutral, HEIGHT, left=neutral, color=SHADES[name], label=name)
            if isinstance(value, Interval) and value.low == value.low:
                ax.plot([value.low, value.high], [place, place], color="black", linewidth=0.8)
    ax.axvline(neutral, color="black", linewidth=0.8)
    ax.grid(axis="x", alpha=0.2)
