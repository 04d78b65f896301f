"""Responses of several turns: against a plain loop, in other batches, at their ends, and what they cost."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from conversations import EXAMPLES, STREAMS, Counting, Dice, Endless, Written, sampled, simply
from families import family
from transformers import MistralConfig

from lit_rl.errors import UsageError
from lit_rl.functional.cuts import Bernoulli, Turns
from lit_rl.policy import CausalPolicy
from lit_rl.sampling import LocalSampler, SamplingPlan, ahead, local
from lit_rl.sampling.graphs import Replay
from lit_rl.tasks import Turn

PLAN = SamplingPlan(samples=3, temperature=1.5, max_new_tokens=20)
FORKED = replace(PLAN, samples=2, greedy=True, cuts=Bernoulli(0.2), continuations=2, fork_root=True)


class OneByOne(Replay):
    def __call__(self, step, times):
        for _ in range(times):
            step()


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def policy(request, tmp_path_factory):
    return ending_often(request.param, tmp_path_factory.mktemp(request.param))


def ending_often(name, folder):
    """A policy whose turns have many lengths, from one token on."""
    policy = family(name, folder).double()  # sums in another order draw no other token
    policy.stop_ids = torch.tensor([1, *range(300, 400, 2)])
    return policy


def row_of(rollouts, row):
    """What was written in a row, as plain data."""
    length = int(rollouts.lengths[row])
    nothing = torch.zeros_like(rollouts.mask)
    columns = (rollouts.response_ids, *(nothing if x is None else x for x in (rollouts.spoken, rollouts.turn_rewards)))
    return Written(*(column[row, :length].tolist() for column in columns), bool(rollouts.truncated[row]))


def start_of(written, cut):
    return Written(written.ids[:cut], written.spoken[:cut], written.paid[:cut])


def contents(rollouts):
    """All that was written, by prompt, origin, cut and number, whatever the order and width of the table."""
    numbers, found = Counter(), {}
    for row in range(len(rollouts)):
        key = (row,)
        if (origin := int(rollouts.origin[row])) >= 0:
            key = origin, int(rollouts.cut[row])
            numbers[key] += 1
            key += (numbers[key],)
        cuts = () if rollouts.cuts is None else rollouts.cuts[row].nonzero().flatten().tolist()
        found[key] = row_of(rollouts, row), cuts
    return found


def counted(written):
    return 1 + sum(a and not b for a, b in zip(written.spoken, written.spoken[1:], strict=False))


def test_rows_are_those_of_a_plain_loop(policy):
    """Samples and continuations, token by token, with what was spoken, paid, and how they ended."""
    rollouts = sampled(policy, replace(FORKED, greedy=False), LocalSampler(batch_rows=4), turns=3)
    numbers, turns, inside = Counter(), Counter(), 0
    for row in range(len(rollouts)):
        origin, cut, group = int(rollouts.origin[row]), int(rollouts.cut[row]), int(rollouts.group[row])
        stream, prefix = (*STREAMS[group], (row if origin < 0 else origin) % 2), Written()
        if origin >= 0:
            numbers[origin, cut] += 1
            stream, prefix = (*stream, cut, numbers[origin, cut]), start_of(row_of(rollouts, origin), cut)
            inside += cut > 0 and not prefix.spoken[-1] and any(prefix.spoken)
        found = row_of(rollouts, row)
        assert found == simply(policy, group, stream, FORKED, 3, prefix)
        turns[counted(found)] += 1
    assert set(turns) == {1, 2, 3} and inside > 2 and len(numbers) > 10
    assert 0 < int(rollouts.truncated.sum()) < len(rollouts)


@pytest.mark.parametrize("make", [Counting, Dice])
@pytest.mark.parametrize("batch_rows", [1, 5])
def test_a_row_depends_on_its_own_stream_alone(policy, make, batch_rows):
    """Whatever stands beside it, and whichever way it is decoded; an environment's dice are its stream's."""
    whole = contents(sampled(policy, FORKED, make=make))
    assert contents(sampled(policy, FORKED, LocalSampler(batch_rows), make)) == whole
    part = contents(sampled(policy, FORKED, LocalSampler(batch_rows), make, some=slice(1, 3)))
    assert part == {(key[0] - 3, *key[1:]): value for key, value in whole.items() if key[0] >= 3}


@pytest.mark.parametrize("steps", [1, 4, 32])
def test_decoding_ahead_writes_the_same(policy, steps, monkeypatch):
    plain = contents(sampled(policy, FORKED))
    monkeypatch.setattr(ahead, "STEPS", steps)
    monkeypatch.setattr(local, "replayable", lambda policy, cache: True)
    sampler = LocalSampler()
    sampler._replay = OneByOne()
    assert contents(sampled(policy, FORKED, sampler)) == plain


@pytest.mark.parametrize("plan", [PLAN, FORKED], ids=["samples", "continuations"])
def test_nothing_is_fed_twice(policy, plan):
    """Prompts, what environments say, and of a fork's prefix the last token; all else has just been sampled."""
    fed = []

    def watch(module, args, kwargs):
        rows, columns = kwargs["input_ids"].shape
        fed.append(int(kwargs["attention_mask"][:, -columns:].sum()))

    handle = policy.model.register_forward_pre_hook(watch, with_kwargs=True)
    rollouts = sampled(policy, plan)
    handle.remove()
    prompts = sum(len(policy.encode_prompt(example["prompt"])) for example in EXAMPLES)
    heard = rollouts.spoken.clone()
    for row in range(len(rollouts)):
        heard[row, : rollouts.cut[row]] = False
    forks = len({(int(o), int(c)) for o, c in zip(rollouts.origin, rollouts.cut, strict=True) if o >= 0})
    assert rollouts.prefilled == prompts + int(heard.sum()) + forks
    assert sum(fed) == rollouts.prefilled + int((rollouts.mask.sum(1) - 1).sum())
    assert heard.any() and bool(forks) == bool(plan.continuations)


