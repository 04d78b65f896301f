"""REINFORCE with the baseline that leaves the least noise: a mean of returns, weighted by squared norms of scores."""

from typing import Literal

import torch
from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.functional.advantages import weighted_baseline
from lit_rl.functional.chosen import packed, unpacked
from lit_rl.ranges import Several
from lit_rl.rollouts import Rollouts, response_mask


class OptimalBaseline(Algorithm):
    """Subtracts the variance-optimal baseline E[|psi|^2 r] / E[|psi|^2], estimated from the prompt's other responses.

    As an estimate from the other responses does not depend on the response itself, this is unbiased. OBLR-PO
    (2511.23310) writes the plain plug-in, with the response's own return in it (``leave_one_out`` false); this is
    biased. OBLR-PO's learning rate is the ``schedule`` ``snr``.

    |psi|^2 is the squared norm of the score as a function of the logits: sum_t |1[a_t] - pi(. | s_t)|^2. It costs one
    more reading of the responses and no backward pass. For a table of logits it is the norm itself, for a transformer a
    stand-in. Other weights change the noise and never the mean.

    Args:
        samples: responses sampled for each prompt (G), at least 2.
        per: what one baseline is for, and thereby the norms that weigh. ``response``: all tokens of a response
            (2511.23310). ``token``: each position, by the norms of the scores there. ``prefix``: each position, by the
            sums of the norms up to there (2602.07078). In the last two, responses that have ended weigh nothing.
        leave_one_out: leave the response's own return out of its baseline. false is biased.
    """

    compares_group = True

    def __init__(
        self,
        samples: Several = 4,
        per: Literal["response", "token", "prefix"] = "response",
        leave_one_out: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(samples=samples, **kwargs)
        self.per, self.leave_one_out = per, leave_one_out

    @torch.no_grad()
    def prepare(self, rollouts: Rollouts, rows: int) -> None:
        parts = torch.arange(len(rollouts), device=rollouts.mask.device).split(rows)
        norms = [self.policy.score_norms(rollouts.select(part), self.plan.temperature) for part in parts]
        rollouts.score_norms = torch.cat(norms)
        super().prepare(rollouts, rows)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        mask = rollouts.mask
        assert rollouts.score_norms is not None
        norms = packed(rollouts.score_norms, mask)
        if self.per == "response":
            norms = norms.sum(1, keepdim=True).expand_as(norms)
        elif self.per == "prefix":
            norms = norms.cumsum(1) * response_mask(mask.sum(1), mask.shape[1])
        samples, returns = self.plan.samples, self.returns(rollouts)
        baseline = weighted_baseline(
            returns.view(-1, samples), norms.reshape(-1, samples, norms.shape[1]), self.leave_one_out
        )
        return returns[:, None] - unpacked(baseline.view_as(norms), mask)
