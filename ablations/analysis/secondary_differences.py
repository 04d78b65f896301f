"""What stands beside the planned comparisons: the same differences at the end of training, and task by task."""

from ablations.analysis import metric_text
from ablations.analysis.statistics import paired_interval
from ablations.analysis.tables import Column, Table, Value
from ablations.metric_names import OVER_SECONDS, OVER_TOKENS
from ablations.metric_units import unit
from ablations.records.study_results import TEST, StudyResults

ENDS = {TEST[2]: "sampled test accuracy at the end", TEST[0]: "greedy test accuracy at the end"}
COLUMNS = ("comparison", "task", "metric", "unit", "difference", "difference low", "difference high")
SAYS = "has the planned differences {where}."
GUIDE = (
    "Means over seeds with 95% t intervals. These differences were not planned and are not adjusted, and decide "
    "nothing: they show what a mean over {what} is made of."
)


def table(results: StudyResults) -> Table:
    """Without rows where the planned comparisons say it all."""
    made = [each for each in results.study.comparisons if all(map(results.of, each.arms + each.against))]
    pooled = [each for each in made if 1 < len(each.arms) == len(each.against)]
    budgets = (OVER_TOKENS, OVER_SECONDS)
    averaged = [each for each in made if results.study.metric_of(each).startswith(budgets)]
    ends = [metric for metric in ENDS if averaged and results.by_seed(averaged[0].arms[0], metric)]
    rows: list[list[Value]] = []
    for each in made:
        metric = results.study.metric_of(each)
        if each in averaged:
            for end in ends:
                rows.append([str(each), "", ENDS[end], *_difference(results, each.arms, each.against, end)])
        if each in pooled:
            for arm, other in zip(each.arms, each.against, strict=True):
                task, named = results.study.arm(arm).task, metric_text.name(metric)
                rows.append([str(each), task, named, *_difference(results, (arm,), (other,), metric)])
    where = [*(["at the end of training"] if ends else []), *(["in each task"] if pooled else [])]
    what = [*(["a budget"] if ends else []), *(["tasks"] if pooled else [])]
    says, guide = SAYS.format(where=" and ".join(where)), GUIDE.format(what=" or over ".join(what))
    return Table("differences", "By task" if pooled else "By arm", says, [*map(Column, COLUMNS)], rows, guide)


def _difference(results: StudyResults, arms: tuple[str, ...], against: tuple[str, ...], metric: str) -> list[str]:
    """The unit, the mean and its limits."""
    interval = paired_interval(results.mean_by_seed(arms, metric), results.mean_by_seed(against, metric))
    return [unit(metric), *(metric_text.number(x, metric) for x in interval)]
