"""RL-ZVP: GRPO that also learns from prompts whose responses all earn the same."""

import torch
from torch import Tensor

from lit_rl.algorithms.grpo import GRPO
from lit_rl.errors import UsageError
from lit_rl.functional.advantages import has_spread
from lit_rl.ranges import NonNegative
from lit_rl.rollouts import Rollouts


class RLZVP(GRPO):
    """Weighs the tokens of a prompt without spread by their entropy (2509.21880); other prompts are GRPO's.

    Where all responses are right, A_t = alpha H_t. Where all are wrong, A_t = -alpha (max_k H_k - H_t), with the most
    entropy in the response. H_t is the entropy of pi(. | s_t) in nats, without a gradient. A response is right if its
    reward is above 0; in training, if what :meth:`lit_rl.tasks.Task.solved` makes of it is. This follows another
    objective: it sharpens what is solved, and pushes failing responses away except where they hesitated.

    Args:
        alpha: weight of these prompts, in units of the advantage per nat.

    Raises:
        UsageError: ``rewards`` is ``turns``, or a penalty is in the rewards: prompts without spread have no use for
            either.
    """

    needs_spread = False

    def __init__(self, alpha: NonNegative = 0.1, **kwargs) -> None:
        super().__init__(**kwargs)
        if self.rewards != "response":
            raise UsageError(
                "model.rewards turns does not apply to RLZVP, which tells prompts by responses; leave it out"
            )
        if self._penalized:
            raise UsageError("model.kl k1_reward does not reach prompts without spread; set model.kl k3_loss")
        self.alpha = alpha

    @torch.no_grad()
    def prepare(self, rollouts: Rollouts, rows: int) -> None:
        rollouts.one_step = False  # entropies are needed before the loss computes any
        super().prepare(rollouts, rows)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        rewards, entropy = rollouts.rewards, rollouts.entropy
        assert rewards is not None and entropy is not None
        highest = entropy.masked_fill(~rollouts.mask, 0).amax(1, keepdim=True)
        right = (rewards if self._trainer is None else self._data.task.solved(rewards)) > 0
        shaped = self.alpha * torch.where(right[:, None], entropy, entropy - highest)
        return torch.where(has_spread(rewards, rollouts.group)[:, None], super().advantages(rollouts), shaped)
