"""RTO and ABC: where their token rewards come from, and what they add up to."""

import copy

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_rl.algorithms import ABC, PPO, RTO, OnlineDPO
from lit_rl.algorithms.placements import Last
from lit_rl.callbacks import Diagnostics
from lit_rl.errors import UsageError
from lit_rl.policy import CausalPolicy
from lit_rl.policy.reward_fitting import from_policy


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward_model")
    torch.manual_seed(0)
    from_policy(CausalPolicy()).model.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def dpo_checkpoint(fit, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_last=True, save_on_train_epoch_end=True)
    fit(
        OnlineDPO,
        callbacks=(checkpoint,),
        trainer={"enable_checkpointing": True},
        sampling="reference",
        learning_rate=3e-3,
    )
    return str(tmp_path / "last.ckpt")


def test_rto_pays_what_a_dpo_policy_implies(fit, dpo_checkpoint):
    _, algorithm, data = fit(RTO, dpo_checkpoint=dpo_checkpoint, kl_coefficient=0.0, beta_dpo=1.0, token_limit=0.02)
    rollouts, [dpo], [reference] = data.rollouts, algorithm._dpo, algorithm._reference
    with torch.no_grad():
        implied = dpo(rollouts, 1.0) - reference(rollouts, 1.0)
    paid = rollouts.token_rewards
    free = implied.abs() < 0.02
    assert torch.allclose(paid[free], implied[free], atol=1e-5) and (paid[~rollouts.mask] == 0).all()
    assert (~free).any() and torch.allclose(paid[~free], 0.02 * implied[~free].sign())
    assert torch.allclose(algorithm.returns(rollouts), rollouts.rewards + paid.sum(1))


def test_a_placement_moves_the_sum_of_what_rto_s_tokens_earn(fit, dpo_checkpoint):
    settings = {"dpo_checkpoint": dpo_checkpoint, "kl_coefficient": 0.0, "beta_dpo": 1.0}
    _, published, data = fit(RTO, **settings)
    _, algorithm, placed = fit(RTO, placement=Last(), **settings)
    for each in (published, algorithm):
        assert torch.allclose(each.returns(placed.rollouts), published.returns(data.rollouts), atol=1e-5)
    paid, last = placed.rollouts.token_rewards, placed.rollouts.lengths - 1
    there = torch.arange(paid.shape[1]) == last[:, None]
    assert (paid[~there] == 0).all() and torch.allclose(paid[there], data.rollouts.token_rewards.sum(1), atol=1e-5)


def test_without_a_critic_values_are_0_and_nothing_more_is_trained(fit):
    _, algorithm, data = fit(PPO, critic=None)
    assert algorithm.critic is None and data.rollouts.values is None
    assert {id(p) for g in algorithm.optimizers().param_groups for p in g["params"]} == {
        id(p) for p in algorithm.policy.parameters() if p.requires_grad
    }
    assert torch.equal(data.rollouts.advantages, data.rollouts.rewards[:, None] * data.rollouts.mask)


def test_the_dpo_policy_is_no_parameter_and_in_no_checkpoint(fit, dpo_checkpoint):
    _, algorithm, _ = fit(RTO, dpo_checkpoint=dpo_checkpoint)
    _, plain, _ = fit(PPO)
    assert algorithm.state_dict().keys() == plain.state_dict().keys()
    assert len(algorithm.frozen) == 2 and not any(p.requires_grad for m in algorithm.frozen for p in m.parameters())


def test_a_dpo_policy_from_another_start_is_refused(dpo_checkpoint, policy):
    moved = copy.deepcopy(policy)
    next(moved.parameters()).data += 1e-3
    with pytest.raises(UsageError, match="was trained from other weights than model.policy has"):
        RTO(dpo_checkpoint, policy=moved)


def test_probes_are_no_baseline_of_tokens_that_earn(fit, dpo_checkpoint):
    names = {}
    for make, settings in ((RTO, {"dpo_checkpoint": dpo_checkpoint}), (PPO, {}), (PPO, {"critic_pretraining": 1})):
        trainer, _, _ = fit(make, callbacks=(Diagnostics(probe_every_n_iterations=1, probe_prompts=4),), **settings)
        names[make, *settings] = set(trainer.callback_metrics)
    rto, ppo, waiting = names.values()
    assert "diagnostic/trace_ratio" in ppo and "diagnostic/trace_ratio" not in rto
    assert "diagnostic/value_bias" in ppo & rto and "diagnostic/value_bias" not in waiting


def test_abc_moves_a_share_of_the_reward_to_where_the_reward_model_looks(fit, reward_model):
    _, algorithm, data = fit(ABC, reward_model=reward_model, beta=0.25)
    rollouts, model = data.rollouts, algorithm.placement.model
    paid, last = rollouts.token_rewards, rollouts.lengths - 1
    assert torch.allclose(paid.sum(1), torch.zeros(4), atol=1e-5)
    with torch.no_grad():
        expected = 0.25 * rollouts.rewards[:, None] * model.attention(rollouts)
    early = torch.arange(paid.shape[1]) < last[:, None]
    assert torch.allclose(paid[early], expected[early], atol=1e-5)
    assert torch.allclose(algorithm.returns(rollouts), rollouts.rewards, atol=1e-5)


def test_with_the_full_return_abc_is_ppo(fit, reward_model):
    _, _, data = fit(ABC, reward_model=reward_model, weighting="full")
    _, _, plain = fit(PPO)
    assert torch.allclose(data.rollouts.advantages, plain.rollouts.advantages, atol=1e-5)


@pytest.mark.parametrize(
    "make, settings, message",
    [
        (RTO, {"dpo_checkpoint": "nowhere.ckpt"}, "model.dpo_checkpoint: no file nowhere.ckpt"),
        (RTO, {"dpo_checkpoint": __file__}, "is no checkpoint, or a broken one"),
        (RTO, {"dpo_checkpoint": "x", "token_limit": -1.0}, "model.token_limit is -1.0"),
        (RTO, {"dpo_checkpoint": "x", "reference": False, "kl_coefficient": 0.0}, "model.reference is false"),
        (ABC, {"reward_model": "./nowhere"}, "model.reward_model: no folder './nowhere'"),
        (ABC, {"reward_model": "x", "beta": 1.5}, "model.beta is 1.5"),
    ],
)
def test_mistakes_name_the_setting(policy, make, settings, message):
    with pytest.raises(UsageError, match=message):
        make(policy=policy, **settings)
