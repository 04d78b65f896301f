"""TRePO: token advantages from the values of some prefixes, estimated by continuations."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.errors import UsageError
from lit_rl.functional.advantages import leave_one_out
from lit_rl.functional.cuts import Bernoulli, CutRule, Stride, cut_positions
from lit_rl.functional.prefix_values import Fill, exact_probability, prefix_advantages
from lit_rl.ranges import Count, Number
from lit_rl.rollouts import Rollouts


class TRePO(Algorithm):
    """RLOO with a baseline that moves along the response: the value of the prefix at each cut (2506.02553).

    A cut's value is the mean return of ``continuations`` responses sampled on from there: probes, forked from the
    sample's cache. The fill rule makes token advantages of the values, see :mod:`lit_rl.functional.prefix_values`; with
    cuts behind reasoning steps, ``segment_td`` and clipping it is VinePPO (2410.01679).

    With ``reuse`` the continuations are trained on as well. A prefix s_t is visited by a sample and, in expectation, by
    K continuations for each of the c_t cuts that the rule makes in it, all of them on-policy: with the weight
    1 / (1 + K c_t) on token t, of samples and continuations alike, the sum over rows estimates the same gradient. The
    baseline of a continuation is the mean of the other K responses that leave its cut. More rows are more optimizer
    steps: to compare at as many, raise ``trainer.accumulate_grad_batches``.

    Args:
        samples: responses a prompt; with ``root = siblings`` at least 2.
        cuts: the rule that cuts responses, of :mod:`lit_rl.functional.cuts`; None takes a stride of an
            eighth of ``max_new_tokens``, at least 2.
        continuations: of each cut (K).
        fill: the fill rule.
        mix: the constant of the fill ``mix``.
        root: the prompt's value: ``siblings`` takes the mean of the other samples, which costs nothing,
            ``continuations`` pays K more.
        reuse: train on continuations.
    """

    compares_group = True

    def __init__(
        self,
        samples: Count = 4,
        cuts: CutRule | None = None,
        continuations: Count = 2,
        fill: Fill = "segment_td",
        mix: Number = 0.0,
        root: Literal["siblings", "continuations"] = "siblings",
        reuse: bool = False,
        **kwargs,
    ) -> None:
        if root == "siblings" and samples < 2:
            raise UsageError(
                f"model.samples is {samples}; model.root siblings takes at least 2, or set model.root continuations"
            )
        if mix and fill != "mix":
            raise UsageError(f"model.mix is {mix}, but model.fill is {fill}; only the fill mix takes it")
        super().__init__(samples=samples, **kwargs)
        rule = cuts if cuts is not None else Stride(max(2, self.plan.max_new_tokens // 8))
        if cuts is not None:
            cuts.check(self.plan.max_new_tokens, self.policy.vocabulary)
        if fill == "all_positions" and rule != Stride(1):
            raise UsageError("model.fill all_positions takes a cut before every token: model.cuts Stride with every 1")
        if fill == "masked_advantage" and not isinstance(rule, Bernoulli):
            raise UsageError("model.fill masked_advantage takes random cuts: model.cuts Bernoulli")
        if reuse and self.kl_coefficient > 0 and self.kl != "k1_reward":
            raise UsageError(
                f"model.kl {self.kl} would count a prefix once for each of its continuations; with model.reuse take "
                "k1_reward"
            )
        self.fill: Fill = fill
        self.mix = mix
        self.plan = replace(
            self.plan, cuts=rule, continuations=continuations, fork_root=root == "continuations", reuse=reuse
        )

    def advantages(self, rollouts: Rollouts) -> Tensor:
        returns = self.returns(rollouts)
        samples = (rollouts.origin < 0).nonzero().squeeze(1)
        forked = (rollouts.origin >= 0).nonzero().squeeze(1)
        assert rollouts.cuts is not None
        sums = returns.new_zeros(rollouts.cuts.shape)  # of the continuations' returns, by origin and cut
        where = rollouts.origin[forked], rollouts.cut[forked]
        sums.index_put_(where, returns[forked], accumulate=True)

        own, mask, cuts = returns[samples], rollouts.mask[samples], rollouts.cuts[samples]
        values = sums[samples] / self.plan.continuations
        if not self.plan.fork_root:
            values[:, 0] = own - leave_one_out(own, rollouts.group[samples])
        positions = cut_positions(cuts)
        values = values.gather(1, positions.clamp(min=0))
        probability = self._exact_probability(rollouts.select(samples)) if self.fill == "masked_advantage" else None
        filled = prefix_advantages(own, positions, values, mask, self.fill, self.mix, probability)
        advantages = returns.new_zeros(rollouts.mask.shape)
        advantages[samples] = filled
        if self.plan.reuse:
            # the others that leave a continuation's cut: the sample itself and K - 1 continuations
            others = (sums[where] - returns[forked] + returns[where[0]]) / self.plan.continuations
            advantages[forked] = (returns[forked] - others)[:, None].expand_as(rollouts.mask[forked])
            advantages /= 1 + self.plan.continuations * rollouts.cuts.cumsum(1)
            advantages *= len(rollouts) / len(samples)  # the loss is a mean over rows; wanted is one over samples
        return advantages

    def _exact_probability(self, samples: Rollouts) -> Tensor:
        assert self.plan.cuts is not None and samples.cuts is not None
        blank = torch.zeros_like(samples.cuts, dtype=self.policy.dtype)
        chances = self.plan.cuts.chances(samples.response_ids, samples.lengths, blank)
        return exact_probability(chances, samples.lengths)
