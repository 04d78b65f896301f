"""RTO: PPO with the token rewards that a policy trained by DPO implies."""

import copy

import torch
from torch import Tensor, nn

from lit_rl.algorithms.ppo import PPO
from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy
from lit_rl.policy.checkpoints import load_policy, read_checkpoint
from lit_rl.policy.shapes import without_weights
from lit_rl.ranges import NonNegative
from lit_rl.rollouts import Rollouts


class RTO(PPO):
    """PPO in which each token also earns what a DPO policy implies: clip(beta_dpo log(pi_dpo / pi_ref)) (2404.18922).

    A token's reward depends only on its prefix and itself. Therefore reward-to-go and the full return have the same
    expectation: the gradient of E[r + the sum of token rewards]. This is another objective than E[r]; it draws the
    policy towards the DPO policy. A ``placement`` moves the sum of the response's reward and of its token rewards.

    Args:
        dpo_checkpoint: a checkpoint written by ``fit --model OnlineDPO --model.sampling reference`` with the same
            ``model.policy``.
        beta_dpo: scale of the token rewards.
        token_limit: the most that one token may earn or lose, in units of the reward.
        kl_coefficient: weight of the penalty -log(pi / pi_ref) in the reward of each token.
    """

    def __init__(
        self,
        dpo_checkpoint: str,
        beta_dpo: NonNegative = 0.1,
        token_limit: NonNegative = 0.05,
        kl_coefficient: NonNegative = 0.01,
        **kwargs,
    ) -> None:
        super().__init__(kl_coefficient=kl_coefficient, **kwargs)
        if not self._reference:
            raise UsageError(
                "model.reference is false, but RTO's token rewards are relative to the reference; set it to true"
            )
        self.beta_dpo, self.token_limit = beta_dpo, token_limit
        self._dpo = (trained_policy(dpo_checkpoint, self.policy),)  # in a tuple, as the reference

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        return (*super().frozen, *self._dpo)

    def implied_rewards(self, rollouts: Rollouts, rows: int) -> Tensor | None:
        assert rollouts.reference_logprobs is not None
        [dpo] = self._dpo
        parts = torch.arange(len(rollouts), device=rollouts.mask.device).split(rows)
        logprobs = torch.cat([dpo(rollouts.select(part), self.plan.temperature) for part in parts])
        implied = self.beta_dpo * (logprobs - rollouts.reference_logprobs)
        return implied.clamp(-self.token_limit, self.token_limit)


def trained_policy(checkpoint: str, policy: CausalPolicy) -> CausalPolicy:
    """A frozen copy of ``policy`` with the weights of the policy in a checkpoint that ``fit`` has written.

    Raises:
        UsageError: there is no such checkpoint, it is of another model, or it was trained from other weights.
    """
    setting = "model.dpo_checkpoint"
    saved = read_checkpoint(checkpoint, setting, "train one: fit --model OnlineDPO --model.sampling reference")
    trained = copy.deepcopy(policy).requires_grad_(False)
    load_policy(
        trained,
        saved,
        f"{setting}: {checkpoint} holds no policy like model.policy; give one of fit with the same model.policy",
    )
    if not without_weights() and saved.get("reference", policy.fingerprint) != policy.fingerprint:
        raise UsageError(
            f"{setting}: {checkpoint} was trained from other weights than model.policy has; train it with the same "
            "model.policy and seed_everything"
        )
    return trained
