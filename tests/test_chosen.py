"""Estimators where an environment speaks: they step from a token that the policy chose to the next one."""

import inspect
import math
from functools import partial

import pytest
import torch
from turns import T, V, rows, spoken_between, two_turns

from lit_rl import algorithms
from lit_rl.algorithms import (
    ABC,
    CISPO,
    GRPO,
    GSPO,
    P3O,
    PPO,
    REINFORCE,
    RLOO,
    RLZVP,
    RTO,
    OnlineDPO,
    OptimalBaseline,
    REINFORCEPlusPlus,
    ReMax,
    Supervised,
    TRePO,
    placements,
)
from lit_rl.callbacks.value_accuracy import estimates
from lit_rl.exact.learned import by_attention, from_uniform
from lit_rl.functional.chosen import before, packed, turn_ends, unpacked
from lit_rl.functional.critic import gae, whiten
from lit_rl.functional.cuts import Bernoulli, Boundary, Entropy, Relative, Stride, Turns
from lit_rl.functional.diagnostics import distinct_responses, thirds
from lit_rl.functional.losses import kl_loss, policy_gradient_loss, row_denominator
from lit_rl.functional.placement import last, potential, uniform
from lit_rl.functional.prefix_values import prefix_advantages
from lit_rl.policy import TabularPolicy
from lit_rl.sampling import LocalSampler, SamplingPlan

# ---- right values, in plain numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "rewards", "expected"),
    [
        ("x.x", [0, 0, 1], [0.5, 0, 1]),
        ("xx.", [0, 0, 1], [0.5, 1, 0]),  # paid behind a last environment turn
        ("x..x", [0, 0, 0, 1], [0.5, 0, 0, 1]),  # two environment turns: an empty one of the policy between them
        (".x.x.", [0, 0, 0, 0, 1], [0, 0.5, 0, 1, 0]),
        ("x.x", [1, 0, 1], [1.5, 0, 1]),
        ("...", [0, 0, 1], [0, 0, 0]),
    ],
)
def test_reward_to_go_steps_from_chosen_to_chosen_token(mask, rewards, expected):
    rewards = torch.tensor([rewards], dtype=torch.float64)
    found = gae(rewards, torch.zeros_like(rewards), rows(mask), 0.5)
    assert found.tolist() == [expected]


def test_values_of_masked_states_are_not_looked_at():
    values = torch.tensor([[0.5, 99.0, 0.25]])
    found = gae(torch.tensor([[0.0, 0.0, 1.0]]), values, rows("x.x"), 0.5)
    assert found.tolist() == [[0.25 - 0.5 + 0.5 * 0.75, 0, 0.75]]


def test_a_response_is_paid_at_its_last_chosen_token():
    one = torch.ones(1)
    assert last(one, rows("x.x.")).tolist() == [[0, 0, 1, 0]]
    assert last(one, rows("xx..")).tolist() == [[0, 1, 0, 0]]
    assert last(one, rows("....")).tolist() == [[0, 0, 0, 0]]
    assert uniform(one, rows("x..x")).tolist() == [[0.5, 0, 0, 0.5]]
    phi = torch.tensor([[7.0, 7.25, 99.0, 7.5, 99.0]])
    assert potential(one, phi, rows("xx.x.")).tolist() == [[0.25, 0.25, 0, 0.5, 0]]
    assert potential(one, phi, rows(".x.x.")).tolist() == [[0, 0.25, 0, 0.75, 0]]


def test_values_at_cuts_become_advantages_of_chosen_tokens():
    """Values 1 at the prompt and 2 at the second turn, of three chosen tokens, and a return of 8."""
    give = partial(prefix_advantages, torch.tensor([8.0]), torch.tensor([[0, 3, -1]]), torch.tensor([[1.0, 2.0, 99.0]]))
    mask = rows("x..xx.")
    assert give(mask).tolist() == [[1, 0, 0, 6, 6, 0]]
    assert give(mask, "hold_mc").tolist() == [[7, 0, 0, 6, 6, 0]]
    assert give(mask, "linear_value_td").tolist() == [[1, 0, 0, 3, 3, 0]]
    assert give(mask, "linear_value_mc").tolist() == [[7, 0, 0, 6, 3, 0]]
    assert give(mask, "linear_advantage").tolist() == [[1, 0, 0, 1, 1, 0]]  # the first token alone is exact
    assert give(mask, "masked_advantage", selection_probability=0.5).tolist() == [[2, 0, 0, 0, 0, 0]]


def test_losses_count_and_penalize_chosen_tokens_alone():
    mask, x = rows("x.x.", "...."), torch.full((2, 4), 3.0)
    lengths = row_denominator(mask, "sequence_mean", None, 4)
    assert lengths.tolist() == [2, 1] and row_denominator(mask, "token_mean", None, 4).tolist() == [1, 1]
    assert float(kl_loss(x, x - 1, mask, lengths, "k2")) == 0.25  # half a nat squared, over two rows
    assert float(policy_gradient_loss(x, x, x, mask, lengths, 0.2, 0.2)) == -1.5
    white = whiten(torch.tensor([[1.0, 50.0, 3.0, 50.0]]), rows("x.x."))
    assert white[0].tolist() == pytest.approx([-(0.5**0.5), 0, 0.5**0.5, 0])
    assert whiten(x, rows("....", "....")).tolist() == [[0] * 4] * 2
    assert thirds(rows("x..x.x.")).tolist() == [[0, -1, -1, 1, -1, 2, -1]]


