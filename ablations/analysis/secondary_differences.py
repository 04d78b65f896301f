"""What stands beside the planned comparisons: the same differences at the end of training, and task by task."""

from ablations.analysis import metric_text
from ablations.analysis.comparisons import markdown
from ablations.analysis.statistics import paired_interval
from ablations.metric_names import OVER_SECONDS, OVER_TOKENS
from ablations.records.study_results import TEST, StudyResults

ENDS = {TEST[2]: "sampled test accuracy", TEST[0]: "greedy test accuracy"}
CAPTION = (
    "The planned differences once more{where}: mean over seeds and 95% t interval. Not planned, not adjusted, and no "
    "comparison's outcome: they say what a mean over a budget or over tasks is made of."
)


def section(results: StudyResults) -> list[str]:
    """As Markdown; nothing where the planned comparisons say it all."""
    made = [each for each in results.study.comparisons if all(map(results.of, each.arms + each.against))]
    pooled = [each for each in made if 1 < len(each.arms) == len(each.against)]
    budgets = (OVER_TOKENS, OVER_SECONDS)
    averaged = [each for each in made if results.study.metric_of(each).startswith(budgets)]
    tasks = list(dict.fromkeys(results.study.arm(arm).task for each in pooled for arm in each.arms))
    ends = [metric for metric in ENDS if averaged and results.by_seed(averaged[0].arms[0], metric)]
    if not tasks and not ends:
        return []
    rows = []
    for each in (each for each in made if each in pooled or each in averaged):
        at_end = [_difference(results, each.arms, each.against, metric) if each in averaged else "" for metric in ends]
        pairs = list(zip(each.arms, each.against, strict=True)) if each in pooled else []
        by_task = {results.study.arm(a).task: ((a,), (b,)) for a, b in pairs}
        metric = results.study.metric_of(each)
        split = [_difference(results, *by_task[task], metric) if task in by_task else "" for task in tasks]
        rows.append([str(each), *at_end, *split])
    where = [*(["at the end of training"] if ends else []), *(["in each task"] if tasks else [])]
    columns = ["comparison", *(ENDS[metric] for metric in ends), *tasks]
    return [markdown(columns, rows), CAPTION.format(where=", " + " and ".join(where))]


def _difference(results: StudyResults, arms: tuple[str, ...], against: tuple[str, ...], metric: str) -> str:
    interval = paired_interval(results.mean_by_seed(arms, metric), results.mean_by_seed(against, metric))
    return metric_text.difference(interval, metric)
