"""Tables of studies with several tasks: a row an arm, a column a task."""

from collections.abc import Callable, Sequence

from ablations.analysis import metric_text
from ablations.analysis.comparisons import points
from ablations.analysis.statistics import first_reached, mean_interval, waiting
from ablations.metric_names import OVER_SECONDS, SECONDS
from ablations.records.study_results import StudyResults

CURVE = "val/accuracy_sampled"
LEVEL = 0.9


def tables(results: StudyResults) -> list[tuple[str, list[str], list[list[str]]]]:
    """Captions, columns and rows; none for a study of one task."""
    tasks = list(dict.fromkeys(arm.task for arm in results.study.arms if arm.task and not arm.frozen))
    if not tasks:
        return []
    return [_values(results, tasks, results.study.primary_metric), _reached(results, tasks), _cost(results, tasks)]


Table = tuple[str, list[str], list[list[str]]]


def _values(results: StudyResults, tasks: Sequence[str], metric: str) -> Table:
    caption = f"{metric_text.name(metric)} in percent: mean over seeds and 95% t interval."
    return (
        caption,
        ["arm", *tasks],
        _rows(results, tasks, lambda arm: points(mean_interval(list(results.by_seed(arm, metric).values())))),
    )


def _reached(results: StudyResults, tasks: Sequence[str]) -> Table:
    axis, what, scale = (
        ("seconds", "Seconds of training", 1) if timed(results) else ("tokens", "Generated tokens", 1000)
    )
    caption = (
        f"{what} until `{CURVE}` first is {100 * LEVEL:.0f}% of the best that is possible, 1: the Kaplan-Meier median "
        f"over seeds{', in thousands' if scale > 1 else ''}, seeds that never got there right-censored at the end of "
        "the budget; in brackets how many got there. — : fewer than half."
    )

    def text(arm: str) -> str:
        cells = [cell for cell in results.of(arm) if cell.generated]
        if not cells:
            return ""
        most = results.budget(arm, axis)  # the last iteration ends a little behind it
        places = [first_reached(cell.along(CURVE, axis), LEVEL) for cell in cells]
        ends = [min(most, max(c.axis(axis).values())) for c, place in zip(cells, places, strict=True) if place is None]
        found = waiting([min(most, place) for place in places if place is not None], ends)
        known = 2 * found.reached >= found.seeds and found.median == found.median  # a slow run's end comes early
        median = f"{found.median / scale:.1f}" if known else "—"
        return f"{median} ({found.reached} of {found.seeds})"

    return caption, ["arm", *tasks], _rows(results, tasks, text)


def timed(results: StudyResults) -> bool:
    """Whether the study compares at equal seconds, instead of equal generated tokens."""
    return results.study.primary_metric.startswith(OVER_SECONDS)


def _cost(results: StudyResults, tasks: Sequence[str]) -> Table:
    caption = "Sampled test accuracy at the end, in percent, and seconds of training a thousand generated tokens."

    def text(arm: str) -> str:
        accuracy = points(mean_interval(list(results.by_seed(arm, "test/accuracy_sampled").values())))
        timed = [cell for cell in results.of(arm) if cell.generated and SECONDS in cell.curves]
        spent = [1000 * max(cell.axis(SECONDS).values()) / cell.generated for cell in timed]
        return accuracy + (f"; {mean_interval(spent).mean:.2f} s" if spent else "")

    return caption, ["arm", *tasks], _rows(results, tasks, text)


def _rows(results: StudyResults, tasks: Sequence[str], text: Callable[[str], str]) -> list[list[str]]:
    arms = {(results.label(arm), results.study.arm(arm).task): arm for arm in results.arms}
    labels = list(dict.fromkeys(own for own, _ in arms))
    return [[own, *(text(arms[own, task]) if (own, task) in arms else "" for task in tasks)] for own in labels]
