"""Compares learned with exact credit, on tasks whose responses can all be enumerated."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nan
from torch.nn.functional import cosine_similarity, pad

from lit_rl.errors import UsageError
from lit_rl.exact.tree import Tree, grow
from lit_rl.ranges import Ranged, Whole
from lit_rl.rollouts import Rollouts
from lit_rl.tasks.position_credit import PositionTask, calibration_slope, credit_correlation, gradient_share


class Credit(Ranged, Callback, setting="credit"):
    """Compares the credit that each position gets in training with the exact credit, on tasks that can be enumerated.

    For each position t of the response, counted from 0, on the rows and with the weights of training, it logs:

    - ``credit/correlation/t``, ``credit/slope/t``: of the advantages with the exact ones, over the rows,
    - ``credit/share/t``: the position's share of the gradient, |g_t| / sum |g_t|, where g_t is the mean of A_t psi_t,
    - ``credit/exact/t``: the same of the exact gradient,
    - ``credit/recovered/t``: g_t . e_t / |e_t|^2, where e_t is the exact g_t. Its mean is 1 for an unbiased estimator
      and 0 for one that learns nothing at this position,
    - ``credit/resolved/t``: Var[V(s_t)] / Var[r], the share of the reward's variance that the first t tokens decide,
    - ``credit/kl/t``: sum_s p(s) KL(pi(.|s) || pi_start(.|s)) over the states before position t, in nats; only with
      ``model.reference``.

    Of all positions together it logs:

    - ``credit/cosine``: of the gradient with the exact one, ``credit/signal``: g . e / |e|^2,
    - ``credit/norm_sq``: the squared norm of the exact gradient,
    - ``credit/objective``: the exact mean reward.

    It draws no random number and changes no weight.

    Args:
        every_n_iterations: measure every so many iterations, beginning with the first; 0 never.

    Raises:
        UsageError: the task cannot be enumerated, or there are several processes.
    """

    def __init__(self, every_n_iterations: Whole = 0) -> None:
        self.every_n_iterations = every_n_iterations
        self._known: tuple[str, Tree, Tensor] | None = None  # of a policy that may still be the same

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or not self.every_n_iterations:
            return
        algorithm: Any = pl_module
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data.task, PositionTask):
            raise UsageError(
                "credit.every_n_iterations: exact credit needs a task that can be enumerated (KeyToken); set it to 0"
            )
        if trainer.world_size > 1 or pl_module.device_mesh is not None:
            raise UsageError(
                "credit.every_n_iterations: credit is measured only with one process and without fsdp2; set it to 0"
            )
        if algorithm.plan.max_new_tokens != data.task.length:
            raise UsageError(
                f"credit.every_n_iterations: exact credit needs responses of {data.task.length} tokens; set "
                f"model.max_new_tokens to {data.task.length}"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx > 0 or not self.every_n_iterations or trainer.current_epoch % self.every_n_iterations:
            return
        algorithm: Any = pl_module
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        rollouts = data.rollouts.select(data.rollouts.trained).to("cpu")
        tree, gradients = self._exact(algorithm, data.task)
        exact = tree.along(tree.advantages, rollouts.response_ids, rollouts.lengths)
        estimated = _position_gradients(tree.policy, rollouts, algorithm.plan.temperature)
        estimated = pad(estimated, (0, 0, 0, len(gradients) - len(estimated)))  # nobody came further
        squares = gradients.square().sum(1)
        curves = {
            "correlation": credit_correlation(rollouts.advantages, exact, rollouts.mask),
            "slope": calibration_slope(rollouts.advantages, exact, rollouts.mask),
            "share": gradient_share(estimated),
            "exact": gradient_share(gradients),
            "resolved": tree.resolved()[:-1],
            "recovered": torch.where(squares > 1e-12 * squares.sum(), (estimated * gradients).sum(1) / squares, nan),
        }
        if algorithm.reference is not None:
            start = grow(algorithm.reference, data.task, algorithm.plan.temperature)
            moved = tree.reach * (tree.logprobs.exp() * (tree.logprobs - start.logprobs)).sum(1)
            curves["kl"] = torch.zeros(data.task.length, dtype=moved.dtype).index_add(0, tree.depth, moved)
        values = {f"credit/{name}/{t}": x for name, curve in curves.items() for t, x in enumerate(curve.tolist())}
        total, whole = estimated.sum(0), gradients.sum(0)
        values["credit/cosine"] = float(cosine_similarity(total, whole, dim=0))
        values["credit/signal"] = float(total @ whole / whole.square().sum())
        values["credit/norm_sq"] = float(whole.square().sum())
        values["credit/objective"] = float(tree.objective)
        defined = {name: x for name, x in values.items() if x == x}
        pl_module.log_dict(defined, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def _exact(self, algorithm: Any, task: PositionTask) -> tuple[Tree, Tensor]:
        """The tree under the policy, and its gradients by position [T, D]."""
        fingerprint = algorithm.policy.fingerprint
        if self._known is None or self._known[0] != fingerprint:
            tree = grow(algorithm.policy, task, algorithm.plan.temperature)
            self._known = fingerprint, tree, tree.position_gradients()
        return self._known[1:]


def _position_gradients(policy: Any, rollouts: Rollouts, temperature: float) -> Tensor:
    """The mean over responses of A_t psi_t: [T, D], T being that of the longest response."""
    assert rollouts.advantages is not None
    parameters = list(policy.parameters())
    with torch.enable_grad():
        parts = (policy(rollouts, temperature) * rollouts.advantages).mean(0)
        rows = [torch.autograd.grad(part, parameters, retain_graph=True) for part in parts]
    return torch.stack([torch.cat([x.reshape(-1) for x in row]) for row in rows])