def test_responses_that_differ_in_what_they_were_told_are_no_different_choices():
    ids, group = torch.tensor([[1, 9, 2, 0], [1, 8, 8, 2], [1, 9, 3, 0]]), torch.zeros(3, dtype=torch.long)
    assert distinct_responses(ids, rows("x.x.", "x..x", "x.x."), group) == 2


# ---- cuts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Turns(), [0, 0, 0, 1, 0, 0, 1, 0]),
        (Stride(2), [1, 0, 0, 1, 0, 0, 0, 0]),
        (Stride(1), [1, 1, 0, 1, 0, 0, 1, 0]),
        (Bernoulli(0.25), [0.25, 0.25, 0, 0.25, 0, 0, 0.25, 0]),
        (Entropy(0.5), [0, 1, 0, 0, 0, 0, 1, 0]),
        (Boundary((4,)), [0, 0, 0, 1, 0, 0, 1, 0]),
        (Relative(2), [0, 0, 0, 1, 0, 0, 0, 0]),
    ],
)
def test_cuts_lie_at_chosen_tokens_and_count_these(rule, expected):
    ids = torch.tensor([[1, 4, 4, 4, 4, 1, 2, 4]])
    entropy = torch.tensor([[0.1, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9]])
    assert rule.chances_in_turns(ids, rows("xx.x..x."), entropy).tolist() == [expected]


def test_a_turn_begins_behind_what_was_said_and_not_before_the_first_token():
    blank = torch.zeros(3, 5)
    found = Turns().chances_in_turns(blank.long(), rows("x...x", "..xx.", "....."), blank)
    assert found.nonzero().tolist() == [[0, 4]]
    assert not Turns().chances(blank.long(), torch.tensor([5, 3, 0]), blank).any()


@pytest.mark.parametrize("rule", [Stride(2), Bernoulli(0.3), Entropy(0.7), Boundary((1, 2)), Relative(3)], ids=repr)
def test_where_nobody_speaks_in_between_a_rule_says_what_it_says(rule):
    torch.manual_seed(0)
    ids, lengths, entropy = torch.randint(4, (20, 9)), torch.randint(1, 10, (20,)), torch.rand(20, 9)
    written = torch.arange(9) < lengths[:, None]
    found = rule.chances_in_turns(ids, written, entropy)
    assert torch.equal(found, rule.chances(ids, lengths, entropy) * written)


def test_packing_keeps_the_order_and_comes_back():
    torch.manual_seed(0)
    mask, x = torch.rand(40, 9) < 0.5, torch.randn(40, 9)
    mask[0] = False
    for row, own, alone in zip(x, mask, packed(x, mask), strict=True):
        assert alone[: int(own.sum())].tolist() == row[own].tolist()
    assert torch.equal(unpacked(packed(x, mask), mask), x * mask)
    assert before(rows(".x.x")).tolist() == [[0, 0, 1, 1]]
    assert turn_ends(rows("xx.x..x", ".......", "xxxxxxx")).nonzero().tolist() == [[0, 1], [0, 3], [0, 6], [2, 6]]


# ---- all algorithms: what is said in between changes nothing -------------------------------------------------------

P = 8
CASES = {
    "REINFORCE": REINFORCE,
    "REINFORCE, KL in the reward": partial(REINFORCE, kl_coefficient=0.1),
    "RLOO": partial(RLOO, samples=3),
    "ReMax": partial(ReMax, samples=2),
    "P3O": P3O,
    "P3O, joint": partial(P3O, clipping="joint"),
    **{f"OptimalBaseline, {per}": partial(OptimalBaseline, per=per) for per in ("response", "token", "prefix")},
    "GRPO": partial(GRPO, kl_coefficient=0.1, kl="k3_loss"),
    "GRPO, DAPO's loss": partial(GRPO, normalizer="token_mean"),
    "GRPO, Dr.GRPO": partial(GRPO, normalizer="constant", scale_by_std=False),
    "GSPO": GSPO,
    "CISPO": CISPO,
    "RLZVP": RLZVP,
    "REINFORCEPlusPlus": partial(REINFORCEPlusPlus, kl_coefficient=0.1),
    "REINFORCEPlusPlus, group baseline": partial(REINFORCEPlusPlus, samples=3, group_baseline=True),
    "PPO": PPO,
    "PPO, lambda by length": partial(PPO, lambda_by_length=0.5),
    "PPO, two lambdas": partial(PPO, lambda_actor=0.5, lambda_critic=0.7, kl_coefficient=0.1),
    "PPO, full return": partial(PPO, weighting="full", placement=placements.Uniform()),
    "PPO, whitened": partial(PPO, whiten=True, critic=None),
    "PPO, uniform": partial(PPO, placement=placements.Uniform()),
    "PPO, shuffled": partial(PPO, placement=placements.Shuffled(placements.Uniform())),
    "PPO, potential": partial(PPO, placement=placements.Potential(), lambda_actor=0.5),
    **{
        f"TRePO, {fill}": partial(TRePO, fill=fill, cuts=cuts)
        for fill, cuts in {
            "segment_td": Stride(2),
            "hold_mc": Bernoulli(0.5),
            "all_positions": Stride(1),
            "linear_value_mc": Bernoulli(0.5),
            "linear_value_td": Stride(2),
            "linear_advantage": Bernoulli(0.5),
            "masked_advantage": Bernoulli(0.5),
        }.items()
    },
    "TRePO, root": partial(TRePO, samples=1, root="continuations", cuts=Stride(2)),
    "TRePO, reuse": partial(TRePO, reuse=True, root="continuations", cuts=Stride(2), kl_coefficient=0.1),
    "OnlineDPO": partial(OnlineDPO, samples=3),
    "RTO": from_uniform(RTO),
    "ABC": by_attention(partial(ABC, beta=0.5)),
    "Supervised": partial(Supervised, normalizer="sequence_mean"),
}


