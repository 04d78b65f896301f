"""The response surface: what the trials came to by allocation and learning rate, and whether the best lies at an edge.

Arms that share a choice (``tuned_as``) are one: a trial's value is the mean over those of them that were tried.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from ablations.analysis import metric_text
from ablations.analysis.statistics import Interval, mean_interval
from ablations.analysis.tables import Column, Table, Value, listed
from ablations.study import Arm, Choice, Study, Tuning

HEADINGS = ALLOCATED, RATES = "Prompts and responses", "Learning rates"  # of the report's part on trials
MOST_NAMED = 5  # of arms at an edge, in the answer; more are counted
INSIDE = "no"
SAYS = "has the trials: means over seeds by {what}."
GUIDE = (
    "A row is what was tried of an arm: {what}a learning rate, on seeds that the study does not use again. Means are "
    "over these seeds, with 95% t intervals; the first metric chooses. The value of a chosen row is the best of "
    "several on the same seeds, and so a little too high."
)
CHOSEN = "has each arm's best {what}, and whether it is at an edge."
CHOSEN_GUIDE = (
    "The learning rate is the best of {rates}{allocations}, on seed{s} {seeds}, by {metric}. Of equal ones it is the "
    "lowest. A choice at an edge is the first or the last that was tried: a better one may lie beyond.{most}"
)
BEYOND = " No algorithm can have fewer responses to a prompt than one or, where it compares within a group, two."


class Point(NamedTuple):
    """What was tried of an arm, and what it came to.

    Attributes:
        arm: the name that its arms are ``tuned_as``.
        metrics: by name the mean over the trials' seeds, with its 95% t interval; the deciding one is the first.
        chosen: whether it is the best.
    """

    arm: str
    choice: Choice
    metrics: Mapping[str, Interval]
    chosen: bool

    @property
    def score(self) -> Interval:
        """Of the deciding metric."""
        return next(iter(self.metrics.values()))


class Shape(NamedTuple):
    """How an update's tokens are spent."""

    prompts: int
    responses: int


class Chosen(NamedTuple):
    """An arm's choice, and where in what was tried it lies.

    Attributes:
        rate_edge: ``lowest``, ``highest`` or ``no``.
        allocation_edge: ``fewest responses``, ``most responses`` or ``no``; empty where there are no two allocations.
    """

    arm: str
    choice: Choice
    rate_edge: str
    allocation_edge: str


def first_arms(study: Study) -> dict[str, Arm]:
    """Of the arms that share a choice the first one that is tried, by the name that they are ``tuned_as``."""
    found: dict[str, Arm] = {}
    for arm in study.arms:
        if arm.tried:
            found.setdefault(str(arm.tuned_as), arm)
    return found


def points(study: Study) -> list[Point]:
    """All that was tried: by arm, then by allocation in the arm's order, then from the lowest rate to the highest.

    Empty where there are no trials.
    """
    groups = {arm.name: str(arm.tuned_as) for arm in study.arms if arm.tried}
    values: dict[tuple[str, Choice], dict[str, dict[int, list[float]]]] = {}
    for trial in study.trials:
        point = values.setdefault((groups[trial.arm], trial.choice), {})
        for name, value in trial.metrics.items():
            point.setdefault(name, {}).setdefault(trial.seed, []).append(value)
    found = []
    for name, arm in first_arms(study).items():
        names = list(arm.allocations) or [""]
        own = [choice for group, choice in values if group == name]
        for choice in sorted(own, key=lambda each: (names.index(each.allocation), each.rate)):
            by_seed = values[name, choice]
            order = dict.fromkeys((study.deciding_metric, *by_seed))
            metrics = {each: mean_interval([fmean(x) for x in by_seed[each].values()]) for each in order}
            found.append(Point(name, choice, metrics, choice == arm.chosen))
    return found


def choices(study: Study) -> list[Chosen]:
    """What the trials chose, by arm; empty where there are none."""
    if study.tuning is None or not study.trials:
        return []
    return [_chosen(study.tuning.rates_of(arm), name, arm) for name, arm in first_arms(study).items()]


def _chosen(rates: Sequence[float], name: str, arm: Arm) -> Chosen:
    assert arm.chosen is not None
    allocations = list(arm.allocations)
    allocation = ""
    if len(allocations) > 1:  # they are in order, from most prompts to fewest
        ends = {allocations[0]: "fewest responses", allocations[-1]: "most responses"}
        allocation = ends.get(arm.chosen.allocation, INSIDE)
    rate = {min(rates): "lowest", max(rates): "highest"}.get(arm.chosen.rate, INSIDE) if len(set(rates)) > 1 else INSIDE
    return Chosen(name, arm.chosen, rate, allocation)


def best_rates(found: Sequence[Point]) -> list[Point]:
    """Of each arm and allocation the point at its best rate, of equal ones the lowest."""
    best: dict[tuple[str, str], Point] = {}
    for point in found:
        key = point.arm, point.choice.allocation
        if key not in best or point.score.mean > best[key].score.mean:
            best[key] = point
    return list(best.values())


