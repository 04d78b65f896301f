"""Policies that several studies start from."""

from typing import Any

from ablations.config import Config
from ablations.study import Stage

POLICY: Config = {"hidden_size": 32, "layers": 1, "heads": 2}  # of TokenTransformer, on tasks of position credit


def half_trained(name: str, task: str, sizes: Config, arguments: Config, updates: int) -> Stage:
    """RLOO on a task of position credit for a while: rewards about half way from the start to what it ends with.

    Args:
        name: of the stage, behind "half-".
        sizes: of task and policy: ``vocabulary`` and ``length``.
        arguments: the task's other ones.
    """
    settings: dict[str, Any] = {
        "--model": "RLOO",
        "--model.samples": 4,
        "--model.policy": "lit_rl.policy.TokenTransformer",
        **{f"--model.policy.{key}": value for key, value in (POLICY | sizes).items()},
        "--model.learning_rate": 3e-3,
        "--data.task": task,
        **{f"--data.task.{key}": value for key, value in (sizes | arguments).items()},
        "--data.prompts_per_iteration": 8,
        "--seed_everything": "{seed}",
        "--trainer.max_epochs": updates,
        "--trainer.check_val_every_n_epoch": 1000,
        "--trainer.accelerator": "cpu",
        "--trainer.enable_progress_bar": "false",
        "--gradient_variance.every_n_iterations": 0,
        "--checkpoint.dirpath": "{folder}",
    }
    args = [str(part) for pair in settings.items() for part in pair]
    return Stage(f"half-{name}", ("fit", *args), ("--trainer.max_epochs", "1"))
