"""The parser behind every command line: one line for a mistake, and a help that can be read."""

import re
from argparse import SUPPRESS
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from torch import optim

from lit_rl import algorithms, policy, sampling, tasks
from lit_rl.algorithms import placements
from lit_rl.commands.explain import explain, told
from lit_rl.errors import UsageError
from lit_rl.functional import cuts
from lit_rl.policy.tokens import TokenPolicy

DEFAULT_LENGTH = sampling.SamplingPlan().max_new_tokens
CLASSES = {
    "model": (algorithms, algorithms.Algorithm),
    "model.cuts": (cuts, cuts.CutRule),
    "model.placement": (placements, placements.Placement),
    "model.policy": (policy, policy.CausalPolicy),
    "model.optimizer": (optim, optim.Optimizer),
    "data.task": (tasks, tasks.Task),
    "data.sampler": (sampling, sampling.Sampler),
}
SHOWN_TRAINER_FLAGS = {
    *("max_epochs", "accelerator", "devices", "num_nodes", "strategy", "precision", "accumulate_grad_batches"),
    *("gradient_clip_val", "check_val_every_n_epoch", "logger", "callbacks", "enable_progress_bar"),
}


class Parser(LightningArgumentParser):
    """Turns every mistake of the user's into one line and exit code 2, and shows a help that can be read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def format_help(self, *args: Any) -> str:
        rare = [
            action
            for action in self._actions
            for group, _, name in [action.dest.partition(".")]
            if group == "checkpoint"
            or (group == "trainer" and name.split(".")[0] not in SHOWN_TRAINER_FLAGS)
            or (group in ("diagnostics", "value_accuracy") and name != "every_n_iterations")
        ]
        saved = [action.help for action in rare]
        for action in rare:
            action.help = SUPPRESS
        try:
            text = super().format_help(*args)
        finally:
            for action, help_ in zip(rare, saved, strict=True):
                action.help = help_
        hidden = (
            "Also accepted: the other flags of Lightning's Trainer, --checkpoint.*, --diagnostics.* and "
            "--value_accuracy.*; --print_config shows them all.\n"
        )
        text = re.sub(r":(?:func|class|meth|mod|data):`([\w.]+)`", r"\1", text)  # names without Sphinx's marks
        text = re.sub(r"Annotated\[(\w+),(\s+)([^][]+)]", r"\1\2\3", text)  # of lit_rl.ranges: type and range
        return text + ("\n" + hidden if rare else "")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a parser inside the parser: let the outer one say it
            super().error(message, ex)
        raise UsageError(explain(str(message), CLASSES)) from ex


def built(parser: Parser, config: Namespace) -> Any:
    """The objects that the configuration describes.

    Raises:
        UsageError: one of them can't be built.
    """
    try:
        return parser.instantiate(config)
    except Exception as error:
        raise UsageError(told(error, config.as_dict())) from error


def bare_tokens(task: Any, model: Any) -> None:
    """For a task without text: a policy over the task's tokens, if none is named, and responses as long as the task's.

    Args:
        task: the configuration of the task, None for the default.
        model: the configuration that has ``policy`` and ``max_new_tokens``.

    Raises:
        UsageError: another policy is named.
    """
    if task is None or not issubclass(resolve_name(task.class_path), tasks.PositionTask):
        return
    sizes = {name: task.init_args[name] for name in ("vocabulary", "length", "eos")}
    if model.get("policy") is None:
        model.policy = Namespace(class_path="lit_rl.policy.TokenTransformer", init_args=Namespace(**sizes))
    name = task.class_path.rpartition(".")[2]
    if not issubclass(resolve_name(model.policy.class_path), TokenPolicy):
        raise UsageError(
            f"model.policy: {name} has bare tokens and no text; leave model.policy out, or take TokenTransformer or "
            "TabularPolicy"
        )
    for key, value in sizes.items():
        own = model.policy.init_args.get(key, value)
        if own != value:
            raise UsageError(f"model.policy.{key} is {own} and data.task.{key} {value}; set both to the same")
    if model.max_new_tokens == DEFAULT_LENGTH:
        model.max_new_tokens = sizes["length"]


def free_folder(folder: str) -> Path:
    """The folder's path, its parent made, once nothing is found there.

    Raises:
        UsageError: something is there, or can't be made there.
    """
    path = Path(folder).expanduser().absolute()
    try:
        in_use = Path.cwd().is_relative_to(path)  # though empty: runs are logged there
        if path.exists() and (in_use or not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"output: {folder} is there already, and in use or not empty; give a new folder")
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"output: cannot make the folder {folder} ({error.strerror})") from None
    return path
