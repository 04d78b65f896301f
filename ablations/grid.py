"""The cells of a study: one training run for each arm and seed, with complete settings and a hash that names them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from ablations.config import Config, filled, merge
from ablations.study import Arm, Stage, Study


class Preparation(NamedTuple):
    """A command line of ``python -m lit_rl`` in which ``{folder}`` stands for the folder that it fills."""

    folder: str
    args: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One training run: an arm with a seed. ``config`` is complete, the seed included."""

    study: str
    arm: str
    seed: int
    config: Config
    preparations: tuple[Preparation, ...] = ()
    frozen: bool = False

    @cached_property
    def hash(self) -> str:
        """12 hexadecimal digits that name the configuration, whatever the order of its keys."""
        return _digest(self.config)

    @property
    def trained(self) -> bool:
        return _trains(self.config)

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}"


def cells(study: Study, seeds: Sequence[int] | None = None, smoke: bool = False) -> list[Cell]:
    """The grid, seed by seed: an interrupted sweep leaves all arms with the same seeds.

    Args:
        seeds: the study's own, and those for calibration, if None.
    """
    wanted = study.seeds_to_run(smoke) if seeds is None else seeds
    return [cell(study, arm, seed, smoke) for seed in wanted for arm in study.arms]


def cell(study: Study, arm: Arm, seed: int, smoke: bool = False) -> Cell:
    config = merge(study.base, arm.config)
    trained = _trains(config)
    if smoke:
        config = merge(config, study.smoke)
    if not trained:
        config = merge(config, {"trainer": {"max_epochs": 0}})
    made = {stage.name: preparation(stage, seed, smoke) for stage in arm.stages}
    config = filled(config, {name: each.folder for name, each in made.items()})
    config = merge(config, {"seed_everything": seed})
    return Cell(study.name, arm.name, seed, config, tuple(made.values()), arm.frozen)


def find(study: Study, arm: str, seed: int, digest: str, smoke: bool) -> Cell | None:
    """The cell of that arm and seed, if the hash is that of the study as it is now, not of an earlier one."""
    found = (cell(study, each, seed, smoke) for each in study.arms if each.name == arm)
    return next((each for each in found if each.hash == digest), None)


def preparation(stage: Stage, seed: int, smoke: bool) -> Preparation:
    """What makes a stage for the cells of a seed. Cells share it where its arguments don't name the seed."""
    args = tuple(arg.replace("{seed}", str(seed)) for arg in (*stage.args, *(stage.smoke if smoke else ())))
    return Preparation(f"mlruns/stages/{stage.name}-{_digest(args)}", args)


def _trains(config: Config) -> bool:
    return bool(config.get("trainer", {}).get("max_epochs") != 0)


def _digest(x: Any) -> str:
    return hashlib.sha256(json.dumps(x, sort_keys=True).encode()).hexdigest()[:12]
