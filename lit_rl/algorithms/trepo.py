"""TRePO: token advantages from the values of some prefixes, which are estimated by continuations."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.errors import UsageError
from lit_rl.functional.advantages import leave_one_out
from lit_rl.functional.chosen import packed, unpacked
from lit_rl.functional.cuts import Bernoulli, CutRule, Stride, Turns, cut_positions
from lit_rl.functional.prefix_values import Fill, exact_probability, prefix_advantages
from lit_rl.ranges import Count, Number
from lit_rl.rollouts import Rollouts


class TRePO(Algorithm):
    """RLOO with a baseline that changes along the response: the estimated value of the prefix at each cut (2506.02553).

    The value of a cut is the mean return of ``continuations`` responses that are sampled on from there. They are
    probes: scored and counted, but not trained on. The fill rule makes the advantages of the tokens between two cuts
    from the values there (:mod:`lit_rl.functional.prefix_values`). By default, a token is credited with the change of
    the value over its segment; this is unbiased. With cuts at reasoning steps and clipping it is VinePPO (2410.01679).

    ``reuse`` trains on the continuations as well. A prefix s_t with c_t cuts is visited by one sample and, in
    expectation, by K continuations from each of the cuts, all on-policy. With the weight 1 / (1 + K c_t) on token t of
    samples and continuations, the sum over rows estimates the same gradient. The baseline of a continuation is the mean
    of the other K responses from its cut. More rows mean more optimizer steps: to compare at equal steps, raise
    ``trainer.accumulate_grad_batches``.

    Args:
        samples: responses sampled for each prompt (G); at least 2 with ``root`` ``siblings``.
        cuts: the rule that says where responses are cut (``Stride``, ``Bernoulli``, ``Entropy``, ``Boundary``,
            ``Turns``, ``Relative``); null cuts at intervals of an eighth of ``max_new_tokens``, at least 2 tokens.
        continuations: responses sampled from each cut (K).
        fill: how the values at the cuts become advantages of tokens. ``segment_td``: the change of the value over the
            segment. ``hold_mc``: the return minus the value at the last cut. ``mix``: a mixture of the two.
            ``all_positions``: ``segment_td`` with a cut before every token. ``masked_advantage``: tokens with a cut on
            either side, divided by the probability of that. These are unbiased; ``linear_value_mc``,
            ``linear_value_td`` and ``linear_advantage`` interpolate between cuts and are biased.
        mix: the constant of the fill ``mix``: 0 is ``segment_td``, 1 is ``hold_mc``.
        root: where the value of the prompt comes from. ``siblings``: the mean of the other samples, which costs
            nothing. ``continuations``: K more responses to the prompt.
        reuse: also train on the continuations.
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
                f"model.samples is {samples}, but model.root siblings needs 2; raise it or set model.root continuations"
            )
        if mix and fill != "mix":
            raise UsageError(f"model.mix is {mix}, but only model.fill mix uses it, not {fill}; leave it out")
        super().__init__(samples=samples, **kwargs)
        rule = cuts if cuts is not None else Stride(max(2, self.plan.max_new_tokens // 8))
        if cuts is not None:
            cuts.check(self.plan.max_new_tokens, self.policy.vocabulary)
        if fill == "all_positions" and rule != Stride(1):
            raise UsageError(
                "model.fill all_positions needs a cut before every token; set model.cuts Stride and model.cuts.every 1"
            )
        if fill == "masked_advantage" and not isinstance(rule, Bernoulli):
            raise UsageError("model.fill masked_advantage needs random cuts; set model.cuts Bernoulli")
        if reuse and self.kl_coefficient > 0 and self.kl != "k1_reward":
            raise UsageError(
                f"model.kl {self.kl} would count a prefix once for each of its continuations, because of model.reuse; "
                "set model.kl k1_reward"
            )
        self.fill: Fill = fill
        self.mix = mix
        self.plan = replace(
            self.plan, cuts=rule, continuations=continuations, fork_root=root == "continuations", reuse=reuse
        )

    def advantages(self, rollouts: Rollouts) -> Tensor:
        if isinstance(self.plan.cuts, Turns) and rollouts.spoken is None:
            raise UsageError("model.cuts Turns: data.task has no environment; take a task that has one")
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
        mask = samples.mask
        chances = self.plan.cuts.chances_in_turns(samples.response_ids, mask, blank)
        return unpacked(exact_probability(packed(chances, mask), mask.sum(1)), mask)
