"""PPO: REINFORCE with the value that a learned critic predicts as its baseline."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from lit_rl.algorithms.base import Algorithm
from lit_rl.algorithms.placements import Placement
from lit_rl.algorithms.pretraining import Pretraining
from lit_rl.errors import UsageError
from lit_rl.functional.critic import gae, value_loss, whiten
from lit_rl.functional.diagnostics import agreement, pair_sums
from lit_rl.functional.losses import row_denominator
from lit_rl.functional.placement import last as placed_last
from lit_rl.policy.critic import Critic, Trunk
from lit_rl.ranges import Count, NonNegative, Positive, Share, Whole
from lit_rl.rollouts import Rollouts


class PPO(Algorithm):
    """Subtracts a learned critic's value of the prefix, and clips the importance ratio (1707.06347).

    The advantages are generalized advantages (:func:`lit_rl.functional.critic.gae`). With the default ``lambda_actor``
    1 they are A_t = r - V(s_t), which is unbiased for any critic that does not depend on the responses. Below 1 the
    errors of the critic become a bias. The critic is fitted by :func:`lit_rl.functional.critic.value_loss` to the
    lambda-returns of ``lambda_critic``. Two separate lambdas follow VC-PPO (2503.01491).

    ``critic_pretraining`` first fits the critic while the policy does not change (2503.01491). It ends after that many
    iterations, or earlier, when the explained variance of new responses no longer rises. It is logged as
    ``pretraining/*``, and as ``critic/*`` afterwards.

    Args:
        critic: ``copy``: a value head on a copy of the model, which doubles the memory. ``shared``: a value head on the
            policy's own layers; the value loss then trains these as well (pretraining fits the head alone). null: none;
            all values are 0, and there is no value loss.
        placement: where the response's reward is paid (``Last``, ``AsEarned``, ``Causal``, ``Attention``, ``Uniform``,
            ``Shuffled``, ``Potential``); null pays it at the last token.
        lambda_actor: lambda of the advantages, 0 to 1; 1 is unbiased.
        lambda_by_length: alpha of VAPO's lambda (2504.05118), which takes the place of ``lambda_actor``: 1 - 1 / (alpha
            times the response's tokens), at least 0. It depends on how the response ends, so that it is biased even
            with an exact critic. null takes ``lambda_actor``.
        lambda_critic: lambda of the critic's targets, 0 to 1; 1 takes the returns themselves.
        weighting: ``to_go``: a token is weighed by what is earned from it on. ``full``: by all that the response earns.
            The two differ only for token rewards; ``full`` avoids the bias of rewards that depend on later tokens, and
            takes ``lambda_actor`` 1.
        whiten: shift and scale the advantages of an iteration to mean 0 and standard deviation 1. This is biased.
        value_clip: how far a value may move from the one at sampling time, in units of the reward; null does
            not limit it. Raise it if rewards are not within 0 to 1.
        value_coefficient: weight of the value loss.
        critic_learning_rate: learning rate of the critic's own parameters.
        critic_pretraining: the most iterations in which the critic alone is fitted; 0 for none. They count towards
            ``trainer.max_epochs``.
        pretraining_passes: passes over the responses of a pretraining iteration.
        patience: pretraining ends after so many iterations in a row in which the explained variance has not risen by
            0.01.
        clip_low: clips the importance ratio pi / pi_old below 1 - clip_low; null does not.
        clip_high: clips the importance ratio above 1 + clip_high; null does not.
    """

    def __init__(
        self,
        critic: Trunk | None = "copy",
        placement: Placement | None = None,
        lambda_actor: Share = 1.0,
        lambda_by_length: Positive | None = None,
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
            raise UsageError(f"model.lambda_actor is {lambda_actor}, but model.weighting full needs 1; set it to 1")
        if lambda_by_length is not None and (weighting == "full" or lambda_actor < 1):
            raise UsageError(
                "model.lambda_by_length takes the place of model.lambda_actor, and needs model.weighting to_go; leave "
                "the others out"
            )
        if critic is None and critic_pretraining:
            raise UsageError("model.critic_pretraining is above 0, but model.critic is null; set it to 0")
        super().__init__(clip_low=clip_low, clip_high=clip_high, **kwargs)
        self.critic = Critic(self.policy, critic) if critic is not None else None
        self.placement = placement
        if placement is not None:
            placement.check(self.policy)
        self.lambda_actor, self.lambda_critic = lambda_actor, lambda_critic
        self.lambda_by_length = lambda_by_length
        self.weighting = weighting
        self.whiten = self.normalises = whiten
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

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        return (*super().frozen, *(self.placement.frozen if self.placement is not None else ()))

    def token_rewards(self, rollouts: Rollouts, rows: int) -> Tensor | None:
        penalty, implied = super().token_rewards(rollouts, rows), self.implied_rewards(rollouts, rows)
        if self.placement is not None:
            assert rollouts.rewards is not None, "score the rollouts before preparing them"
            total = rollouts.rewards if implied is None else rollouts.rewards + implied.sum(1)
            moved = self.placement(total, rollouts, rows)
            implied = moved - placed_last(rollouts.rewards, rollouts.mask)  # where it goes, and where it is from
        return penalty if implied is None else implied if penalty is None else implied + penalty

    def implied_rewards(self, rollouts: Rollouts, rows: int) -> Tensor | None:
        """What tokens earn beside the response's reward and the penalty; here nothing. A placement moves its sum, too.

        Args:
            rollouts: with old and reference log-probabilities.
            rows: the most rows of one forward pass.
        """
        return None

    def advantages(self, rollouts: Rollouts) -> Tensor:
        values = torch.zeros_like(rollouts.mask, dtype=torch.float32) if rollouts.values is None else rollouts.values
        if self.weighting == "full":
            advantages = self.returns(rollouts)[:, None] - values
        else:
            advantages = gae(self._earned(rollouts), values, rollouts.mask, self._lambda(rollouts.mask, values))
        return whiten(advantages, rollouts.mask) if self.whiten else advantages

    def _lambda(self, mask: Tensor, values: Tensor) -> float | Tensor:
        if self.lambda_by_length is None:
            return self.lambda_actor
        return (1 - 1 / (self.lambda_by_length * mask.sum(1).clamp(min=1).to(values))).clamp(min=0)

    @torch.no_grad()
    def prepare(self, rollouts: Rollouts, rows: int) -> None:
        rollouts.values = self.prior_values(rollouts, rows)
        super().prepare(rollouts, rows)
        if rollouts.values is None:
            return
        if self.weighting == "full":
            rollouts.value_targets = self.returns(rollouts)[:, None] * rollouts.mask
        else:
            ahead = gae(self._earned(rollouts), rollouts.values, rollouts.mask, self.lambda_critic)
            rollouts.value_targets = (ahead + rollouts.values) * rollouts.mask

    def prior_values(self, rollouts: Rollouts, rows: int) -> Tensor | None:
        """V(s_t) before the update: [N, T]; None without a critic.

        Args:
            rollouts: N rows.
            rows: the most rows of one forward pass.
        """
        if self.critic is None:
            return None
        parts = torch.arange(len(rollouts), device=rollouts.mask.device).split(rows)
        return torch.cat([self._values(self.critic, rollouts.select(part)) for part in parts])

    def predictions(self, minibatch: Rollouts) -> tuple[Tensor, ...]:
        """Log-probabilities and, with a critic, values: [N, T] each."""
        if self.critic is None:
            return (self.policy(minibatch, self.plan.temperature),)
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

    def _values(self, critic: Critic, rollouts: Rollouts) -> Tensor:
        return critic(rollouts) if critic.trunk is not None else critic.read(self.policy.states(rollouts), rollouts)

    @staticmethod
    def _earned(rollouts: Rollouts) -> Tensor:
        """What each token earns, the response's reward where it is paid: [N, T]."""
        assert rollouts.rewards is not None, "score the rollouts before preparing them"
        rewards = placed_last(rollouts.rewards, rollouts.mask)
        return rewards if rollouts.token_rewards is None else rewards + rollouts.token_rewards

    # ---- Lightning's hooks --------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.whiten and self.trainer.world_size > 1:
            raise UsageError("model.whiten works with one process only; set it to false, or train on one device")
        iterations, most = int(self.pretraining.left), self.trainer.max_epochs
        if self.pretraining.active and most is not None and 0 <= most <= self.trainer.current_epoch + iterations:
            rank_zero_warn(
                f"critic pretraining may take all {most} iterations (trainer.max_epochs) and leave the policy untrained"
            )

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        rollouts: Rollouts = self._data.rollouts
        trained = rollouts.select(rollouts.trained)
        if trained.values is None or trained.value_targets is None:
            return
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
        [(policy, factor)] = super().parameter_groups()
        if self.critic is None:
            return [(policy, factor)]
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
