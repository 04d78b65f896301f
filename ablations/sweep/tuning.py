"""Learning rates, one for each group of a study's arms, by trials of their own."""

import csv
import os

from ablations.records.study_results import FOLDER, load
from ablations.study import Study, trial_name
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
        return study.with_rates(dict.fromkeys(groups, middle))
    return study.with_rates(study.best_rates(scores(study)))


def scores(study: Study) -> dict[tuple[str, float], float]:
    """The mean of the primary metric over the trials' seeds, by arm and rate; their table is written.

    Raises:
        UsageError: the trials are not finished.
    """
    trials, tuning = study.trials, study.tuning
    assert trials is not None and tuning is not None
    arms = [arm.name for arm in study.arms if arm.rate is not None and arm.trial]
    table = FOLDER / study.label(False) / TRIALS
    try:
        results = load(trials, False)
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
            f"{missing[0]} for one); `python -m ablations run {study.name}` runs them"
        )
    return {key: sum(values) / len(values) for key, values in found.items()}
