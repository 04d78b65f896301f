"""Learning rates and allocations, one choice for each group of a study's arms, by trials of their own."""

from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

from ablations.records.trials import candidates, finished, scores, with_choice
from ablations.study import Choice, Study


def tuned(study: Study, smoke: bool) -> Study:
    """The study with its learning rates and allocations set: by its trials in MLflow or the table in its results.

    A smoke run takes the middle ones, untried.

    Raises:
        UsageError: the trials are not finished.
    """
    if study.tuning is None:
        return study
    if not smoke:
        found = finished(study)
        return replace(with_choices(study, best(study, scores(study, found))), trials=tuple(found))
    middle = {}
    for arm in study.arms:
        if arm.tried:
            allocations, rates = list(arm.allocations) or [""], sorted(study.tuning.rates_of(arm))
            middle[str(arm.tuned_as)] = Choice(allocations[len(allocations) // 2], rates[len(rates) // 2])
    return with_choices(study, middle)


def best(study: Study, found: Mapping[tuple[str, Choice], float]) -> dict[str, Choice]:
    """Of each group of arms that are tuned as one, the choice with the best mean score.

    Of equal ones it is that of the lowest rate and, at one rate, of the first allocation.

    Args:
        found: the score by arm and choice.
    """
    groups: dict[str, list[str]] = {}
    tried: dict[str, list[Choice]] = {}
    for arm in study.arms:
        if arm.tried:
            groups.setdefault(str(arm.tuned_as), []).append(arm.name)
            tried[str(arm.tuned_as)] = sorted(candidates(study, arm), key=lambda choice: choice.rate)
    return {
        group: max(tried[group], key=lambda choice: fmean(found[name, choice] for name in names))
        for group, names in groups.items()
    }


def with_choices(study: Study, chosen: Mapping[str, Choice]) -> Study:
    """The study with what was chosen for its arms, by the name that they are ``tuned_as``."""
    arms = (arm if arm.tuned_as is None else with_choice(arm, chosen[arm.tuned_as]) for arm in study.arms)
    return replace(study, arms=tuple(arms))
