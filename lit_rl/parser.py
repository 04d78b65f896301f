"""The parser behind every command line: one line for a mistake, and a help that can be read."""

from argparse import SUPPRESS
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from lit_rl import algorithms, policy, sampling, tasks
from lit_rl.errors import UsageError
from lit_rl.explain import explain
from lit_rl.functional import cuts

CLASSES = {
    "model": (algorithms, algorithms.Algorithm),
    "model.cuts": (cuts, cuts.CutRule),
    "model.policy": (policy, policy.CausalPolicy),
    "data.task": (tasks, tasks.Task),
    "data.sampler": (sampling, sampling.Sampler),
}
SHOWN_TRAINER_FLAGS = {
    *("max_epochs", "accelerator", "devices", "num_nodes", "strategy", "precision", "accumulate_grad_batches"),
    *("gradient_clip_val", "check_val_every_n_epoch", "logger", "callbacks", "enable_progress_bar"),
}


class Parser(LightningArgumentParser):
    """Turns every mistake of the user's into one line and exit code 2, and shows a help that can be read."""

    def format_help(self, *args: Any) -> str:
        rare = [
            action
            for action in self._actions
            for group, _, name in [action.dest.partition(".")]
            if group in ("checkpoint", "optimizer", "lr_scheduler")
            or (group == "trainer" and name.split(".")[0] not in SHOWN_TRAINER_FLAGS)
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
            "The other flags of Lightning's Trainer, and --checkpoint.*, work too: --print_config shows them all.\n"
        )
        return text + ("\n" + hidden if rare else "")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a parser inside the parser: let the outer one say it
            super().error(message, ex)
        raise UsageError(explain(str(message), CLASSES)) from ex
