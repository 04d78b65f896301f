"""Learned credit against exact credit, on tasks whose response tree can be enumerated."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_rl.errors import UsageError
from lit_rl.exact.tree import grow
from lit_rl.rollouts import Rollouts
from lit_rl.tasks.position_credit import PositionTask, calibration_slope, credit_correlation, gradient_share


class Credit(Callback):
    """Logs, for each position t of the response, counted from 0, on the rows that training uses, as it weighs them:

    - ``credit/correlation/t``, ``credit/slope/t``: of the advantages with the exact ones, over the rows,
    - ``credit/share/t``: the position's share of the gradient, |g_t| / sum |g_t| with g_t the mean of A_t psi_t,
    - ``credit/exact/t``: the same of the exact expectation.

    An observer: it draws no random number and changes no weight.

    Args:
        every_n_iterations: how often, from the first iteration on; 0 never.
    """

    def __init__(self, every_n_iterations: int = 0) -> None:
        if every_n_iterations < 0:
            raise UsageError(f"credit.every_n_iterations is {every_n_iterations}; 0 measures never")
        self.every_n_iterations = every_n_iterations

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx > 0 or not self.every_n_iterations or trainer.current_epoch % self.every_n_iterations:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data.task, PositionTask):
            raise UsageError("credit.every_n_iterations: exact credit takes a task of position credit; set it to 0")
        if trainer.world_size > 1 or pl_module.device_mesh is not None:
            raise UsageError("credit.every_n_iterations: credit is measured in one process, without fsdp2; set it to 0")
        algorithm: Any = pl_module
        if algorithm.plan.max_new_tokens != data.task.length:
            raise UsageError(
                f"credit.every_n_iterations: exact credit is of responses of {data.task.length} tokens; set "
                f"model.max_new_tokens to {data.task.length}"
            )
        rollouts = data.rollouts.select(data.rollouts.trained).to("cpu")
        tree = grow(algorithm.policy, data.task, algorithm.plan.temperature)
        exact = tree.along(tree.advantages, rollouts.response_ids, rollouts.lengths)
        curves = {
            "correlation": credit_correlation(rollouts.advantages, exact, rollouts.mask),
            "slope": calibration_slope(rollouts.advantages, exact, rollouts.mask),
            "share": gradient_share(_position_gradients(tree.policy, rollouts, algorithm.plan.temperature)),
            "exact": gradient_share(tree.position_gradients()),
        }
        values = {f"credit/{name}/{t}": x for name, curve in curves.items() for t, x in enumerate(curve.tolist())}
        defined = {name: x for name, x in values.items() if x == x}
        pl_module.log_dict(defined, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)


def _position_gradients(policy: Any, rollouts: Rollouts, temperature: float) -> Tensor:
    """The mean over responses of A_t psi_t: [T, D]."""
    assert rollouts.advantages is not None
    parameters = list(policy.parameters())
    with torch.enable_grad():
        parts = (policy(rollouts, temperature) * rollouts.advantages).mean(0)
        rows = [torch.autograd.grad(part, parameters, retain_graph=True) for part in parts]
    return torch.stack([torch.cat([x.reshape(-1) for x in row]) for row in rows])
