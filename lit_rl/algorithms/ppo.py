"""PPO: REINFORCE whose baseline is a learned critic."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from lit_rl.algorithms.base import Algorithm
from lit_rl.algorithms.pretraining import Pretraining
from lit_rl.errors import UsageError
from lit_rl.functional import placement
from lit_rl.functional.critic import gae, value_loss, whiten
from lit_rl.functional.diagnostics import agreement, pair_sums
from lit_rl.functional.losses import row_denominator
from lit_rl.policy.critic import Critic, Trunk
from lit_rl.ranges import Count, NonNegative, Share, Whole
from lit_rl.rollouts import Rollouts


class PPO(Algorithm):
    """REINFORCE with a critic: generalized advantages, a clipped ratio, a loss of the values (1707.06347).

    A_t by :func:`lit_rl.functional.critic.gae`. With the default ``lambda_actor`` 1 it is r - V(s_t): unbiased for any
    critic that was there before the responses; below 1, the critic's errors become a bias. The value loss is
    :func:`lit_rl.functional.critic.value_loss` of the lambda-returns by ``lambda_critic``; two lambdas after VC-PPO
    (2503.01491).

    With ``critic_pretraining`` the critic is first fitted to the returns of the policy while that stays as it is
    (2503.01491): for so many iterations, or until the explained variance, of responses not yet fitted, has stopped
    rising. Curves ``pretraining/*`` and ``critic/*``.

    Args:
        critic: ``copy`` is a value head on its own copy of the model; ``shared`` one on the policy's trunk, which the
            value loss then trains as well (pretraining fits the head alone).
        lambda_actor, lambda_critic: of the advantages and of the critic's targets.
        weighting: ``to_go`` weighs a token by what is earned from there on; ``full`` by all that the response earns,
            with lambda 1: for token rewards that know the future.
        whiten: shift and scale an iteration's advantages (of one process) to mean 0 and deviation 1; biased.
        value_clip: keeps a value within +- of what it was when its response was sampled, in units of the reward (raise
            it where rewards are not within 0..1); None leaves it free.
        value_coefficient: weight of the value loss.
        critic_learning_rate: of the critic's own parameters.
        critic_pretraining: iterations at most; 0 is none. They count in ``trainer.max_epochs``.
        pretraining_passes: over the rollouts of a pretraining iteration.
        patience: pretraining iterations in a row without a rise of 0.01 that end it earlier.
    """

    def __init__(
        self,
        critic: Trunk = "copy",
        lambda_actor: Share = 1.0,
        lambda_critic: Share = 1.0,
        weighting: Literal["to_go", "full"] = "to_go",
        whiten: bool = False,
        value_clip: NonNegative | None = 0.2,
        value_coefficient: NonNegative = 0.5,
        critic_learning_rate: NonNegative = 1e-3,
        critic_pretraining: Whole = 0,
        pretraining_passes: Count = 4,
        patience: Count = 10,
        clip_low: Share | None = 0.2,
        clip_high: NonNegative | None = 0.2,
        **kwargs,
    ) -> None:
        if weighting == "full" and lambda_actor < 1:
            raise UsageError(f"model.lambda_actor is {lambda_actor}; model.weighting full takes 1")
        super().__init__(clip_low=clip_low, clip_high=clip_high, **kwargs)
        self.critic = Critic(self.policy, critic)
        self.lambda_actor, self.lambda_critic = lambda_actor, lambda_critic
        self.weighting, self.whiten = weighting, whiten
        self.value_clip, self.value_coefficient = value_clip, value_coefficient
        self.critic_learning_rate = critic_learning_rate
        self.pretraining = Pretraining(critic_pretraining, patience)
        self.pretraining_passes = pretraining_passes
        self._explained = float("nan")  # of this iteration's returns, before it is fitted to them

    @property
    def passes(self) -> int:
        return self.pretraining_passes if self.pretraining.active else super().passes

    @property
    def waits(self) -> bool:
        return self.pretraining.active

    def advantages(self, rollouts: Rollouts) -> Tensor:
        assert rollouts.values is not None
        if self.weighting == "full":
            advantages = self.returns(rollouts)[:, None] - rollouts.values
        else:
            advantages = gae(self._earned(rollouts), rollouts.values, rollouts.mask, self.lambda_actor)
        return whiten(advantages, rollouts.mask) if self.whiten else advantages

    @torch.no_grad()
    def prepare(self, rollouts: Rollouts, rows: int) -> None:
        parts = torch.arange(len(rollouts), device=rollouts.mask.device).split(rows)
        rollouts.values = torch.cat([self._values(rollouts.select(part)) for part in parts])
        super().prepare(rollouts, rows)
        if self.weighting == "full":
            rollouts.value_targets = self.returns(rollouts)[:, None] * rollouts.mask
        else:
            ahead = gae(self._earned(rollouts), rollouts.values, rollouts.mask, self.lambda_critic)
            rollouts.value_targets = (ahead + rollouts.values) * rollouts.mask

    def predictions(self, minibatch: Rollouts) -> tuple[Tensor, ...]:
        """Log-probabilities and values, [N, T] each."""
        if self.critic.trunk is not None:
            return self.policy(minibatch, self.plan.temperature), self.critic(minibatch)
        logprobs, states = self.policy.logprobs_and_states(minibatch, self.plan.temperature)
        return logprobs, self.critic.read(states, minibatch)

    def loss(self, minibatch: Rollouts, logprobs: Tensor, values: Tensor | None = None) -> dict[str, Tensor]:
        terms = super().loss(minibatch, logprobs)
        if values is not None:
            assert minibatch.values is not None and minibatch.value_targets is not None
            mask = minibatch.mask
            denominator = row_denominator(mask, "token_mean", minibatch.window_tokens, self.plan.max_new_tokens)
            old, targets = minibatch.values, minibatch.value_targets
            error = value_loss(values, old, targets, mask, denominator, self.value_clip)
            terms["value"] = self.value_coefficient * error
        return terms

    def _values(self, rollouts: Rollouts) -> Tensor:
        if self.critic.trunk is not None:
            return self.critic(rollouts)
        return self.critic.read(self.policy.states(rollouts), rollouts)

    @staticmethod
    def _earned(rollouts: Rollouts) -> Tensor:
        """What each token earns, the response's reward at the last one: [N, T]."""
        assert rollouts.rewards is not None, "score the rollouts before preparing them"
        rewards = placement.last(rollouts.rewards, rollouts.mask)
        return rewards if rollouts.token_rewards is None else rewards + rollouts.token_rewards

    # ---- Lightning's hooks --------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.whiten and self.trainer.world_size > 1:
            raise UsageError("model.whiten is of one process's responses; set it to false with several")
        iterations, most = int(self.pretraining.left), self.trainer.max_epochs
        if self.pretraining.active and most is not None and 0 <= most <= self.trainer.current_epoch + iterations:
            rank_zero_warn(f"all {most} iterations (trainer.max_epochs) may be critic pretraining; the policy waits")

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        rollouts: Rollouts = self._data.rollouts
        trained = rollouts.select(rollouts.trained)
        assert trained.values is not None and trained.value_targets is not None
        sums = pair_sums(trained.values[trained.mask], trained.value_targets[trained.mask])
        fit = agreement(self._data.sum_over_ranks(sums))
        self._explained = fit.explained_variance
        phase = "pretraining" if self.pretraining.active else "critic"
        values = {f"{phase}/explained_variance": fit.explained_variance, f"{phase}/bias": fit.bias}
        self._log({name: value for name, value in values.items() if value == value})

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.pretraining.look(self._explained, self.global_step)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.pretraining.active:
            for parameter in self.policy.parameters():
                parameter.grad = None  # not even Adam's averages notice

    def parameter_groups(self) -> list[tuple[dict[str, Any], Callable[[int], float]]]:
        [(policy, _)] = super().parameter_groups()
        critic = {"params": list(self.critic.parameters()), "lr": self.critic_learning_rate}
        return [(policy, lambda step: self.warmup(self.pretraining.steps_since(step))), (critic, self.warmup)]

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        clip: Any = clip_grad_value_ if gradient_clip_algorithm == "value" else clip_grad_norm_
        if gradient_clip_val:
            for group in optimizer.param_groups:  # apart, so that a critic's large errors don't slow the policy
                clip(group["params"], gradient_clip_val)
