"""The policy in a checkpoint that ``fit`` has written."""

from pathlib import Path
from typing import Any

import torch

from lit_rl.checkpoint_io import check_whole
from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy


def read_checkpoint(path: str, setting: str, advice: str) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU.

    Args:
        setting: that the path comes from, for messages.
        advice: what to do if there is no file.

    Raises:
        UsageError: there is no such file, or it is no whole checkpoint.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UsageError(f"{setting}: no file {path}; {advice}")
    check_whole(file, setting)
    saved: dict[str, Any] = torch.load(file, mmap=True, map_location="cpu", weights_only=True)
    return saved


def load_policy(policy: CausalPolicy, saved: dict[str, Any], message: str) -> None:
    """Gives ``policy`` the weights of the policy in a checkpoint.

    Raises:
        UsageError: ``message``, if it is another model's.
    """
    weights = {name.removeprefix("policy."): x for name, x in saved["state_dict"].items() if name.startswith("policy.")}
    try:
        policy.load_state_dict(weights)
    except RuntimeError:
        raise UsageError(message) from None
