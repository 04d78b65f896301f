"""A table with a row an arm that was trained or tested: accuracy, gain, cost, and noise at the start."""

from collections.abc import Sequence
from statistics import fmean

from ablations.analysis import metric_text
from ablations.analysis.statistics import Interval, first_reached, mean_interval, paired_interval, waiting
from ablations.analysis.tables import Column, Table, Value
from ablations.config import Config
from ablations.metric_names import MEMORY, OVER_SECONDS, OVER_TOKENS, SECONDS
from ablations.records.cell_result import CellResult
from ablations.records.study_results import TEST, StudyResults

CURVE = "val/accuracy_sampled"
LEVEL = 0.9  # of the best that is possible
ARM, GREEDY, SAMPLED, GAIN = "arm", "greedy test accuracy", "sampled test accuracy", "gain in sampled test accuracy"
SEEDS, TOKENS, TIME, PEAK = "seeds", "generated tokens", "time with evaluation", "peak memory"
STAGES, RATIO = "time of stages", "tr Sigma / |G|^2 at start"
SAYS = "has each arm's test accuracy, gain over its baseline, {budget}tokens, time and memory{noise}."
REACHED = (
    '"Until 90%" is the Kaplan-Meier median over seeds of the {axis} until `val/accuracy_sampled` first is 90% of the '
    "best that is possible, 1. Seeds that never got there are right-censored at the end of the budget; the median is "
    "empty where fewer than half got there. "
)
GUIDE = (
    "Means over seeds with 95% t intervals. Gains are paired by seed: both sides started from the same weights and "
    "answered the same problems. {reached}Time is with evaluation; that of stages is what is made before a cell runs, "
    "such as a reward model or a half-trained policy, whose tokens are not among the generated ones. Memory is that "
    "of the whole process.{noise}"
)
NOISE = (
    " With G the mean gradient of a group, Sigma its covariance and n groups, tr Sigma / n is the variance of the "
    "gradient of one iteration; tr Sigma / |G|^2 is a ratio of means over seeds of unbiased estimates, which is "
    "unresolved where the 95% interval of |G|^2 reaches 0."
)


def table(results: StudyResults) -> Table:
    """In percent and points of accuracy; without rows where nothing was trained or tested."""
    metric, (axis, unit) = results.study.primary_metric, _axis(results)
    columns = (
        Column("task"),
        Column(ARM),
        Column(SEEDS),
        Column("prompts per iteration"),
        Column("responses per prompt"),
        Column(GREEDY, "%", ".1f", True),
        Column(SAMPLED, "%", ".1f", True),
        Column(GAIN, "points", ".1f", True),
        Column("sampled validation accuracy over the budget", "%", ".1f", True),
        Column(f"{axis} until 90%", unit, ".1f"),
        Column("seeds that got there"),
        Column(TOKENS, "", ".0f"),
        Column(TIME, "s", ".0f"),
        Column(STAGES, "s", ".0f"),
        Column("training time per 1000 generated tokens", "s", ".2f"),
        Column(PEAK, "MiB", ".0f"),
        Column("tr Sigma / n at start", "", ".2g", True),
        Column(RATIO, "", ".0f"),
        Column("|G|^2 resolved at start"),
    )
    budgets = metric.startswith((OVER_TOKENS, OVER_SECONDS))
    tasks = any(results.study.arm(arm).task for arm in results.arms)
    rows = [
        [
            results.study.arm(arm).task,
            arm,
            len(results.of(arm)),
            *_sampled(results.config(arm)),
            _accuracy(results, arm, TEST[0]),
            _accuracy(results, arm, TEST[2]),
            _gain(results, arm),
            _accuracy(results, arm, metric) if budgets else None,
            *(_reached(results, arm) if tasks else (None, None)),
            *_cost(results.of(arm)),
            fmean(peaks) if (peaks := list(results.by_seed(arm, MEMORY).values())) else None,
            *_noise(results, arm),
        ]
        for arm in results.arms
    ]
    noisy = any(row[-1] for row in rows)
    says = SAYS.format(
        budget="mean over the budget, " if budgets else "", noise=" and gradient noise at the start" if noisy else ""
    )
    guide = GUIDE.format(reached=REACHED.format(axis=axis) if tasks else "", noise=NOISE if noisy else "")
    several = len({arm.task for arm in results.study.arms if not arm.frozen}) > 1
    return Table("arms", "By task" if several else "By arm", says, columns, rows, guide)