class Known:
    """A number for each token that the policy chose, fixed beforehand, wherever the token stands."""

    def __init__(self, n, seed, positive=False):
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(n, T, generator=generator, dtype=torch.float64)
        self.table = (table.abs() if positive else table - 1).requires_grad_()

    def __call__(self, rollouts, *_, **__):
        own = before(rollouts.written).clamp(max=T - 1)
        return torch.where(rollouts.mask, self.table[rollouts.row].gather(1, own), 0.0)


def learned_from(algorithm, rollouts):
    """Advantages of chosen tokens, terms of the loss, and their gradients to all that was known of the tokens."""
    models = [algorithm.policy, *(each for each in algorithm.frozen if hasattr(each, "logprobs_and_entropy"))]
    known = [Known(len(rollouts), seed) for seed in range(len(models) + 1)]
    for model, numbers in zip(models, known, strict=False):
        entropy = Known(len(rollouts), 77, positive=True)
        model.forward = numbers
        model.logprobs_and_entropy = lambda rows, *_, numbers=numbers, entropy=entropy: (numbers(rows), entropy(rows))
    if getattr(algorithm, "critic", None) is not None:
        algorithm.critic.forward = known[-1]
    if isinstance(algorithm, OptimalBaseline):
        algorithm.policy.score_norms = Known(len(rollouts), 79, positive=True)
    if isinstance(algorithm, ABC):
        algorithm.placement.model.attention = Known(len(rollouts), 78, positive=True)
    algorithm.prepare(rollouts, 7)
    trained = rollouts.select(rollouts.trained)
    terms = algorithm.loss(trained, *algorithm.predictions(trained))
    used = [known[0].table, known[-1].table]
    gradients = torch.autograd.grad(sum(terms.values()), used, allow_unused=True, materialize_grads=True)
    return rollouts.advantages[rollouts.mask], [term.item() for term in terms.values()], *gradients


@pytest.mark.parametrize("name", CASES)
def test_what_an_environment_says_in_between_changes_no_advantage_and_no_loss(name):
    torch.manual_seed(0)
    policy = TabularPolicy(V, T, eos=True, spread=1.0).double()
    policy.model.table.data[:, -1] -= 1.5  # responses of several tokens

    def fresh():
        built = CASES[name](policy=TabularPolicy(V, T, eos=True).double(), max_new_tokens=T, reference=True)
        built.policy.load_state_dict(policy.state_dict())
        return built

    plan = fresh().plan
    plan = SamplingPlan(max_new_tokens=T) if plan.demonstrations else plan
    apart = LocalSampler().sample(policy, [[0]] * P, plan, [(i,) for i in range(P)])
    assert apart.lengths.max() == T and len(apart.lengths.unique()) > 2
    apart.examples = [{}] * P
    apart.rewards = torch.rand(len(apart), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    apart.rewards[apart.group < 2] = apart.group[apart.group < 2].double()  # all wrong, and all right
    between = spoken_between(apart, V)
    advantages, terms, *gradients = learned_from(fresh(), apart)
    found = learned_from(fresh(), between)
    close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
    close(found[0], advantages)
    assert found[1] == pytest.approx(terms, rel=1e-12) and all(map(math.isfinite, terms))
    for mine, theirs in zip(found[2:], gradients, strict=True):
        close(mine, theirs)
    assert advantages.any() and gradients[0].any()
    assert not between.advantages[~between.mask].any()


def test_no_algorithm_is_left_out():
    there = {name for name, each in vars(algorithms).items() if inspect.isclass(each)} - {"Algorithm"}
    assert there == {name.partition(",")[0] for name in CASES}


def test_values_that_are_judged_are_those_of_chosen_tokens():
    rollouts = two_turns(values=torch.zeros(2, 5))
    assert torch.equal(estimates(rollouts).isfinite(), rows("x.x..", "xx..x"))
