"""How accurate an algorithm's values of prefixes are, compared with many continuations."""

from dataclasses import replace
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import pad

from lit_rl.callbacks.reward import reward_callback
from lit_rl.errors import UsageError
from lit_rl.functional.chosen import packed
from lit_rl.functional.cuts import Stride
from lit_rl.functional.diagnostics import ordered_right
from lit_rl.ranges import Count, Ranged, ShareBelowOne, Whole
from lit_rl.rollouts import Rollouts
from lit_rl.sampling.base import SamplingPlan


class ValueAccuracy(Ranged, Callback, setting="value_accuracy"):
    """Measures how accurate an algorithm's values of prefixes are.

    It takes the prefixes of t = ``stride``, 2 ``stride``, ... tokens of the policy, in the responses to the first
    prompts. V(s_t) is the mean reward of ``continuations`` new responses from there. V_hat(s_t) is the critic's value,
    or the mean of TRePO's own continuations where it has a cut. It logs:

    - ``value_accuracy/mae/t``: the mean of |V_hat(s_t) - V(s_t)|,
    - ``value_accuracy/ranking/t``: the share of the pairs of one prompt's prefixes, among those whose V differ by more
      than ``margin``, that V_hat puts in the right order; equal values count 1/2 (as in 2410.01679),
    - ``value_accuracy/spread/t``: the mean of |V(s_t) - mean V|, the error of the best constant,

    and the same over all t, as ``value_accuracy/mae`` and so on. V has a standard error of at most 1 / (2 sqrt n),
    where n is ``continuations``.

    Nothing is measured while a critic is pretrained. The measurement counts towards no budget, changes no weight and
    draws no random number of training.

    Args:
        every_n_iterations: measure every so many iterations, beginning with the first; 0 never.
        prompts: measure on the first so many prompts of the iteration.
        stride: tokens between two prefixes.
        continuations: new responses from each prefix (n).
        margin: two prefixes whose V differ by less count as equal.

    Raises:
        UsageError: the algorithm has no values of prefixes, there are several processes, or ``data.resample`` or
            ``data.hints`` is above 0.
    """

    def __init__(
        self,
        every_n_iterations: Whole = 0,
        prompts: Count = 8,
        stride: Count = 8,
        continuations: Count = 256,
        margin: ShareBelowOne = 0.1,
    ) -> None:
        self.every_n_iterations, self.prompts, self.stride = every_n_iterations, prompts, stride
        self.continuations, self.margin = continuations, margin

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or not self.every_n_iterations:
            return
        if trainer.world_size > 1:
            raise UsageError("value_accuracy.every_n_iterations: it is measured only with one process; set it to 0")
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if data is not None and data.samples_again:
            raise UsageError(
                "value_accuracy.every_n_iterations: the samples of prompts that data.resample or data.hints replaces "
                "cannot be drawn again; set it to 0, or these"
            )
        algorithm: Any = pl_module
        if self.stride >= algorithm.plan.max_new_tokens:
            raise UsageError(
                f"value_accuracy.stride is {self.stride}: no response has more than {algorithm.plan.max_new_tokens} "
                "tokens (model.max_new_tokens); lower it"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx > 0 or not self.every_n_iterations or trainer.current_epoch % self.every_n_iterations:
            return
        algorithm: Any = pl_module
        if algorithm.waits:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        rollouts: Rollouts = data.rollouts
        estimated = estimates(rollouts)
        if estimated is None:
            raise UsageError(
                f"value_accuracy.every_n_iterations: {type(algorithm).__name__} has no values of prefixes; set it to 0"
            )
        true = self._truth(trainer, algorithm, data)
        rows = (rollouts.sampled & (rollouts.group < self.prompts)).nonzero().squeeze(1)
        own, group = rollouts.written[rows].cpu(), rollouts.group[rows].cpu()
        estimated, true = packed(estimated[rows].cpu(), own), packed(true.cpu(), own)  # t counts the policy's tokens
        known = estimated.isfinite() & true.isfinite()
        places = [int(t) for t in known.any(0).nonzero().squeeze(1)]
        by_place = [(estimated[k, t], true[k, t], group[k]) for t in places if (k := known[:, t]).any()]
        values: dict[str, Tensor] = {}
        parts: dict[str, list[Tensor]] = {"mae": [], "spread": [], "ranking": []}
        for t, (guess, truth, prompt) in zip(places, by_place, strict=True):
            found = {
                "mae": (guess - truth).abs(),
                "spread": (truth - truth.mean()).abs(),
                "ranking": ordered_right(guess, truth, prompt, self.margin),
            }
            for name, each in found.items():
                values[f"{name}/{t}"] = each.mean()
                parts[name].append(each)
        values |= {name: torch.cat(each).mean() for name, each in parts.items() if each}
        logged = {f"value_accuracy/{name}": float(x) for name, x in values.items() if x.isfinite()}
        pl_module.log_dict(logged, on_step=False, on_epoch=True, batch_size=1)

    def _truth(self, trainer: Any, algorithm: Any, data: Any) -> Tensor:
        """V of the first prompts' samples at the measured prefixes [rows, T], NaN elsewhere."""
        own = algorithm.plan.continuations  # streams are numbered: the first of a cut would be the algorithm's own
        copies = own + self.continuations
        plan = SamplingPlan(algorithm.plan.samples, temperature=algorithm.plan.temperature)
        plan = replace(plan, max_new_tokens=algorithm.plan.max_new_tokens)
        plan = replace(plan, cuts=Stride(self.stride), continuations=copies)
        again: Rollouts = data.again(algorithm.behaviour, plan, self.prompts)
        again.rewards = reward_callback(trainer).rewards(trainer, algorithm, again)
        new = (again.origin >= 0).nonzero().squeeze(1).view(-1, copies)[:, own:].reshape(-1)
        samples = data.rollouts.select(data.rollouts.sampled & (data.rollouts.group < self.prompts))
        n, (_, width) = len(samples), samples.response_ids.shape
        true = estimates(again.select(torch.cat([torch.arange(n, device=new.device), new])))
        if true is None:  # no response is as long as a stride
            return torch.full(samples.mask.shape, torch.nan)
        true = pad(true[:n, :width], (0, max(0, width - true.shape[1])), value=torch.nan)
        ids = pad(again.response_ids[:n, :width], (0, max(0, width - again.response_ids.shape[1])))
        same = ((ids == samples.response_ids) | ~samples.filled).all(1)
        return true.masked_fill(~same[:, None], torch.nan)  # rounding in another batch can draw another token


def estimates(rollouts: Rollouts) -> Tensor | None:
    """V_hat(s_t) of rows [N, T], NaN where there is none: the critic's, or the mean reward of continuations from t.

    None for an algorithm that has neither.
    """
    if rollouts.values is not None:
        return torch.where(rollouts.written, rollouts.values.double(), torch.nan)
    forked = rollouts.origin >= 0
    if not forked.any():
        return None
    assert rollouts.rewards is not None
    sums = rollouts.rewards.new_zeros(rollouts.mask.shape, dtype=torch.float64)
    counts = sums.clone()
    where = rollouts.origin[forked], rollouts.cut[forked]
    earned = rollouts.rewards[forked].double()
    sums.index_put_(where, earned, accumulate=True)
    counts.index_put_(where, torch.ones_like(earned), accumulate=True)
    return sums / counts  # 0 / 0 is NaN
