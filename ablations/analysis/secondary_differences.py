"""What stands beside the planned comparisons: the same differences in other metrics, and task by task."""

from ablations.analysis import metric_text
from ablations.analysis.statistics import Interval, paired_interval
from ablations.analysis.tables import Column, Table, Value
from ablations.metric_names import OVER_SECONDS, OVER_TOKENS
from ablations.metric_units import unit
from ablations.records.study_results import TEST, StudyResults
from ablations.study import Comparison

ENDS = TEST[2], TEST[0]  # beside a mean over the budget: accuracies at the end
SHORT = {TEST[2]: "at the end", TEST[0]: "greedy"}  # headings of columns on the page
COLUMNS = ("comparison", "task", "metric", "unit", "difference", "difference low", "difference high")
SAYS = "has the planned differences {where}."
GUIDE = (
    "Means over seeds with 95% t intervals. These differences were not planned and are not adjusted, and decide "
    "nothing."
)
LEGEND = "Beside it, not planned and unadjusted: {what}."


def table(results: StudyResults) -> Table:
    """Without rows where the planned comparisons say it all."""
    made = [each for each in results.study.comparisons if all(map(results.of, each.arms + each.against))]
    pooled = [each for each in made if 1 < len(each.arms) == len(each.against)]
    rows: list[list[Value]] = []
    for each in made:
        metric = results.study.metric_of(each)
        for other in metrics(results, each):
            rows.append([str(each), "", _named(other), *_fields(results, each, other)])
        if each in pooled:
            for arm, against in zip(each.arms, each.against, strict=True):
                task, own = results.study.arm(arm).task, Comparison((arm,), (against,))
                rows.append([str(each), task, metric_text.name(metric), *_fields(results, own, metric)])
    where = ["in other metrics"] if any(metrics(results, each) for each in made) else []
    where += ["in each task"] if pooled else []
    heading = "By task" if pooled else "By arm"
    return Table("differences", heading, SAYS.format(where=" and ".join(where)), [*map(Column, COLUMNS)], rows, GUIDE)


def metrics(results: StudyResults, comparison: Comparison) -> tuple[str, ...]:
    """Those beside the metric that decides: the study's own or, of a mean over a budget, the accuracies at the end."""
    decides = results.study.metric_of(comparison)
    wanted = results.study.beside or (ENDS if decides.startswith((OVER_TOKENS, OVER_SECONDS)) else ())
    return tuple(name for name in wanted if name != decides and results.by_seed(comparison.arms[0], name))


def columns(results: StudyResults) -> dict[str, list[str]]:
    """Differences in the metrics that the study names, by heading, a text for each planned comparison that was made."""
    made = [each for each in results.study.comparisons if all(map(results.of, each.arms + each.against))]
    return {
        short(name): [metric_text.difference(_difference(results, each, name), name) for each in made]
        for name in results.study.beside
    }


def legend(results: StudyResults) -> str:
    """What :func:`columns` has; empty if nothing."""
    what = [f"*{short(name)}*, {metric_text.name(name)}" for name in results.study.beside]
    return LEGEND.format(what="; ".join(what)) if what else ""


def short(metric: str) -> str:
    """For the heading of a column."""
    return SHORT.get(metric) or ("over the budget" if metric.startswith((OVER_TOKENS, OVER_SECONDS)) else metric)


def _named(metric: str) -> str:
    return f"{metric_text.name(metric)}{' at the end' if metric in ENDS else ''}"


def _difference(results: StudyResults, comparison: Comparison, metric: str) -> Interval:
    first, second = (results.mean_by_seed(arms, metric) for arms in (comparison.arms, comparison.against))
    return paired_interval(first, second)


def _fields(results: StudyResults, comparison: Comparison, metric: str) -> list[str]:
    """The unit, the mean and its limits."""
    return [unit(metric), *(metric_text.number(x, metric) for x in _difference(results, comparison, metric))]
