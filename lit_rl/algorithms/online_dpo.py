"""Online DPO: learns to prefer the best response to a prompt to the worst one."""

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.errors import UsageError
from lit_rl.functional.preferences import best_and_worst, dpo_loss
from lit_rl.policy.causal import CausalPolicy
from lit_rl.ranges import Positive, Several
from lit_rl.rollouts import Rollouts


class OnlineDPO(Algorithm):
    """Raises the probability of the best response to a prompt relative to the worst one (2402.04792).

    The loss of a pair is ``-log sigmoid(beta (Delta_best - Delta_worst))``, with Delta = log pi(response) /
    pi_ref(response). The best and the worst of the sampled responses, by reward, form the pair. If all rewards are
    equal, the pair has no weight; the share of such ties is logged as ``pairs/tied``. ``advantages`` are 1, -1 and 0.

    It follows another objective than E[r]. Where the policy still equals its reference, two samples and a binary reward
    give beta grad J.

    Args:
        samples: responses sampled for each prompt (G), at least 2.
        beta: how strongly the policy is held to its reference; a higher beta holds it closer.
        sampling: who answers. ``policy``: the current weights. ``reference``: the weights that training started from,
            which is offline DPO (2305.18290).
    """

    weighs_tokens = False
    needs_spread = True

    def __init__(
        self, samples: Several = 4, beta: Positive = 0.1, sampling: Literal["policy", "reference"] = "policy", **kwargs
    ) -> None:
        super().__init__(samples=samples, **kwargs)
        if not self._reference:
            raise UsageError(
                "model.reference is false, but OnlineDPO compares the policy with its reference; set it to true"
            )
        if self.normalizer != "row_sum" or self.clip_low is not None or self.clip_high is not None:
            raise UsageError(
                "model.normalizer, model.clip_low and model.clip_high do not apply to OnlineDPO's pairs; leave them out"
            )
        if self.kl_coefficient > 0:
            raise UsageError(
                "model.kl_coefficient: OnlineDPO keeps the policy near its start by model.beta; set it to 0"
            )
        self.beta, self.sampling = beta, sampling
        self._start = self._reference[0].fingerprint  # what the policy implies is relative to it
        self.plan = replace(self.plan, pairs=True)

    @property
    def behaviour(self) -> CausalPolicy:
        return self.policy if self.sampling == "policy" else self._reference[0]

    def advantages(self, rollouts: Rollouts) -> Tensor:
        assert rollouts.rewards is not None
        rewards = rollouts.rewards.view(-1, self.plan.samples)
        best, worst = best_and_worst(rewards)
        signs = torch.zeros_like(rewards).scatter(1, best[:, None], 1.0).scatter(1, worst[:, None], -1.0)
        tied = rewards.amax(1) == rewards.amin(1)
        return signs.masked_fill(tied[:, None], 0.0).view(-1, 1).expand(rollouts.mask.shape)

    @torch.no_grad()
    def prepare(self, rollouts: Rollouts, rows: int) -> None:
        assert rollouts.rewards is not None, "score the rollouts before preparing them"
        best, worst = best_and_worst(rollouts.rewards.view(-1, self.plan.samples))
        columns = torch.arange(self.plan.samples, device=best.device)
        rollouts.trained = ((columns == best[:, None]) | (columns == worst[:, None])).view(-1)
        rollouts.left_out = ~rollouts.trained
        super().prepare(rollouts, rows)

    def loss(self, minibatch: Rollouts, logprobs: Tensor) -> dict[str, Tensor]:
        assert minibatch.advantages is not None and minibatch.reference_logprobs is not None
        log_ratios = (logprobs - minibatch.reference_logprobs).sum(1)
        signs = minibatch.advantages.sum(1).sign()  # the same at each chosen token, wherever the first one stands
        return {"policy": dpo_loss(log_ratios, signs, self.beta)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["reference"] = self._start

    def _describe(self, rollouts: Rollouts) -> dict[str, Tensor]:
        values = super()._describe(rollouts)
        if self.sampling == "reference":  # of responses that the policy did not sample they would say something else
            values = {name: value for name, value in values.items() if not name.startswith(("policy/", "sampler/"))}
        return {**values, "pairs/tied": values["group/zero_advantage"]}  # their share
