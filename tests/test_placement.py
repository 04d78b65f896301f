"""Placements of one reward: equal sums, one update with the full return, and what reward-to-go makes of them."""

from functools import partial

import pytest
import torch
from lightning import Callback
from training import train

from lit_rl.algorithms import PPO
from lit_rl.algorithms.placements import Attention, Causal, Last, Potential, Shuffled, Uniform
from lit_rl.errors import UsageError
from lit_rl.exact.certificate import Claim, certify, examine, random_policy
from lit_rl.exact.formulas import UNBIASED, by_position
from lit_rl.exact.learned import attentive_model
from lit_rl.exact.oracle import ExactCritic
from lit_rl.exact.tree import grow
from lit_rl.functional import placement
from lit_rl.policy import TabularPolicy
from lit_rl.rollouts import response_mask
from lit_rl.tasks import Additive, KeyToken

TASK = Additive(3, 3)
PLACEMENTS = {
    "last": Last(),
    "uniform": Uniform(),
    "causal": Causal(TASK),
    "potential": Potential(),
    "shuffled": Shuffled(Causal(TASK), seed=3),
}


@pytest.fixture
def table():
    torch.manual_seed(0)
    mask = response_mask(torch.tensor([6, 1, 4]), 6)
    mask[0, 2:4] = False  # somebody else's turn
    return torch.rand(3).double(), torch.rand(3, 6).double(), mask


def place(name, total, weights, mask):
    return {
        "last": lambda: placement.last(total, mask),
        "uniform": lambda: placement.uniform(total, mask),
        "causal": lambda: placement.causal(weights, total, mask),
        "weighted": lambda: placement.weighted(total, weights, mask, beta=0.3),
        "shuffled": lambda: placement.shuffled(placement.uniform(total, mask), total, mask, weights),
        "potential": lambda: placement.potential(total, weights, mask),
    }[name]()


NAMES = ["last", "uniform", "causal", "weighted", "shuffled", "potential"]


@pytest.mark.parametrize("name", NAMES)
def test_sums_are_kept_and_nothing_is_paid_outside_the_mask(table, name):
    total, weights, mask = table
    rewards = place(name, total, weights, mask)
    assert torch.allclose(rewards.sum(1), total, rtol=0, atol=1e-15) and (rewards[~mask] == 0).all()


def test_shuffling_moves_the_same_rewards(table):
    total, weights, mask = table
    rewards = placement.causal(weights, total, mask)
    moved = placement.shuffled(rewards, total, mask, torch.rand(mask.shape))
    for row, there in zip(range(3), mask, strict=True):
        assert torch.allclose(moved[row][there].sort().values, rewards[row][there].sort().values)
    assert not torch.allclose(moved, rewards)


def test_attention_shares_are_relative_and_nothing_attended_to_leaves_it_at_the_end(table):
    total, weights, mask = table
    rewards = placement.weighted(total, weights, mask)
    assert torch.allclose(rewards, placement.weighted(total, 7 * weights, mask))
    assert torch.allclose(rewards[0, 0] / rewards[0, 1], weights[0, 0] / weights[0, 1])
    assert torch.equal(placement.weighted(total, 0 * weights, mask), placement.last(total, mask))


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward_model")
    attentive_model(3).model.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["last", "uniform", "causal", "shuffled", "weighted"])
def test_sums_are_exact_in_any_order(name, dtype):
    torch.manual_seed(1)
    total, mask = torch.rand(500).to(dtype) * 3, response_mask(torch.arange(500) % 64 + 1, 64)
    weights = torch.rand(500, 64).to(dtype) / 64 * (total[:, None] if name == "causal" else 1)
    rewards = place(name, total, weights, mask)
    for order in (torch.arange(64), torch.arange(64).flip(0), torch.randperm(64)):
        assert torch.equal(sum(rewards[:, t] for t in order), total)
    assert torch.equal(rewards.sum(1), total)


@pytest.mark.parametrize("name", [*PLACEMENTS, "attention"])
def test_with_the_full_return_every_placement_is_the_scalar_update(name, reward_model):
    """The same on each response, not only on average, and to the last bit where sums are exact."""
    tree = grow(random_policy(TASK), TASK)
    placed = Attention(reward_model) if name == "attention" else PLACEMENTS[name]
    weighted = []
    for where in (None, placed):
        rollouts = tree.rollouts(torch.arange(len(tree.ids)))
        make = partial(PPO, placement=where, weighting="full")
        make(policy=tree.policy, max_new_tokens=3, reference=False).prepare(rollouts, 100)
        weighted.append(rollouts.advantages)
    assert torch.allclose(*weighted, rtol=0, atol=1e-15) and weighted[0].abs().max() > 0.1
    assert name == "potential" or torch.equal(*weighted)


