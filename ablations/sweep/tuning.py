"""Learning rates, one for each group of a study's arms, by trials of their own."""

import csv
import os
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

from ablations.config import Config, merge
from ablations.records.study_results import FOLDER, load
from ablations.study import Arm, Study
from lit_rl.errors import UsageError

TRIALS = "tuning.csv"  # in the study's results: arm, rate, seed, score


def tuned(study: Study, smoke: bool) -> Study:
    """The study with its learning rates set: by its trials in MLflow or by the table of them in its results.

    A smoke run takes the middle one of the rates, untried.

    Raises:
        UsageError: the trials are not finished.
    """
    if study.tuning is None:
        return study
    groups = {arm.rate for arm in study.arms if arm.rate is not None}
    if smoke:
        middle = sorted(study.tuning.rates)[len(study.tuning.rates) // 2]
        return with_rates(study, dict.fromkeys(groups, middle))
    return with_rates(study, best_rates(study, scores(study)))


def trials(study: Study) -> Study | None:
    """The study that tunes the learning rates: every rate of every arm that is tried, on seeds of its own."""
    if study.tuning is None:
        return None
    arms = tuple(
        replace(arm, name=trial_name(arm.name, rate), config=merge(arm.config, _rate(rate)), baseline=None)
        for arm in _tried(study)
        for rate in study.tuning.rates
    )
    return replace(
        study,
        name=f"{study.name}-tuning",
        command=study.how,
        arms=arms,
        baseline=arms[0].name,
        comparisons=(),
        controls=(),
        exploratory=(),
        seeds=study.tuning.seeds,
        tuning=None,
    )


def trial_name(arm: str, rate: float) -> str:
    """The name of the arm that tries a learning rate."""
    return f"{arm} at {rate:g}"


def best_rates(study: Study, scores: Mapping[tuple[str, float], float]) -> dict[str, float]:
    """Of each group of arms with one learning rate, the rate with the best mean score, the lowest of equal ones.

    Args:
        scores: by arm and rate.
    """
    assert study.tuning is not None
    groups: dict[str, list[str]] = {}
    for arm in _tried(study):
        groups.setdefault(str(arm.rate), []).append(arm.name)
    return {
        group: max(study.tuning.rates, key=lambda rate: (fmean(scores[name, rate] for name in names), -rate))
        for group, names in groups.items()
    }


def with_rates(study: Study, rates: Mapping[str, float]) -> Study:
    """The study with the learning rates of its arms set, by the name of their ``rate``."""
    arms = (
        arm if arm.rate is None else replace(arm, config=merge(arm.config, _rate(rates[arm.rate])))
        for arm in study.arms
    )
    return replace(study, arms=tuple(arms))


def _tried(study: Study) -> list[Arm]:
    return [arm for arm in study.arms if arm.rate is not None and arm.trial]


def _rate(rate: float) -> Config:
    return {"model": {"init_args": {"learning_rate": rate}}}


def scores(study: Study) -> dict[tuple[str, float], float]:
    """The mean of the primary metric over the trials' seeds, by arm and rate; their table is written.

    Raises:
        UsageError: the trials are not finished.
    """
    tried, tuning = trials(study), study.tuning
    assert tried is not None and tuning is not None
    arms = [arm.name for arm in _tried(study)]
    table = FOLDER / study.label(False) / TRIALS
    try:
        results = load(tried, False)
        rows = [
            (arm, rate, seed, score)
            for arm in arms
            for rate in tuning.rates
            for seed, score in results.by_seed(trial_name(arm, rate), study.primary_metric).items()
        ]
        table.parent.mkdir(parents=True, exist_ok=True)
        aside = table.with_name(f".{TRIALS}.{os.getpid()}")  # another runner may read the table now
        with aside.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([("arm", "rate", "seed", "score"), *((a, r, s, f"{x:.6g}") for a, r, s, x in rows)])
        aside.replace(table)
    except UsageError:
        if not table.is_file():
            raise
    with table.open(newline="") as file:
        found: dict[tuple[str, float], list[float]] = {}
        for row in csv.DictReader(file):
            found.setdefault((row["arm"], float(row["rate"])), []).append(float(row["score"]))
    missing = [
        f"{arm} at {rate:g}"
        for arm in arms
        for rate in tuning.rates
        if len(found.get((arm, rate), ())) < len(tuning.seeds)
    ]
    if missing:
        raise UsageError(
            f"{study.key}: the trials of its learning rates are not finished ({len(missing)} are missing, "
            f"{missing[0]} for one); `python -m ablations {study.how}` runs them"
        )
    return {key: sum(values) / len(values) for key, values in found.items()}
