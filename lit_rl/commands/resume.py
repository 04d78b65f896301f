"""Going on from a checkpoint: what it says of its run, and which settings may have changed since."""

import sys
from collections.abc import Iterator
from typing import Any

import yaml
from lightning.fabric.utilities import rank_zero_only

from lit_rl.errors import UsageError
from lit_rl.policy.checkpoints import read_checkpoint
from lit_rl.tracking.address import has_run, tracking_uri

RUN_ID, CONFIG = "mlflow_run_id", "config"  # keys of a checkpoint: the run, and its configuration as YAML
STREAMS = "prompts and samples are numbered from the first iteration on"
REFERENCE = "the reference is made of it anew, for it is in no checkpoint"
FIXED = {  # settings, or groups of them, that a run keeps, and why
    "model.class_path": "optimizer, critic and callbacks are of that algorithm",
    "model.optimizer": "the checkpoint holds that optimizer's state",
    "model.policy": REFERENCE,
    "model.start": REFERENCE,
    "model.reference": REFERENCE,
    "seed_everything": STREAMS,
    "data.seed": STREAMS,
    "data.stream": STREAMS,
    "data.task": STREAMS,
    "data.too_long": STREAMS,
    "data.prompts_per_iteration": STREAMS,
}
FREE = ("ckpt_path", "trainer.logger.run_id", "model.policy.gradient_checkpointing")  # say nothing of the run


def read(path: str) -> dict[str, Any]:
    """What a checkpoint of ``fit`` holds.

    Raises:
        UsageError: there is no whole checkpoint at ``path``.
    """
    return read_checkpoint(path, "ckpt_path", "give the path of a checkpoint, for one in mlruns/checkpoints")


def run_of(saved: dict[str, Any]) -> str | None:
    """The MLflow run that a checkpoint was written in, if it is still there."""
    run_id: str | None = saved.get(RUN_ID)
    return run_id if run_id and has_run(run_id, tracking_uri()) else None


def changes(saved: dict[str, Any], config: str) -> dict[str, tuple[Any, Any]]:
    """The settings that have changed since a checkpoint was written, each with its old and its new value.

    Settings that only one of the two knows, because the code has changed, are left out.

    Args:
        config: the configuration now, as YAML.
    """
    found = _differences(yaml.safe_load(saved.get(CONFIG, "{}")), yaml.safe_load(config))
    named = {key.replace(".init_args", ""): values for key, values in found}
    return {key: values for key, values in named.items() if key not in FREE}


def _differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old:
            if name in new:
                yield from _differences(old[name], new[name], f"{key}.{name}".lstrip("."))
    elif old != new:
        yield key, (old, new)


def check_changes(saved: dict[str, Any], config: str) -> None:
    """Says on standard error, a line each, which settings have changed since a checkpoint was written.

    Raises:
        UsageError: one that can't change, see :data:`FIXED`.
    """
    if CONFIG not in saved:
        _say("ckpt_path: the checkpoint holds no configuration; what has changed since is not said")
    changed = changes(saved, config)
    for key, (old, new) in changed.items():
        for fixed, reason in FIXED.items():
            if key == fixed or key.startswith(f"{fixed}."):
                raise UsageError(
                    f"ckpt_path: {key} was {old} when the checkpoint was written and is {new} now, which can't change "
                    f"in a run: {reason}; set it to {old}, or begin another run from these weights by --model.start"
                )
    for key, (old, new) in changed.items():
        _say(f"since the checkpoint: {key} {old} -> {new}")


@rank_zero_only
def _say(text: str) -> None:
    print(f"lit_rl: {text}", file=sys.stderr)
