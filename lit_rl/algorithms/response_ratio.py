"""One importance ratio for a whole response, in place of one for each of its tokens."""

import torch
from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.functional.losses import clipped_fraction, policy_gradient_loss
from lit_rl.rollouts import Rollouts


class ResponseRatio(Algorithm):
    """The loss -mean_i min(w_i A_i, clip(w_i, 1 - clip_low, 1 + clip_high) A_i), with one ratio w_i for a response.

    A subclass overrides :meth:`log_ratios`. The advantage is that of the response, the same at all of its tokens.
    """

    weighs_tokens = False

    def log_ratios(self, minibatch: Rollouts, logprobs: Tensor) -> Tensor:
        """log w_i [N], 0 on the weights that sampled.

        Args:
            minibatch: N rows of prepared rollouts.
            logprobs: [N, T] log-probabilities under the weights in training.
        """
        raise NotImplementedError

    def loss(self, minibatch: Rollouts, logprobs: Tensor) -> dict[str, Tensor]:
        terms = super().loss(minibatch, logprobs)
        ratios, old, advantages, present = self._of_responses(minibatch, logprobs)
        ones = torch.ones_like(ratios[:, 0])
        terms["policy"] = policy_gradient_loss(ratios, old, advantages, present, ones, self.clip_low, self.clip_high)
        return terms

    def clipped(self, minibatch: Rollouts, logprobs: Tensor, old: Tensor) -> Tensor:
        return clipped_fraction(*self._of_responses(minibatch, logprobs), self.clip_low, self.clip_high)

    def _of_responses(self, minibatch: Rollouts, logprobs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the shared loss takes, for responses of one token each: [N, 1]."""
        assert minibatch.advantages is not None
        ratios = self.log_ratios(minibatch, logprobs)[:, None]
        first = minibatch.mask.long().argmax(1, keepdim=True)
        advantages = minibatch.advantages.gather(1, first)
        return ratios, torch.zeros_like(ratios), advantages, minibatch.mask.any(1, keepdim=True)
