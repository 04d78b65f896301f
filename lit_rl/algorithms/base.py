"""What the algorithms share: one iteration is one Lightning epoch over one table of rollouts.

The order of an iteration: the data module samples responses, the reward callback scores them, :meth:`Algorithm.prepare`
computes log-probabilities and advantages, and :meth:`Algorithm.training_step` computes the loss of each micro-batch.
Lightning does the rest: accumulation, clipping, precision, several devices, checkpoints.
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from lit_rl.algorithms.optimization import MakeOptimizer
from lit_rl.algorithms.schedules import Schedule
from lit_rl.algorithms.training import Training
from lit_rl.errors import UsageError
from lit_rl.functional.losses import Normalizer, kl_loss, policy_gradient_loss, row_denominator
from lit_rl.functional.sampler_gap import truncated_weights
from lit_rl.policy.causal import CausalPolicy
from lit_rl.policy.checkpoints import load_policy, read_checkpoint
from lit_rl.ranges import Count, NonNegative, Positive, Share, ShareBelowOne, Whole
from lit_rl.rollouts import Rollouts, response_mask
from lit_rl.sampling.base import SamplingPlan

SHARED = ("predictions", "loss", "token_rewards")  # what takes log-probabilities of the weights that sampled


class Algorithm(Training):
    """A policy, how it is sampled, and how scored responses become a loss.

    A subclass overrides :meth:`advantages`, and :meth:`loss` where its loss is not the shared one. A subclass with a
    critic overrides :meth:`predictions` too.

    Args:
        policy: the model that is trained; null takes the embedded one.
        samples: responses sampled for each prompt (G).
        temperature: of sampling and of every log-probability.
        max_new_tokens: the most tokens that the policy writes in a response, in all its turns.
        passes: passes over the responses of an iteration; 1 stays closest to on-policy.
        normalizer: what the loss of a response is divided by. ``row_sum``: 1, the policy gradient itself.
            ``sequence_mean``: the tokens of the response. ``token_mean``: the mean number of tokens over an optimizer
            step. ``constant``: ``max_new_tokens``.
        clip_low: clips the importance ratio pi / pi_old below 1 - clip_low; null does not.
        clip_high: clips the importance ratio above 1 + clip_high; null does not.
        kl_coefficient: weight of the penalty that keeps the policy near its start; 0 for none.
        kl: where the penalty enters. ``k1_reward``: lowers the reward by the response's log ratio to the start.
            ``k2_loss`` and ``k3_loss``: add a term to the loss (``lit_rl.functional.losses.kl_loss``).
        reference: keep a frozen copy of the start; ``policy/kl`` and the penalty need it.
        correct_sampler: what is done where an engine samples, whose probabilities differ from those of the weights in
            training. ``off``: nothing. ``truncated``: the score of a token is weighed by min(pi / pi_sampler,
            ``sampler_cap``), truncated importance sampling (``lit_rl.functional.sampler_gap``).
        sampler_cap: the largest of these weights.
        start: a checkpoint written by ``fit`` with the same ``policy``; training starts from the weights of its policy.
            null starts from those of ``policy``.
        learning_rate: of the optimizer, after the warm-up.
        betas: decay rates of AdamW's two averages.
        weight_decay: of AdamW.
        warmup_steps: optimizer steps over which the learning rate rises linearly to its value.
        schedule: how the learning rate falls with u, the share of the run's budget (iterations, generated tokens or
            seconds) that was spent when the iteration began. ``constant``: not at all. ``linear``: by the factor 1 - u.
            ``cosine``: by (1 + cos(pi u)) / 2. ``snr``: with the gradient's noise instead. Warm-up multiplies all.
        optimizer: an optimizer other than AdamW: a class such as ``torch.optim.SGD``, or any function of parameter
            groups and a learning rate that returns one. Its settings are ``model.optimizer.*``; null takes AdamW.

    Raises:
        UsageError: settings that exclude each other, or a ``start`` that is not of this policy.
    """

    compares_group = False  # whether a prompt's responses are each other's baseline
    normalises = False  # whether advantages are in units of their spread over the iteration, not of the reward
    rewards: Literal["response", "turns"] = "response"  # what advantages compare
    weighs_tokens = True  # whether a token's advantage weighs its own score and no other

    def __init__(
        self,
        policy: CausalPolicy | None = None,
        samples: Count = 1,
        temperature: Positive = 1.0,
        max_new_tokens: Count = 192,
        passes: Count = 1,
        normalizer: Normalizer = "row_sum",
        clip_low: Share | None = None,
        clip_high: NonNegative | None = None,
        kl_coefficient: NonNegative = 0.0,
        kl: Literal["k1_reward", "k2_loss", "k3_loss"] = "k1_reward",
        reference: bool = True,
        correct_sampler: Literal["off", "truncated"] = "off",
        sampler_cap: Positive = 2.0,
        start: str | None = None,
        learning_rate: NonNegative = 2e-4,
        betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.95),
        weight_decay: NonNegative = 0.0,
        warmup_steps: Whole = 5,
        schedule: Schedule = "constant",
        optimizer: MakeOptimizer | None = None,
    ) -> None:
        if kl_coefficient > 0 and not reference:
            raise UsageError("model.kl_coefficient is above 0, but model.reference is false; set model.reference true")
        if correct_sampler != "off" and not self.weighs_tokens:
            raise UsageError(
                f"model.correct_sampler weighs the scores of tokens, and {type(self).__name__}'s loss does not; set it "
                "to off"
            )
        if optimizer is None:
            optimizer = partial(AdamW, betas=betas, weight_decay=weight_decay)
        elif weight_decay != 0 or tuple(betas) != (0.9, 0.95):
            raise UsageError(
                "model.betas and model.weight_decay are AdamW's; set those of model.optimizer by model.optimizer.*"
            )
        plan = SamplingPlan(samples=samples, temperature=temperature, max_new_tokens=max_new_tokens)
        policy = policy if policy is not None else CausalPolicy()
        if start is not None:
            saved = read_checkpoint(start, "model.start", "give a checkpoint that fit has written, or null")
            load_policy(policy, saved, f"model.start: {start} holds no policy like model.policy")
        super().__init__(policy, plan, clip_low, clip_high, learning_rate, optimizer, schedule, warmup_steps)
        self._passes = passes
        self.normalizer: Normalizer = normalizer
        self.kl_coefficient, self.kl = kl_coefficient, kl
        self.correct_sampler, self.sampler_cap = correct_sampler, sampler_cap
        # in a tuple: no parameter of this module, so in no optimizer, checkpoint or gradient synchronisation
        self._reference: tuple[CausalPolicy, ...] = (self.policy.reference(),) if reference else ()

    # ---- what an algorithm is: neither of these touches the trainer or logs -------------------------------------

    def advantages(self, rollouts: Rollouts) -> Tensor:
        """The weight of each token's score, from scored rollouts.

        Args:
            rollouts: scored. Their old log-probabilities and entropies may be None, see :meth:`prepare`.

        Returns:
            [N, T], in units of the reward; what stands outside the mask is ignored.
        """
        raise NotImplementedError

    def loss(self, minibatch: Rollouts, logprobs: Tensor) -> dict[str, Tensor]:
        """The terms of the loss on some rows of prepared rollouts; their sum is minimised.

        The term ``policy`` is always there.

        Args:
            minibatch: N rows.
            logprobs: [N, T] log-probabilities under the weights in training.

        Returns:
            Numbers by name, each with a gradient.
        """
        mask, old = minibatch.mask, minibatch.old_logprobs
        assert minibatch.advantages is not None and (old is not None or minibatch.one_step)
        denominator = row_denominator(mask, self.normalizer, minibatch.window_tokens, self.plan.max_new_tokens)
        terms = {
            "policy": policy_gradient_loss(
                logprobs,
                logprobs.detach() if old is None else old,
                minibatch.advantages,
                mask,
                denominator,
                self.clip_low,
                self.clip_high,
            )
        }
        if self.kl_coefficient > 0 and self.kl != "k1_reward":
            assert minibatch.reference_logprobs is not None
            kind: Literal["k2", "k3"] = "k2" if self.kl == "k2_loss" else "k3"
            penalty = kl_loss(logprobs, minibatch.reference_logprobs, mask, denominator, kind)
            terms["kl"] = self.kl_coefficient * penalty
        return terms

    def predictions(self, minibatch: Rollouts) -> tuple[Tensor, ...]:
        """What :meth:`loss` takes beside the rows: log-probabilities under the weights in training, [N, T]."""
        if minibatch.old_logprobs is not None or not minibatch.one_step or self.plan.demonstrations:
            return (self.policy(minibatch, self.plan.temperature),)
        logprobs, minibatch.entropy = self.policy.logprobs_and_entropy(minibatch, self.plan.temperature)
        return (logprobs,)

    @property
    def behaviour(self) -> CausalPolicy:
        """The policy that responses are sampled from."""
        return self.policy

    @property
    def needs_spread(self) -> bool:
        """Whether responses to one prompt that all earn the same teach nothing, penalties aside."""
        return self.compares_group

    @property
    def passes(self) -> int:
        """Passes over the rollouts of the next iteration."""
        return self._passes

    @property
    def waits(self) -> bool:
        """Whether the policy does not change in this iteration, because its critic is still being fitted."""
        return False

    @property
    def reference(self) -> CausalPolicy | None:
        """The policy that training started from; None if it is not kept."""
        return self._reference[0] if self._reference else None

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Models that are used and never trained. They are not among the module's parameters."""
        return self._reference

    def token_rewards(self, rollouts: Rollouts, rows: int) -> Tensor | None:
        """What tokens earn beside the response's reward: [N, T], in units of the reward; None if nothing.

        Here it is the KL penalty ``k1_reward``, -kl_coefficient log(pi / pi_ref).

        Args:
            rollouts: with old and reference log-probabilities.
            rows: the most rows of one forward pass.
        """
        if not self._penalized:
            return None
        assert rollouts.old_logprobs is not None and rollouts.reference_logprobs is not None
        return -self.kl_coefficient * (rollouts.old_logprobs - rollouts.reference_logprobs)

    @property
    def _penalized(self) -> bool:
        return self.kl_coefficient > 0 and self.kl == "k1_reward"

    @torch.no_grad()
    def prepare(self, rollouts: Rollouts, rows: int) -> None:
        """Fills in old and reference log-probabilities, token rewards and advantages, ``rows`` rows at a time.

        Log-probabilities of probes are 0 where no reward needs them. Old log-probabilities and entropies stay None if
        the iteration has one optimizer step, there is no reference, only the shared loss uses them and the sampler has
        no probabilities of its own: the loss then computes them itself.

        Raises:
            UsageError: :meth:`advantages` returns another shape than [N, T].
        """
        shared = all(getattr(type(self), name) is getattr(Algorithm, name) for name in SHARED) and not self._reference
        if not (rollouts.one_step and shared) or rollouts.sampler_logprobs is not None:
            self._read(rollouts, rows)
        rollouts.token_rewards = self.token_rewards(rollouts, rows)
        advantages = self.advantages(rollouts)
        if advantages.shape != rollouts.mask.shape:
            raise UsageError(
                f"model: {type(self).__name__}.advantages returns the shape {tuple(advantages.shape)}; return one "
                f"number per token, of shape {tuple(rollouts.mask.shape)}"
            )
        if self.correct_sampler == "truncated" and rollouts.sampler_logprobs is not None:
            assert rollouts.old_logprobs is not None
            read = rollouts.mask & (rollouts.trained | rollouts.sampled)[:, None]
            advantages = advantages * truncated_weights(
                rollouts.old_logprobs, rollouts.sampler_logprobs, read, self.sampler_cap
            )
        rollouts.advantages = advantages * rollouts.mask

    def _read(self, rollouts: Rollouts, rows: int) -> None:
        """Old and reference log-probabilities, and entropies."""
        needed = torch.ones_like(rollouts.trained) if self._penalized else rollouts.trained | rollouts.sampled
        blank = torch.zeros_like(rollouts.response_ids, dtype=self.policy.dtype)
        old, entropy, reference = blank, blank.clone(), blank.clone()
        for index in rollouts.read_together(needed, rows):
            part = rollouts.select(index)
            old[index], entropy[index] = self.policy.logprobs_and_entropy(part, self.plan.temperature)
            for policy in self._reference:
                reference[index] = policy(part, self.plan.temperature)
        rollouts.old_logprobs, rollouts.entropy = old, entropy
        if self._reference:
            rollouts.reference_logprobs = reference

    @staticmethod
    def returns(rollouts: Rollouts) -> Tensor:
        """The return of each response: its reward plus what its tokens earned, [N].

        A continuation also counts what the tokens of its prefix earned.
        """
        assert rollouts.rewards is not None, "score the rollouts before preparing them"
        if rollouts.token_rewards is None:
            return rollouts.rewards
        earned = rollouts.token_rewards[rollouts.origin] * response_mask(rollouts.cut, rollouts.mask.shape[1])
        return rollouts.rewards + rollouts.token_rewards.sum(1) + earned.sum(1)