def _sampled(config: Config) -> tuple[int | None, int | None]:
    """Prompts an iteration and responses to each, continuations left out; None where they are a default."""
    return config.get("data", {}).get("prompts_per_iteration"), config.get("model", {}).get("init_args", {}).get(
        "samples"
    )


def timed(results: StudyResults) -> bool:
    """Whether the study compares at equal seconds, instead of equal generated tokens."""
    return results.study.primary_metric.startswith(OVER_SECONDS)


def _axis(results: StudyResults) -> tuple[str, str]:
    return ("training time", "s") if timed(results) else ("generated tokens", "thousands")


def _accuracy(results: StudyResults, arm: str, metric: str) -> Interval:
    return Interval(*(100 * x for x in mean_interval(list(results.by_seed(arm, metric).values()))))


def _gain(results: StudyResults, arm: str) -> Interval | None:
    baseline = results.study.baseline_of(arm)
    if arm == baseline or not results.of(baseline):
        return None
    return Interval(*(100 * x for x in gain(results, arm)))


def gain(results: StudyResults, arm: str) -> Interval:
    """In sampled test accuracy, against the arm's baseline."""
    own, other = (results.by_seed(each, TEST[2]) for each in (arm, results.study.baseline_of(arm)))
    return paired_interval(own, other)


def _reached(results: StudyResults, arm: str) -> tuple[float | None, int | None]:
    """The median, and how many seeds got there."""
    cells = [cell for cell in results.of(arm) if cell.generated]
    if not cells:
        return None, None
    axis, scale = ("seconds", 1) if timed(results) else ("tokens", 1000)
    most = results.budget(arm, axis)  # the last iteration ends a little behind it
    places = [first_reached(cell.along(CURVE, axis), LEVEL) for cell in cells]
    ends = [min(most, max(c.axis(axis).values())) for c, place in zip(cells, places, strict=True) if place is None]
    found = waiting([min(most, place) for place in places if place is not None], ends)
    known = 2 * found.reached >= found.seeds and found.median == found.median  # a slow run's end comes early
    return found.median / scale if known else None, found.reached


def _cost(cells: Sequence[CellResult]) -> list[Value]:
    """Tokens and seconds of a cell, seconds of what was made for it, and seconds a thousand tokens."""
    stages = fmean(cell.stage_seconds for cell in cells)
    known = [cell for cell in cells if cell.generated and SECONDS in cell.curves]
    speeds = [1000 * max(cell.axis(SECONDS).values()) / cell.generated for cell in known]
    return [
        fmean(cell.generated for cell in cells),
        fmean(cell.seconds for cell in cells),
        stages or None,
        fmean(speeds) if speeds else None,
    ]


def _noise(results: StudyResults, arm: str) -> list[Value]:
    """At the weights that all arms start from; an arm that generates nothing follows another gradient."""
    traces, norms = (list(results.first(arm, f"gradient/{name}").values()) for name in ("trace_cov", "norm_sq"))
    if not norms or not fmean(norms) or not any(cell.generated for cell in results.of(arm)):
        return [None, None, None]
    resolved = "yes" if mean_interval(norms).low > 0 else "no"
    return [mean_interval(list(results.start_noise(arm).values())), fmean(traces) / fmean(norms), resolved]


def sentence(results: StudyResults) -> str:
    """How many arms end above the untrained one that they start from; empty where there is none."""
    arms = [arm for arm in results.arms if results.study.baseline_of(arm) != arm]
    untrained = {results.study.baseline_of(arm) for arm in results.arms}
    if not arms or any(cell.iterations for arm in untrained for cell in results.of(arm)):
        return ""
    gains = {arm: gain(results, arm) for arm in arms}
    above = [arm for arm in arms if gains[arm].low > 0]
    if not above:
        return f"None of {len(arms)} trained arms ends above its start."
    least, most = (f"{100 * f(gains[arm].mean for arm in above):+.1f}" for f in (min, max))
    return (
        f"{len(above)} of {len(arms)} trained arms end above their start in {metric_text.name(TEST[2])}, by the 95% "
        f"interval of the gain; their gains are {least} to {most} points."
    )