def shape(arm: Arm, allocation: str) -> Shape | None:
    """The prompts of an update and the responses to each; None where the allocation's settings do not have both."""
    config = arm.allocations.get(allocation, {})
    prompts = config.get("data", {}).get("prompts_per_iteration")
    responses = config.get("model", {}).get("init_args", {}).get("samples")
    return None if prompts is None or responses is None else Shape(int(prompts), int(responses))


def heading(study: Study) -> str:
    """Of the report's part on the trials."""
    return ALLOCATED if allocated(study) else RATES


def answer(study: Study) -> str:
    """Which choices of compared arms lie at the edge of what was tried; empty where none does."""
    compared = {name for each in study.comparisons for name in each.arms + each.against}
    wanted = {arm.tuned_as for arm in study.arms if arm.name in compared}
    found = [each for each in choices(study) if each.arm in wanted]
    rates = [(each.arm, each.rate_edge) for each in found if each.rate_edge != INSIDE]
    spread = [each for each in found if each.allocation_edge]
    allocations = [
        (f"{each.arm} ({each.choice.allocation})", each.allocation_edge)
        for each in spread
        if each.allocation_edge != INSIDE
    ]
    said = (
        _edges("learning rate is", "lowest or highest", rates, len(found), "; better ones may lie beyond"),
        _edges("allocation has", "fewest or most responses", allocations, len(spread)),
    )
    return " ".join(filter(None, said))


def _edges(what: str, either: str, at: Sequence[tuple[str, str]], of: int, so: str = "") -> str:
    """A sentence on the arms at an edge, each with the edge that it is at."""
    if not at:
        return ""
    if len(at) > MOST_NAMED:
        return f"The best {what} the {either} tried for {len(at)} of {of} arms compared{so}."
    edges = dict.fromkeys(edge for _, edge in at)
    parts = [f"the {edge} tried {listed([f'for {arm}' for arm, own in at if own == edge])}" for edge in edges]
    return f"The best {what} {', and '.join(parts)}{so}."


def tables(study: Study) -> list[Table]:
    """Of all that was tried and of what was chosen; without rows where there are no trials."""
    return [_surface(study), _choices(study)]


def _surface(study: Study) -> Table:
    found = points(study)
    names = list(dict.fromkeys(name for point in found for name in point.metrics))
    columns = (
        *(Column("arm"), Column("allocation"), Column("learning rate", "", "g"), Column("chosen")),
        *(Column(metric_text.name(name), unit(name), ".2f", True) for name in names),
    )
    rows: list[list[Value]] = [
        [point.arm, *point.choice, "yes" if point.chosen else "no", *(scaled(point, name) for name in names)]
        for point in found
    ]
    guide = GUIDE.format(what="an allocation and " if allocated(study) else "")
    return Table("surface", heading(study), SAYS.format(what=_factors(study)), columns, rows, guide)


def _choices(study: Study) -> Table:
    columns = (
        *(Column("arm"), Column("allocation"), Column("learning rate", "", "g")),
        *(Column("edge of the rates"), Column("edge of the allocations")),
    )
    rows: list[list[Value]] = [
        [each.arm, *each.choice, each.rate_edge, each.allocation_edge] for each in choices(study)
    ]
    if study.tuning is None:
        return Table("choices", heading(study), "", columns, rows)
    seeds, several = [*map(str, study.tuning.seeds)], allocated(study)
    guide = CHOSEN_GUIDE.format(
        rates=_rates(study.tuning),
        allocations=", with the best of the allocations in surface.csv" if several else "",
        s="s" if len(seeds) > 1 else "",
        seeds=listed(seeds),
        metric=metric_text.name(study.deciding_metric),
        most=BEYOND if several else "",
    )
    return Table("choices", heading(study), CHOSEN.format(what=_factors(study)), columns, rows, guide)


def _rates(tuning: Tuning) -> str:
    """The learning rates that were tried, in words."""
    own = (f"{task}: {_numbers(rates)}" for task, rates in tuning.rates_by_task.items())
    return _numbers(tuning.rates) + (f" ({'; '.join(own)})" if tuning.rates_by_task else "")


def _numbers(rates: Sequence[float]) -> str:
    return listed([f"{rate:g}" for rate in rates])


def _factors(study: Study) -> str:
    """What was tried, in words."""
    return "allocation and learning rate" if allocated(study) else "learning rate"


def unit(metric: str) -> str:
    """Of a value."""
    found = metric_text.unit(metric)
    return "%" if found == "points" else found


def scaled(point: Point, metric: str) -> Interval:
    """A metric of a point in its unit; NaN where it was not measured."""
    return Interval(*(metric_text.scaled(x, metric) for x in point.metrics.get(metric, mean_interval([]))))


def allocated(study: Study) -> bool:
    """Whether an arm was tried with several allocations."""
    return any(len(arm.allocations) > 1 for arm in study.arms if arm.tried)
