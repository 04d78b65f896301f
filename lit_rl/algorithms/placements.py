"""Where the reward of a response is paid: what PPO and its descendants take as ``model.placement``."""

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_rl.errors import UsageError
from lit_rl.functional import placement
from lit_rl.policy.causal import CausalPolicy
from lit_rl.policy.reward_model import RewardModel
from lit_rl.ranges import Number, Ranged, Seed, Share
from lit_rl.rollouts import Rollouts
from lit_rl.tasks.position_credit import PositionTask


class Placement(Ranged, ABC, setting="model.placement"):
    """Turns a response's reward into token rewards with the same sum.

    With ``weighting`` ``full`` all placements of one reward give the same update. With ``to_go`` one whose token
    rewards are functions of s_t and a_t alone leaves the gradient as it is; another one is biased.
    """

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Models that it uses."""
        return ()

    def check(self, policy: CausalPolicy) -> None:
        """Checks that it can place the rewards of the policy's responses.

        Raises:
            UsageError: it cannot.
        """

    @abstractmethod
    def __call__(self, total: Tensor, rollouts: Rollouts, rows: int) -> Tensor:
        """Token rewards: [N, T], 0 outside the mask.

        Args:
            total: [N] what each response earns.
            rollouts: N rows.
            rows: the most rows of one forward pass.
        """


@dataclass(frozen=True)
class Last(Placement):
    """Pays everything at the last token."""

    def __call__(self, total: Tensor, rollouts: Rollouts, rows: int) -> Tensor:
        return placement.last(total, rollouts.mask)


@dataclass(frozen=True)
class Uniform(Placement):
    """Pays each token the same. Biased with ``to_go``."""

    def __call__(self, total: Tensor, rollouts: Rollouts, rows: int) -> Tensor:
        return placement.uniform(total, rollouts.mask)


@dataclass(frozen=True)
class Causal(Placement):
    """Pays each token what it earns, as soon as that is known, and the rest at the last token: an oracle.

    Args:
        task: the task that is trained on, ``data.task``, one of those whose exact credit is known.
    """

    task: PositionTask

    def __call__(self, total: Tensor, rollouts: Rollouts, rows: int) -> Tensor:
        earned = self.task.earned(rollouts.response_ids, rollouts.lengths)
        return placement.causal(earned.to(total), total, rollouts.mask)


@dataclass(frozen=True)
class AsEarned(Placement):
    """Pays what an environment pays for a turn at the turn's last token, and the rest at the response's last one.

    What a turn earns is known before the next one begins, so that ``to_go`` leaves the gradient as it is.
    """

    def __call__(self, total: Tensor, rollouts: Rollouts, rows: int) -> Tensor:
        paid = paid_for_turns(rollouts, "model.placement AsEarned")
        return placement.causal(paid.to(total), total, rollouts.mask)


def paid_for_turns(rollouts: Rollouts, setting: str) -> Tensor:
    """What an environment has paid for each turn, at the turn's last token: [N, T].

    Args:
        setting: that asks for it, for messages.

    Raises:
        UsageError: there is no environment that pays for turns.
    """
    if rollouts.turn_rewards is None:
        raise UsageError(
            f"{setting}: nothing is paid for turns (data.task has no environment, or reward.shuffle is true); take a "
            "task that has one"
        )
    return rollouts.turn_rewards


@dataclass(frozen=True)
class Potential(Placement):
    """Pays each token ``of_token``, and the rest at the last one: another baseline, and nothing else.

    It is shaping by a potential, Phi(s_t) = ``of_token`` times the tokens of s_t.

    Args:
        of_token: in units of the reward.
    """

    of_token: Number = 0.1

    def __call__(self, total: Tensor, rollouts: Rollouts, rows: int) -> Tensor:
        return placement.potential(total, self.of_token * (rollouts.mask.cumsum(1) - 1).to(total), rollouts.mask)


class Attention(Placement):
    """Pays each token its share of a reward model's attention: the redistribution of ABC (2402.00782). Biased with
    ``to_go``, for the attention is known only at the end.

    Args:
        reward_model: a folder written by ``python -m lit_rl fit-reward``, or a name on the hub.
        beta: share of the reward that is spread, 0 to 1; the rest is paid at the last token.
    """

    setting = "model.placement.reward_model"  # of the reward model, in messages

    def __init__(self, reward_model: str, beta: Share = 1.0) -> None:
        self.beta = beta
        self.model = RewardModel.load(reward_model, self.setting).requires_grad_(False)

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        return (self.model,)

    def check(self, policy: CausalPolicy) -> None:
        self.model.check(policy)

    def __call__(self, total: Tensor, rollouts: Rollouts, rows: int) -> Tensor:
        parts = torch.arange(len(rollouts), device=rollouts.mask.device).split(rows)
        attention = torch.cat([self.model.attention(rollouts.select(part)) for part in parts])
        return placement.weighted(total, attention.to(total), rollouts.mask, self.beta)


@dataclass(frozen=True)
class Shuffled(Placement):
    """Pays what another placement pays, in a random order within each response. Biased with ``to_go``.

    The order depends on the response's tokens and the seed alone. No random number of training is drawn.

    Args:
        of: the other placement.
        seed: of the orders.
    """

    of: Placement
    seed: Seed = 0

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        return self.of.frozen

    def check(self, policy: CausalPolicy) -> None:
        self.of.check(policy)

    def __call__(self, total: Tensor, rollouts: Rollouts, rows: int) -> Tensor:
        ids, generator = rollouts.response_ids.cpu(), torch.Generator()
        keys = torch.empty(ids.shape)  # of the policy's tokens, whatever an environment says in between
        for row, own in enumerate(rollouts.written.cpu()):
            response = ids[row, own]
            drawn = generator.manual_seed(zlib.crc32(response.numpy().tobytes(), self.seed))
            keys[row, own] = torch.rand(len(response), generator=drawn)
        return placement.shuffled(self.of(total, rollouts, rows), total, rollouts.mask, keys.to(total.device))
