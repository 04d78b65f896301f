"""The trials of a study: every allocation and learning rate of every arm, and the table of what they came to."""

import csv
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from ablations.config import Config, merge
from ablations.grid import cells
from ablations.metric_names import OVER_TOKENS
from ablations.records.study_results import FOLDER, load
from ablations.study import Arm, Choice, Study, Trial
from lit_rl.errors import UsageError

TABLE = "tuning.csv"  # in the study's results: a line a trial
COLUMNS = ("arm", "allocation", "rate", "seed", "config_hash")  # in front of the metrics
MEAN = f"{OVER_TOKENS}val/accuracy_sampled"  # stands beside what decides


def candidates(study: Study, arm: Arm) -> list[Choice]:
    """What is tried of an arm: every allocation, in its order, with every learning rate."""
    assert study.tuning is not None
    rates = study.tuning.rates_of(arm)
    return [Choice(allocation, rate) for allocation in (arm.allocations or ("",)) for rate in rates]


def trial_name(arm: str, choice: Choice) -> str:
    """The name of the arm that tries something."""
    return f"{arm}{', ' if choice.allocation else ''}{choice.allocation} at {choice.rate:g}"


def with_choice(arm: Arm, choice: Choice) -> Arm:
    """The arm with a learning rate and, if it has allocations, with one of them."""
    rate: Config = {"model": {"init_args": {"learning_rate": choice.rate}}}
    allocation = arm.allocations.get(choice.allocation, {})
    return replace(arm, config=merge(merge(arm.config, allocation), rate), chosen=choice)


def trials(study: Study) -> Study | None:
    """The study of the trials, on seeds of its own; None where nothing is tuned."""
    if study.tuning is None:
        return None
    arms = tuple(
        replace(
            with_choice(arm, choice), name=trial_name(arm.name, choice), baseline=None, tuned_as=None, allocations={}
        )
        for arm in study.arms
        if arm.tried
        for choice in candidates(study, arm)
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
        trials=(),
    )


def recorded(study: Study) -> list[Trial]:
    """The finished trials: of MLflow, and of the table in the study's results, which then has both.

    Trials that the table has need not be run again, wherever they ran.
    """
    path = FOLDER / study.label(False) / TABLE
    found = {_key(trial): trial for trial in (_of_table(study, path) if path.is_file() else [])}
    if new := {_key(trial): trial for trial in _of_mlflow(study, {trial.config_hash for trial in found.values()})}:
        found |= new
        order = list(_named(study).values())
        found = dict(sorted(found.items(), key=lambda item: (order.index(item[0][:2]), item[0][2])))
        _write(path, [*found.values()])
    return [*found.values()]


def finished(study: Study) -> list[Trial]:
    """All trials.

    Raises:
        UsageError: some have not run yet.
    """
    assert study.tuning is not None
    found = recorded(study)
    have = {_key(trial) for trial in found}
    missing = [
        name for name, trial in _named(study).items() if any((*trial, seed) not in have for seed in study.tuning.seeds)
    ]
    if missing:
        raise UsageError(
            f"{study.key}: the trials of its learning rates are not finished ({len(missing)} are missing, "
            f"{missing[0]} for one); `python -m ablations {study.how}` runs them"
        )
    return found


def scores(study: Study, found: Sequence[Trial]) -> dict[tuple[str, Choice], float]:
    """The mean over the trials' seeds of the metric that chooses, by arm and choice."""
    values: dict[tuple[str, Choice], list[float]] = {}
    for trial in found:
        values.setdefault((trial.arm, trial.choice), []).append(trial.metrics[study.deciding_metric])
    return {key: fmean(each) for key, each in values.items()}


def _named(study: Study) -> dict[str, tuple[str, Choice]]:
    """Arms and choices, by the names of the arms that try them."""
    return {
        trial_name(arm.name, choice): (arm.name, choice)
        for arm in study.arms
        if arm.tried
        for choice in candidates(study, arm)
    }


def _key(trial: Trial) -> tuple[str, Choice, int]:
    return trial.arm, trial.choice, trial.seed


def _of_mlflow(study: Study, but: Collection[str]) -> list[Trial]:
    """The trials that MLflow has, but for those of some hashes."""
    tried, named = trials(study), _named(study)
    assert tried is not None
    try:
        results = load(tried, False, but)
    except UsageError:  # none is finished
        return []
    metrics = dict.fromkeys((study.deciding_metric, study.primary_metric, MEAN))
    return [
        Trial(
            *named[cell.arm],
            cell.seed,
            cell.config_hash,
            {name: float(f"{x:.6g}") for name in metrics if (x := results.value(cell, name)) is not None},
        )
        for cell in results.cells
    ]


def _of_table(study: Study, path: Path) -> list[Trial]:
    """The table's trials, of the study as it is defined now."""
    tried, named = trials(study), _named(study)
    assert tried is not None
    hashes = {(*named[cell.arm], cell.seed): cell.hash for cell in cells(tried)}
    found = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            arm, allocation, rate, seed, digest = (row.pop(name, "") for name in COLUMNS)
            key = arm, Choice(allocation, float(rate)), int(seed)
            if hashes.get(key) == digest:
                found.append(Trial(*key, digest, {name: float(x) for name, x in row.items() if x}))
    return found


def _write(path: Path, found: Sequence[Trial]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for trial in found for name in trial.metrics))
    aside = path.with_name(f".{TABLE}.{os.getpid()}")  # another runner may read the table now
    with aside.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, *names])
        for trial in found:
            values = (f"{trial.metrics[name]:.6g}" if name in trial.metrics else "" for name in names)
            writer.writerow([trial.arm, *trial.choice, trial.seed, trial.config_hash, *values])
    aside.replace(path)
