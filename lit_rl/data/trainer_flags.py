"""Which settings of Lightning's Trainer are compatible with sampling in every iteration."""

import re
from collections.abc import Mapping
from inspect import signature
from typing import Any

from lightning import Trainer

from lit_rl.callbacks.reward import RewardCallback
from lit_rl.errors import UsageError, usage_error
from lit_rl.ranges import Count, NonNegative, OrForever, Whole, check
from lit_rl.sampling import SamplingPlan
from lit_rl.strategy import FSDP2

# flags that Lightning does not check, or tells of in many lines
RANGES: dict[str, Any] = {
    "accumulate_grad_batches": Count,
    "check_val_every_n_epoch": Count | None,
    "gradient_clip_val": NonNegative | None,
    "log_every_n_steps": Whole,
    "max_epochs": OrForever | None,
    "max_steps": OrForever,
    "min_epochs": Whole | None,
    "min_steps": Whole | None,
    "num_nodes": Count,
    "num_sanity_val_steps": OrForever | None,
}
STRATEGIES = ("auto", "ddp", "fsdp2", "SingleDeviceStrategy", "DDPStrategy", FSDP2.__name__)  # and variants of ddp
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
_SAME = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed", "None": "32-true"}  # for Lightning
OF_A_TRAINER = (
    *(name for name in RANGES if name != "num_sanity_val_steps"),  # infinity there, for -1
    *("reload_dataloaders_every_n_epochs", "fast_dev_run", "limit_train_batches", "precision"),
)


def check_ranges(flags: Mapping[str, Any]) -> None:
    """Checks that numbers are in their ranges.

    Raises:
        UsageError: one is not.
    """
    check(RANGES, flags, "trainer.")


def check_fit(flags: Mapping[str, Any]) -> None:
    """That flags let each iteration be sampled from the current weights and trained on whole, at a
    precision that will do.

    Raises:
        UsageError: one does not.
    """
    if flags["reload_dataloaders_every_n_epochs"] != 1:
        raise UsageError(
            "trainer.reload_dataloaders_every_n_epochs must be 1: each iteration samples from the current weights"
        )
    if flags["fast_dev_run"]:
        raise UsageError("trainer.fast_dev_run would cut iterations short; set trainer.max_epochs 1 instead")
    if flags["limit_train_batches"] is not None and repr(flags["limit_train_batches"]) != "1.0":  # 1 is one batch
        raise UsageError(
            "trainer.limit_train_batches would leave out responses; set data.prompts_per_iteration instead"
        )
    check_precision(flags)
    if flags["max_steps"] != -1:
        raise UsageError("trainer.max_steps: a resumed run would stop early; set trainer.max_epochs (iterations)")


def check_precision(flags: Mapping[str, Any]) -> None:
    """Checks that the precision neither rounds log-probabilities nor makes them differ from those at sampling.

    Raises:
        UsageError: it does.
    """
    precision = _SAME.get(str(flags["precision"]), str(flags["precision"]))
    if precision in ("16-true", "bf16-true"):
        raise UsageError(
            f"trainer.precision {precision} would round log-probabilities; set bf16-mixed, or model.policy.dtype"
        )
    if precision not in PRECISIONS:
        raise UsageError(f"trainer.precision {precision} is not supported; set {' or '.join(PRECISIONS)}")


def check_trainer(trainer: Any, plan: SamplingPlan, prompts: int, rows: int, tokens: int | None = None) -> None:
    """Checks a Trainer: ranges, :func:`check_fit`, that something scores, and that processes share an iteration evenly.

    Args:
        trainer: that is to fit.
        plan: of the algorithm's rows.
        prompts: of an iteration, over all processes.
        rows: of a micro-batch.
        tokens: of a micro-batch, if it is not made of so many rows.

    Raises:
        UsageError: a setting is not compatible.
    """
    flags = {name: getattr(trainer, name) for name in OF_A_TRAINER}
    check_ranges(flags)
    check_fit(flags)
    if not plan.demonstrations and not any(isinstance(each, RewardCallback) for each in trainer.callbacks):
        raise UsageError(
            "trainer.callbacks has no RewardCallback, and nothing else scores what is sampled; give the Trainer "
            "callbacks=[RewardCallback()], of lit_rl.callbacks"
        )
    if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
        raise UsageError("trainer.use_distributed_sampler must be false: each process draws its own prompts")
    check_sizes(plan, prompts, rows, tokens, trainer.world_size, trainer.accumulate_grad_batches)


def check_sizes(
    plan: SamplingPlan, prompts: int, rows: int, tokens: int | None, processes: int, accumulate: int
) -> None:
    """Checks that processes share an iteration evenly, and that its rows fill whole optimizer steps.

    Args:
        plan, prompts, rows, tokens: see :func:`check_trainer`.
        processes: how many there are.
        accumulate: micro-batches of an optimizer step.

    Raises:
        UsageError: one does not hold.
    """
    if prompts % processes:
        raise UsageError(
            f"data.prompts_per_iteration is {prompts}, not a multiple of the {processes} processes; "
            "change it, because all responses to a prompt stay on one process"
        )
    if plan.pairs and tokens is not None:
        raise UsageError(
            "data.tokens_per_microbatch: the two responses of a pair are trained on together; leave it null, and set "
            "data.rows_per_microbatch"
        )
    if plan.pairs and rows % 2:
        raise UsageError(f"data.rows_per_microbatch is {rows}, but the model trains on pairs; set an even number")
    if plan.reuse or tokens is not None:
        return  # the number of continuations, or of rows, varies, and steps are filled up
    trained = prompts // processes * plan.trained_rows
    step = rows * accumulate
    if trained % step:
        raise UsageError(
            f"data.rows_per_microbatch x trainer.accumulate_grad_batches is {rows} x "
            f"{accumulate} = {step}, which does not divide the {trained} responses of an "
            "iteration (data.prompts_per_iteration x model.samples a process); change one of them"
        )


def told_of_trainer(error: Exception, settings: dict[str, Any], defaults: dict[str, Any]) -> str:
    """What a Trainer raises when it is built, as one line: with the setting that it names, or else with those given.

    Args:
        settings: of the Trainer, by name.
        defaults: that are ours and not Lightning's.
    """
    usage = usage_error(error)
    if usage is not None:
        return str(usage)
    reason = " ".join(str(error).split()) or type(error).__name__
    named = next((word for word in re.findall(r"\w+", reason) if word in settings), None)
    if named is not None:
        return f"trainer.{named} is {settings[named]}: {reason}"
    usual = {name: each.default for name, each in signature(Trainer).parameters.items()} | defaults
    plain = {name: each for name, each in settings.items() if isinstance(each, str | int | float)}
    given = [f"{name} {each}" for name, each in plain.items() if each != usual.get(name) and each != "auto"]
    return f"trainer ({', '.join(given)}): {reason}"


def check_strategy(given: Any) -> None:
    """Refuses, before anything starts, a strategy under which a process could not sample by itself."""
    name = given if isinstance(given, str) else str(getattr(given, "class_path", type(given).__name__)).split(".")[-1]
    if name not in STRATEGIES and not name.startswith("ddp_"):
        advice = f"take {' or '.join(STRATEGIES[:3])}"
        if name.lower().startswith(("fsdp", "modelparallel")):
            advice = "take fsdp2, which shards on GPUs and on the CPU"
        raise UsageError(f"trainer.strategy {name}: its processes can't have the weights whole for sampling; {advice}")
