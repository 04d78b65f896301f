"""What the tests share: small runs on the embedded policy."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning import Trainer, seed_everything

from lit_rl.algorithms import Algorithm
from lit_rl.callbacks import RewardCallback
from lit_rl.commands.cli import main, quiet
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.policy import CausalPolicy
from lit_rl.tasks import GSM8KStyle

torch.set_num_threads(1)
quiet()


# the files that take longest, so that two processes end at about the same time
LONG = ("test_ranks", "test_ablations_run", "test_verify", "test_resume", "test_ablations_stages", "test_cli")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(autouse=True)
def away_from_the_repository(tmp_path, monkeypatch):
    """Runs, databases and reports of a test stay in its own folder; modules imported from there are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def lit_rl(monkeypatch, capfd):
    """Runs ``python -m lit_rl`` in this process: exit code, standard output, standard error."""

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lit_rl", *args])
        try:
            code = main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return (code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def task() -> GSM8KStyle:
    return GSM8KStyle(train_size=256, val_size=32, test_size=32)


@pytest.fixture(scope="session")
def policy() -> CausalPolicy:
    """The embedded policy, not to be trained."""
    return CausalPolicy()


def spread(example, ids, text) -> float:
    """A reward that differs between responses, whatever the policy can do."""
    return float(ids.sum() % 7)


Fit = Callable[..., tuple[Trainer, Algorithm, RolloutDataModule]]


@pytest.fixture
def fit(task) -> Fit:
    """Trains ``make()`` for some iterations of 4 prompts and returns trainer, algorithm and data module."""

    def run(
        make: Callable[..., Algorithm],
        iterations: int = 1,
        callbacks: tuple[Any, ...] = (),
        data: dict[str, Any] | None = None,
        trainer: dict[str, Any] | None = None,
        **settings: Any,
    ) -> tuple[Trainer, Algorithm, RolloutDataModule]:
        seed_everything(0, verbose=False)
        algorithm = make(**{"max_new_tokens": 48, **settings})
        module = RolloutDataModule(
            **{"task": task, "prompts_per_iteration": 4, "rows_per_microbatch": 4, **(data or {})}
        )
        options: dict[str, Any] = {
            **TRAINER_DEFAULTS,
            "max_epochs": iterations,
            "limit_val_batches": 0,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "accelerator": "cpu",
            **(trainer or {}),
        }
        lightning = Trainer(**options, callbacks=[RewardCallback(spread), *callbacks])
        lightning.fit(algorithm, datamodule=module)
        return lightning, algorithm, module

    return run
