"""Rewards that an environment pays for turns: for the algorithms that ask for them, and for the score of a response."""

import statistics

import pytest
import torch
from turns import T, V, rows, two_turns

from lit_rl.algorithms import GRPO, PPO, TRePO, placements
from lit_rl.errors import UsageError
from lit_rl.functional.cuts import Turns
from lit_rl.policy import TabularPolicy
from lit_rl.tasks import Additive
from lit_rl.tasks.scoring import scores_of


def test_ppo_is_paid_at_turns_where_asked_for():
    settings = {"policy": TabularPolicy(V, T), "critic": None, "reference": False}
    whole, turns = PPO(**settings), PPO(**settings, placement=placements.AsEarned(), lambda_actor=0.5)
    rollouts = two_turns()
    whole.prepare(rollouts, 8)
    assert rollouts.advantages.tolist() == [[4, 0, 4, 0, 0], [4, 4, 0, 0, 4]]
    turns.prepare(rollouts, 8)
    assert rollouts.advantages.tolist() == [[2.5, 0, 3, 0, 0], [1, 2, 0, 0, 4]]
    assert turns.returns(rollouts).tolist() == [4, 4]
    changed = two_turns(rewards=torch.tensor([5.0, 4.0]))  # by a reward of the whole response
    turns.prepare(changed, 8)
    assert changed.advantages[0].tolist() == [3, 0, 4, 0, 0]


@pytest.mark.parametrize("scale_by_std", [False, True])
def test_grpo_compares_turns_where_asked_for(scale_by_std):
    settings = {"policy": TabularPolicy(V, T), "samples": 2, "reference": False, "scale_by_std": scale_by_std}
    rollouts = two_turns()
    GRPO(**settings).prepare(rollouts, 8)
    assert not rollouts.advantages.any()
    GRPO(**settings, rewards="turns").prepare(rollouts, 8)
    sd = statistics.stdev([1, 3, 0, 4]) if scale_by_std else 1.0
    expected = torch.tensor([[0.0, 0, 1, 0, 0], [0, 0, 0, 0, 2]]) / sd  # -1 + 1 and 1; -2 + 2 and 2
    torch.testing.assert_close(rollouts.advantages, expected)


@pytest.mark.parametrize("scale_by_std", [False, True])
def test_turns_that_all_pay_the_same_teach_nothing(scale_by_std):
    """However many of them a response has, and though -0.1 and three times that have no last binary digit."""
    paid = torch.tensor([[0, 0, 0, 0, -0.1], [-0.1, 0, -0.1, 0, -0.1]])
    rollouts = two_turns(turn_rewards=paid, mask=rows("xxxxx", "x.x.x"), lengths=torch.tensor([5, 5]))
    rollouts.rewards = scores_of(Additive(V, T), rollouts, [])
    settings = {"policy": TabularPolicy(V, T), "samples": 2, "reference": False, "scale_by_std": scale_by_std}
    GRPO(**settings, rewards="turns").prepare(rollouts, 8)
    assert rollouts.rewards[0] != rollouts.rewards[1] and (rollouts.advantages == 0).all()


def test_the_score_of_turns_does_not_depend_on_the_width_of_the_table():
    paid = torch.rand(200, 9, generator=torch.Generator().manual_seed(0))
    wide = torch.zeros(200, 900)
    wide[:, ::100] = paid
    narrow, padded = (scores_of(Additive(V, T), two_turns(turn_rewards=each), []) for each in (paid, wide))
    assert narrow.dtype == torch.float32 and torch.equal(narrow, padded)


def test_rewards_of_turns_need_an_environment_that_pays_them():
    settings = {"policy": TabularPolicy(V, T), "reference": False}
    for algorithm, named in (
        (PPO(**settings, critic=None, placement=placements.AsEarned()), "model.placement AsEarned"),
        (GRPO(**settings, samples=2, rewards="turns"), "model.rewards turns"),
    ):
        with pytest.raises(UsageError, match=f"^{named}: nothing is paid for turns .*; take"):
            algorithm.prepare(two_turns(turn_rewards=None), 8)
    trepo = TRePO(policy=TabularPolicy(V, T), cuts=Turns(), reference=False)
    with pytest.raises(UsageError, match=r"^model.cuts Turns: data.task has no environment.*; take"):
        trepo.prepare(two_turns(spoken=None, cuts=rows(".....", ".....")), 8)
    with pytest.raises(UsageError, match=r"model.kl k1_reward.*set model.kl k3_loss"):
        GRPO(policy=TabularPolicy(V, T), rewards="turns", kl_coefficient=0.1)
