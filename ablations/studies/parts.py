"""What several studies are made of: settings, algorithms, control arms and their comparisons.

Settings are named as on the command line, so that ``{**QUIET, **SMOKE}`` loses none.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from ablations.config import Config
from ablations.metric_names import OVER_TOKENS
from ablations.study import Arm, Comparison, Stage

# nothing is measured beside rewards and accuracy, and one checkpoint is kept
QUIET: Config = {
    "gradient_variance.every_n_iterations": 0,
    "diagnostics.every_n_iterations": 0,
    "transcripts.every_n_iterations": 0,
    "checkpoint.every_n_epochs": 1000,
}
UNLIMITED: Config = {"budget.generated_tokens": None}
WORDS = "GSM8KStyle"
TWO_STEPS: Config = {"data.task": WORDS, "data.task.steps": 2, "model.max_new_tokens": 64}
ROUNDS = 4  # iterations in which the gradient of a frozen policy is measured
POLICY: Config = {"hidden_size": 32, "layers": 1, "heads": 2}  # of TokenTransformer, on tasks of position credit
TEST = "test/accuracy_sampled"
BESIDE = (f"{OVER_TOKENS}val/accuracy_sampled", "test/accuracy")  # the accuracy at the end alone does not say how fast
# among a study's notes
ONE_START = "All seeds have the same warm start; the intervals do not cover others."
SMALL_MODELS = "The models are small: they show a mechanism, and do not stand for large language models."


@dataclass(frozen=True)
class Algorithm:
    """An algorithm's class, the prompts of an iteration, and its arguments."""

    model: str
    prompts: int
    arguments: Config = field(default_factory=dict)

    @property
    def pretraining(self) -> int:
        """Iterations that train the critic alone."""
        return int(self.arguments.get("critic_pretraining", 0))

    def config(self, larger: int = 1) -> Config:
        """One update an iteration, on ``larger`` times its prompts."""
        prompts = larger * self.prompts
        rows = 2 if self.model == "OnlineDPO" else self.arguments.get("samples", 1)  # of a prompt, in an update
        return {
            "model": {"class_path": self.model, "init_args": self.arguments},
            "data.prompts_per_iteration": prompts,
            "data.rows_per_microbatch": rows * prompts,
        }

    def frozen(self, larger: int = 1) -> Config:
        """The policy stays as it is, and its gradient is measured, once a critic is pretrained."""
        return {
            **self.config(larger),
            "model.learning_rate": 0.0,
            "model.normalizer": "row_sum",  # one loss denominator, so that all estimate the same gradient
            "trainer.max_epochs": ROUNDS + self.pretraining,
            "gradient_variance.every_n_iterations": 1,
        }


def cuts(rule: str, **arguments: Any) -> Config:
    return {"class_path": f"lit_rl.functional.cuts.{rule}", "init_args": arguments}


def budget(tokens: int, updates: int, looks: int = 8) -> Config:
    """Generated tokens, of an update and in all; validation after each of ``looks`` equal parts of the updates."""
    return {"budget.generated_tokens": tokens * updates, "trainer.check_val_every_n_epoch": updates // looks}


def position_credit(task: str, sizes: Config, arguments: Config) -> Config:
    """A task of position credit, and a small transformer for it that starts from random weights.

    Args:
        sizes: of task and policy: ``vocabulary`` and ``length``.
        arguments: the task's other ones.
    """
    policy = {"class_path": "lit_rl.policy.TokenTransformer", "init_args": POLICY | sizes}
    return {
        "model.policy": policy,
        "model.max_new_tokens": sizes["length"],
        "data.task": {"class_path": f"lit_rl.tasks.{task}", "init_args": sizes | arguments},
    }


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


def controls(arm: Arm, start: str) -> tuple[Arm, ...]:
    """The arm untrained, with the name ``start``; with other samples; and with the rewards of other responses."""
    return (
        arm.but(start, {"trainer.max_epochs": 0}, tuned_as=None, allocations={}),
        arm.but(f"{arm.name}, other samples", {"data.stream": 1}),
        arm.but(f"{arm.name}, shuffled rewards", {"reward.shuffle": True}),
    )


def control_comparisons(arm: str, start: str, tasks: Collection[str] = ()) -> tuple[Comparison, Comparison]:
    """Of the control arms with what they should equal, or not surpass; over several tasks with names of their own."""
    again, shuffled = f"{arm} against itself with other samples", f"{arm} with shuffled rewards against its start"
    return (
        Comparison.between(
            f"{arm}, other samples",
            arm,
            "equal",
            "only the random samples differ",
            again if tasks else "",
            tasks=tasks,
        ),
        Comparison.between(
            f"{arm}, shuffled rewards",
            start,
            "not above",
            "the rewards of other responses carry no information; their noise may ruin the policy",
            shuffled if tasks else "",
            TEST,
            tasks,
        ),
    )
