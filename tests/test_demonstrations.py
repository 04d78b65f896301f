"""Demonstrations of several turns, as rollouts: against the chat template, and in training."""

import pytest
import torch
from conversations import EXAMPLES, STREAMS, Counting
from test_chat import made
from test_conversing_runs import train

from lit_rl.algorithms import RLOO, Supervised
from lit_rl.callbacks import RewardCallback
from lit_rl.data.resampling import check_plan
from lit_rl.errors import UsageError
from lit_rl.policy import CausalPolicy
from lit_rl.sampling import SamplingPlan, demonstrate
from lit_rl.tasks import Calculator
from lit_rl.tasks.stepping import Environments, Stepper

TOLD = [["Five.", "", "It is 12."], "Ann has 15 pens.", ["1", "22", "3", "4", "5"]]


@pytest.fixture(scope="module")
def policy():
    return CausalPolicy()


def shown(policy, most=200, turns=16):
    """The examples, each with its demonstration, and these as rollouts."""
    examples = [{**example, "demonstration": told} for example, told in zip(EXAMPLES, TOLD, strict=True)]
    stepper = Stepper(lambda example: Counting(), 2, 60.0, turns)
    openings = stepper.open(examples, STREAMS)
    prompts = [policy.encode_prompt(opening.messages) for opening in openings]
    plan = SamplingPlan(demonstrations=True, max_new_tokens=most)
    return examples, demonstrate(policy, prompts, examples, plan, Environments(stepper, openings))


def by_hand(example, turns=16):
    """All messages behind the prompt, what the turns are paid, and whether the environment is done."""
    told = example["demonstration"] if isinstance(example["demonstration"], list) else [example["demonstration"]]
    environment, messages, paid = Counting(), [], []
    environment.reset(example)
    for text in told[:turns]:
        turn = environment.step(text)
        messages += [{"role": "assistant", "content": text}, *turn.messages]
        paid.append(turn.reward)
        if turn.done:
            return messages[:-1], paid, True
    return messages[:-1], paid, False


@pytest.mark.parametrize("turns", [16, 2])
def test_a_conversation_is_what_the_chat_template_makes_of_it(policy, turns):
    examples, rollouts = shown(policy, turns=turns)
    end, assistant = policy.tokenizer.convert_tokens_to_ids(["<end>", "<assistant>"])
    for row, example in enumerate(examples):
        messages, paid, done = by_hand(example, turns)
        whole = policy.tokenizer.apply_chat_template([*example["prompt"], *messages], return_dict=False)
        length = int(rollouts.lengths[row])
        own = rollouts.response_ids[row, :length].tolist()
        assert [*rollouts.prompt_ids[row][rollouts.prompt_mask[row]].tolist(), *own] == whole
        speaks, expected = False, []
        for token in own:  # the environment speaks behind an end, until the policy's turn opens
            expected.append(not speaks)
            speaks = (speaks or token == end) and not (speaks and token == assistant)
        assert rollouts.mask[row].tolist() == expected + [False] * (rollouts.mask.shape[1] - length)
        assert torch.equal(rollouts.spoken[row, :length], ~rollouts.mask[row, :length])
        ends = [i for i, token in enumerate(own) if token == end]
        assert [float(rollouts.turn_rewards[row, i]) for i in ends] == paid
        assert float(rollouts.turn_rewards[row].sum()) == sum(paid) and bool(rollouts.truncated[row]) != done
    assert rollouts.spoken.any() and rollouts.trained.all()


@pytest.mark.parametrize("most", [1, 4, 9])
def test_the_limit_counts_the_policys_own_tokens(policy, most):
    _, whole = shown(policy)
    _, rollouts = shown(policy, most)
    own, cut = whole.mask.sum(1), rollouts.mask.sum(1)
    assert torch.equal(cut, own.clamp(max=most)) and rollouts.truncated[own > most].all()
    width = rollouts.response_ids.shape[1]
    kept = torch.arange(width) < rollouts.lengths[:, None]
    assert torch.equal(rollouts.response_ids[kept], whole.response_ids[:, :width][kept])


def test_positions_end_it_as_they_end_a_sampled_response(policy, monkeypatch):
    """With few positions a row is the longest part of the whole one that they hold and that ends in a turn.

    The environment is given, and pays, what of the turn is there.
    """
    _, whole = shown(policy)
    longest, cut = int(whole.prompt_mask.sum(1).max()), 0
    for most in range(longest + 1, longest + int(whole.lengths.max()) + 1):
        monkeypatch.setattr(policy.model.config, "max_position_embeddings", most)
        _, rollouts = shown(policy)
        for row in range(len(whole)):
            length = min(int(whole.lengths[row]), most - int(whole.prompt_mask[row].sum()))
            while whole.spoken[row, length - 1]:
                length -= 1
            assert int(rollouts.lengths[row]) == length
            assert torch.equal(rollouts.response_ids[row, :length], whole.response_ids[row, :length])
            begin = max(i for i in range(length) if i == 0 or whole.spoken[row, i - 1])
            paid = len(policy.decode(whole.response_ids[row, begin:length])) / 8
            assert float(rollouts.turn_rewards[row, length - 1]) == paid
            if length < int(whole.lengths[row]):
                assert rollouts.truncated[row]
                cut += not whole.turn_rewards[row, length - 1]  # within a turn
    assert cut > 5


def test_turns_end_as_the_chat_template_ends_them(policy):
    """Not with the tokenizer's EOS."""
    policy, end = made(policy, "gemma")
    examples, rollouts = shown(policy)
    for row, example in enumerate(examples):
        messages, _, _ = by_hand(example)
        whole = policy.encode_prompt([*example["prompt"], *messages])
        ids = [*rollouts.prompt_ids[row][rollouts.prompt_mask[row]].tolist()]
        ids += rollouts.response_ids[row, : rollouts.lengths[row]].tolist()
        assert ids == whole[: len(ids)] and ids.count(end) == whole.count(end) and ids[-1] == end
    once = demonstrate(policy, [[2]], [{"demonstration": "15"}], SamplingPlan(demonstrations=True))
    assert once.response_ids.tolist() == [[*policy.encode_text("15"), end]]


def test_learning_from_them_raises_their_likelihood_and_generates_nothing():
    algorithm = Supervised(policy=CausalPolicy(), max_new_tokens=30, reference=False, learning_rate=3e-3)
    data = train(algorithm, RewardCallback(), prompts_per_iteration=16).datamodule
    rollouts = data.rollouts
    assert data.generated == 0 and rollouts.spoken.any()
    assert torch.equal(rollouts.rewards, rollouts.turn_rewards.sum(1))
    with torch.no_grad():
        before, after = (policy(rollouts, 1.0).sum() for policy in (CausalPolicy(), algorithm.policy))
    assert after > before


def test_there_are_no_hints_where_an_environment_answers():
    with pytest.raises(UsageError, match=r"data\.hints takes parts of demonstrations of one turn"):
        check_plan(RLOO(reference=False), RewardCallback(), Calculator(), 0, 1)