def test_the_mask_holds_the_policys_own_tokens(policy):
    rollouts = sampled(policy, FORKED)
    t = torch.arange(rollouts.response_ids.shape[1])
    assert torch.equal(rollouts.mask, rollouts.filled & ~rollouts.spoken & (t >= rollouts.cut[:, None]))
    assert not (rollouts.spoken & ~rollouts.filled).any() and not (rollouts.cuts & rollouts.spoken).any()
    last = rollouts.lengths - 1
    assert rollouts.mask.gather(1, last[:, None]).all()  # nothing is said behind the last turn
    own = (rollouts.filled & ~rollouts.spoken).sum(1)
    assert int(own.max()) <= FORKED.max_new_tokens < int(rollouts.lengths.max())
    with torch.no_grad():  # the table reads as what was sampled
        logprobs = policy(rollouts, 1.0)
    assert torch.equal(logprobs != 0, rollouts.mask)


def test_continuations_from_the_start_of_a_turn(policy):
    rollouts = sampled(policy, replace(FORKED, cuts=Turns(), fork_root=False))
    forked = rollouts.origin >= 0
    where = rollouts.origin[forked], rollouts.cut[forked]
    assert forked.any() and rollouts.spoken[where[0], where[1] - 1].all()
    others = rollouts.written[:, 1:] & rollouts.spoken[:, :-1]
    samples = (rollouts.origin < 0) & rollouts.trained
    assert len(set(zip(*(x.tolist() for x in where), strict=True))) == int(others[samples].sum())


# ---- ends -----------------------------------------------------------------------------------------------------------


def test_an_environment_that_never_ends_is_stopped_by_the_limit_of_turns(policy):
    for turns in (1, 2, 4):
        rollouts = sampled(policy, replace(PLAN, max_new_tokens=60), make=Endless, turns=turns)
        assert rollouts.truncated.all()
        written = [row_of(rollouts, row) for row in range(len(rollouts))]
        whole = [each for each in written if each.spoken.count(False) < 60]
        assert whole and all(counted(each) == turns == sum(each.paid) for each in whole)


def test_a_turn_that_meets_the_length_limit_is_paid_and_the_last(policy):
    rollouts = sampled(policy, replace(PLAN, max_new_tokens=3), make=Endless)
    for row in range(len(rollouts)):
        found = row_of(rollouts, row)
        assert found.spoken.count(False) == 3 and found.truncated
        assert found.paid[-1] == 1 and sum(found.paid) == counted(found)


def test_empty_turns_are_turns(policy):
    """A policy that says nothing but its stop token, to an environment that then is done after some turns."""
    before = policy.stop_ids
    policy.stop_ids = torch.arange(policy.vocabulary)
    try:
        rollouts = sampled(policy, replace(PLAN, max_new_tokens=9))
    finally:
        policy.stop_ids = before
    for row in range(len(rollouts)):
        found = row_of(rollouts, row)
        assert not found.truncated and not found.spoken[0] and found.spoken[1:2] in ([], [True])
        own = [i for i, spoken in enumerate(found.spoken) if not spoken]
        assert len(own) == counted(found) and found.spoken[-1] is False


def test_a_conversation_beyond_the_models_positions_ends_truncated(policy):
    free = sampled(policy, PLAN)
    longest = max(len(policy.encode_prompt(example["prompt"])) for example in EXAMPLES)
    before = policy.model.config.max_position_embeddings
    policy.model.config.max_position_embeddings = longest + PLAN.max_new_tokens
    try:
        rollouts = sampled(policy, PLAN)
    finally:
        policy.model.config.max_position_embeddings = before
    used = rollouts.prompt_mask.sum(1) + rollouts.lengths
    assert int(used.max()) <= longest + PLAN.max_new_tokens < int((free.prompt_mask.sum(1) + free.lengths).max())
    for row in range(len(rollouts)):
        short, long = row_of(rollouts, row), row_of(free, row)
        assert short.ids == long.ids[: len(short.ids)] and (short.truncated or short == long)


class Uneven(Endless):
    """Has much to say after the second turn or after the first, by the example; three turns are played."""

    def reset(self, example):
        self.left, self.long = 3, example["most"] - 1
        return example["prompt"]

    def step(self, text):
        self.left -= 1
        words = "go on and on and on" if self.left == self.long else "on"
        return Turn([{"role": "user", "content": words}], done=not self.left)


def test_a_sliding_window_is_told_with_what_to_lower(tmp_path):
    """In a cache, rows take the slots of what is said to the others too; by themselves they may go on."""
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    MistralConfig(vocab_size=400, num_key_value_heads=2, sliding_window=500, **small).save_pretrained(tmp_path)
    CausalPolicy().tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    policy = CausalPolicy(str(tmp_path), weights="random").double()
    policy.stop_ids = torch.arange(policy.vocabulary)  # a turn has one token
    plan, some = SamplingPlan(max_new_tokens=3), slice(0, 2)
    whole = sampled(policy, plan, make=Uneven, some=some)
    policy.model.config.sliding_window = int((whole.prompt_mask.sum(1) + whole.lengths).max()) + 3
    alone = sampled(policy, plan, LocalSampler(batch_rows=1), make=Uneven, some=some)
    assert contents(alone) == contents(whole)
    with pytest.raises(UsageError, match=r"sliding window.*lower data\.sampler\.batch_rows"):
        sampled(policy, plan, make=Uneven, some=some)