class Ends(Callback):
    """Keeps the weights that training ends with."""

    def on_train_end(self, trainer, pl_module):
        self.weights = {key: value.clone() for key, value in pl_module.state_dict().items()}


@pytest.mark.parametrize("name", ["causal", "attention", "uniform", "shuffled"])
def test_a_placement_changes_no_weight_with_the_full_return_and_some_with_reward_to_go(name, reward_model):
    """Equal weights of policy and critic after an iteration: the built-in null."""
    placed = Attention(reward_model) if name == "attention" else PLACEMENTS[name]
    for weighting, same in (("full", True), ("to_go", False)):
        ends = [Ends() for _ in range(2)]
        for end, where in zip(ends, (Last(), placed), strict=True):
            train(PPO, TASK, 1, (end,), placement=where, weighting=weighting)
        first, second = (end.weights for end in ends)
        assert all(torch.equal(first[key], second[key]) for key in first) == same


@pytest.mark.parametrize(
    "name, expected",
    [
        ("last", UNBIASED),
        ("causal", UNBIASED),
        ("potential", UNBIASED),
        ("uniform", by_position("sum_t (1 - (t-1)/T) g_t", [1.0, 2 / 3, 1 / 3])),
    ],
)
@pytest.mark.parametrize("critic", ["copy", None])
def test_with_reward_to_go_what_knows_the_future_is_biased(name, expected, critic):
    assert certify(Claim(name, partial(PPO, critic=critic, placement=PLACEMENTS[name]), TASK, expected)).holds


def test_token_rewards_paid_at_once_are_less_noisy_unless_the_critic_is_exact():
    def noise(make, where):
        return examine(Claim(where, partial(make, placement=PLACEMENTS[where]), TASK))[1].trace_cov

    knows = partial(ExactCritic, TASK)
    assert noise(PPO, "causal") < 0.9 * noise(PPO, "last")
    assert noise(knows, "causal") == pytest.approx(noise(knows, "last"), rel=1e-12)
    assert noise(knows, "last") < noise(PPO, "causal")


@pytest.mark.parametrize("weighting", ["to_go", "full"])
@pytest.mark.parametrize("name", PLACEMENTS)
def test_an_exact_critic_s_advantages_have_mean_0_in_every_state(name, weighting):
    tree = grow(random_policy(TASK), TASK)
    rollouts = tree.rollouts(torch.arange(len(tree.ids)))
    algorithm = ExactCritic(
        TASK, placement=PLACEMENTS[name], weighting=weighting, policy=tree.policy, max_new_tokens=3, reference=False
    )
    algorithm.prepare(rollouts, 100)
    assert tree.state_means(rollouts.advantages).abs().max() < 1e-14 and rollouts.advantages.abs().max() > 0.1


def test_orders_are_the_response_s_and_the_seed_s():
    tree = grow(random_policy(TASK), TASK)
    rollouts, total = tree.rollouts(torch.arange(len(tree.ids))), tree.rewards
    before = torch.get_rng_state()
    orders = {seed: Shuffled(Causal(TASK), seed)(total, rollouts, 9) for seed in (0, 1)}
    assert torch.equal(torch.get_rng_state(), before)
    some = rollouts.select(torch.tensor([20, 3]))
    assert torch.equal(Shuffled(Causal(TASK), 0)(total[[20, 3]], some, 9), orders[0][[20, 3]])
    assert not torch.equal(orders[0], orders[1])


def test_mistakes_name_the_setting(policy):
    with pytest.raises(UsageError, match="model.placement.reward_model: no folder './nowhere'"):
        Attention("./nowhere")
    with pytest.raises(UsageError, match="model.critic_pretraining is above 0, but model.critic is null"):
        PPO(critic=None, critic_pretraining=1, policy=policy)
    with pytest.raises(UsageError, match="model.kl_coefficient: the exact critic knows no penalty"):
        ExactCritic(KeyToken(), kl_coefficient=0.1, policy=TabularPolicy(4, 8))
