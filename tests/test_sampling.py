"""The sampler against transformers' own generation, exact probabilities, and itself in another batch."""

import copy
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import CONFIGS, PROMPTS, encode, family

from lit_rl.errors import UsageError
from lit_rl.functional.cuts import Stride
from lit_rl.policy import CausalPolicy
from lit_rl.policy.causal import DATA
from lit_rl.policy.reading import whole_inputs
from lit_rl.rollouts import pad_left
from lit_rl.sampling import LocalSampler, SamplingPlan, demonstrate


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_is_that_of_transformers_one_prompt_at_a_time(name, tmp_path):
    policy = family(name, tmp_path)
    prompts = encode(policy)
    plan = SamplingPlan(samples=1, greedy=True, max_new_tokens=24)
    rollouts = LocalSampler().sample(policy, prompts, plan, [(i,) for i in range(3)])
    for i, prompt in enumerate(prompts):
        row = int(((rollouts.group == i) & ~rollouts.trained).nonzero())
        theirs = policy.model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=24, do_sample=False
        )[0, len(prompt) :]
        assert rollouts.response_ids[row, : rollouts.lengths[row]].tolist() == theirs.tolist()


@pytest.mark.parametrize("name", CONFIGS)
def test_logprobs_of_a_padded_table_are_those_of_each_row_alone(name, tmp_path):
    policy = family(name, tmp_path)
    prompts = encode(policy)
    rollouts = LocalSampler().sample(
        policy, prompts, SamplingPlan(samples=2, max_new_tokens=12), [(i,) for i in range(3)]
    )
    with torch.no_grad():
        together = policy(rollouts, 0.7)
        for row in range(len(rollouts)):
            prompt, length = prompts[int(rollouts.group[row])], int(rollouts.lengths[row])
            ids = torch.tensor([[*prompt, *rollouts.response_ids[row, :length].tolist()]])
            every = (policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1] / 0.7).log_softmax(-1)
            alone = every.gather(1, rollouts.response_ids[row, :length, None]).squeeze(1)
            torch.testing.assert_close(together[row, :length], alone, atol=2e-5, rtol=0)
            assert (together[row, length:] == 0).all()


@pytest.mark.parametrize("sampler", [LocalSampler(batch_rows=4), LocalSampler(batch_rows=1)])
def test_a_sample_depends_on_its_own_stream_alone(policy, sampler):
    """The same responses however rows are batched and compacted, and whatever is sampled beside them."""
    plan = SamplingPlan(samples=3, greedy=True, max_new_tokens=40)
    prompts, streams = encode(policy, PROMPTS * 2), [(7, i) for i in range(6)]
    torch.manual_seed(0)
    before = torch.get_rng_state()
    whole = LocalSampler().sample(policy, prompts, plan, streams)
    assert torch.equal(before, torch.get_rng_state())
    other = sampler.sample(policy, prompts, plan, streams)
    assert torch.equal(whole.response_ids, other.response_ids) and torch.equal(whole.lengths, other.lengths)
    part = sampler.sample(policy, prompts[2:4], plan, streams[2:4])
    for row in range(8):
        length = int(part.lengths[row])
        assert part.response_ids[row, :length].tolist() == whole.response_ids[8 + row, :length].tolist()
    assert len({tuple(ids) for ids in whole.response_ids[whole.trained].tolist()}) > 12


def test_first_tokens_have_the_policys_frequencies(policy):
    """4,000 samples of one token: every frequency within 4.5 standard errors of its probability."""
    prompts, plan = encode(policy, PROMPTS[:1]), SamplingPlan(samples=4000, max_new_tokens=1, temperature=1.5)
    rollouts = LocalSampler(batch_rows=4000).sample(policy, prompts, plan, [(3,)])
    with torch.no_grad():
        p = (policy.model(input_ids=torch.tensor(prompts)).logits[0, -1] / 1.5).softmax(-1)
    counts = torch.bincount(rollouts.response_ids[:, 0], minlength=len(p))
    error = (p * (1 - p) / 4000).sqrt().clamp(min=1 / 4000)
    assert ((counts / 4000 - p).abs() < 4.5 * error).all()


def test_masks_lengths_and_truncation(policy, task):
    prompts = [policy.encode_prompt(example["prompt"]) for example in task.prompts("val").select(range(8))]
    plan = SamplingPlan(samples=4, max_new_tokens=44)
    rollouts = LocalSampler().sample(policy, prompts, plan, [(i,) for i in range(8)])
    assert 0 < int(rollouts.truncated.sum()) < 32
    for row in range(32):
        length, ids = int(rollouts.lengths[row]), rollouts.response_ids[row]
        assert rollouts.mask[row].tolist() == [True] * length + [False] * (len(ids) - length)
        assert (ids[: length - 1] != policy.eos_id).all()
        assert bool(ids[length - 1] == policy.eos_id) != bool(rollouts.truncated[row])
        assert not rollouts.truncated[row] or length == 44
    assert int(rollouts.lengths.max()) == rollouts.response_ids.shape[1]


def test_log_probabilities_agree_with_what_was_sampled(policy):
    """Mean log-probability of the samples equals minus the entropy along them, within 4 standard errors."""
    prompts = encode(policy, PROMPTS[1:2])
    rollouts = LocalSampler().sample(policy, prompts, SamplingPlan(samples=400, max_new_tokens=30), [(0,)])
    with torch.no_grad():
        logprobs, entropy = policy.logprobs_and_entropy(rollouts, 1.0)
    surplus = (logprobs + entropy).sum(1)  # a martingale: mean 0
    assert abs(float(surplus.mean())) < 4 * float(surplus.std()) / 20


def test_demonstrations_are_the_tasks_own_text(policy, task):
    examples = list(task.prompts("train").select(range(4)))
    plan = SamplingPlan(demonstrations=True, max_new_tokens=64)
    rollouts = demonstrate(policy, [policy.encode_prompt(e["prompt"]) for e in examples], examples, plan)
    for row, example in enumerate(examples):
        ids = rollouts.response_ids[row, : rollouts.lengths[row]]
        assert policy.decode(ids) == example["demonstration"] and ids[-1] == policy.eos_id
    with pytest.raises(UsageError, match="demonstration"):
        demonstrate(policy, [[2]], [{"prompt": []}], plan)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_padding_may_stand_left_or_right_of_a_prompt(name, tmp_path):
    """The padding between a prompt and its response is no part of either."""
    policy = family(name, tmp_path)
    plan = SamplingPlan(samples=2, max_new_tokens=12)
    left = LocalSampler().sample(policy, encode(policy), plan, [(i,) for i in range(3)])
    assert not left.prompt_mask.all()
    shift = (~left.prompt_mask).sum(1, keepdim=True)
    columns = (torch.arange(left.prompt_mask.shape[1]) + shift) % left.prompt_mask.shape[1]
    right = replace(
        left, prompt_ids=left.prompt_ids.gather(1, columns), prompt_mask=left.prompt_mask.gather(1, columns)
    )
    assert right.prompt_mask[:, 0].all() and not right.prompt_mask[:, -1].all()
    # the column before the response is where its first token is read: a prompt padded on the right ends elsewhere
    ends = right.prompt_mask.sum(1) - 1
    whole = policy.model(**whole_inputs(right)).logits
    first = whole[torch.arange(len(ends)), ends]
    rest = whole[:, left.prompt_ids.shape[1] : -1]
    logits = torch.cat([first[:, None], rest], 1).log_softmax(-1)
    alone = logits.gather(-1, right.response_ids[..., None]).squeeze(-1) * right.mask
    torch.testing.assert_close(alone, policy(left, 1.0), atol=2e-5, rtol=0)


def test_weights_that_have_diverged_are_named(policy):
    policy = copy.deepcopy(policy)
    next(policy.parameters()).data[:] = torch.nan
    with pytest.raises(UsageError, match="learning_rate.*NaN"):
        LocalSampler().sample(policy, encode(policy), SamplingPlan(max_new_tokens=4), [(i,) for i in range(3)])


def test_pad_left():
    ids, mask = pad_left([[5], [6, 7, 8]], 0)
    assert ids.tolist() == [[0, 0, 5], [6, 7, 8]] and mask.tolist() == [[False, False, True], [True] * 3]


def test_policy_has_no_dropout_and_survives_a_round_trip(policy, tmp_path):
    gpt2 = family("gpt2", tmp_path)
    gpt2.train()
    rollouts = LocalSampler().sample(
        gpt2, encode(gpt2), SamplingPlan(samples=2, max_new_tokens=6), [(i,) for i in range(3)]
    )
    assert torch.equal(gpt2(rollouts, 1.0), gpt2(rollouts, 1.0))
    gpt2.model.save_pretrained(tmp_path / "saved")
    gpt2.tokenizer.save_pretrained(tmp_path / "saved")
    assert torch.equal(CausalPolicy(str(tmp_path / "saved"))(rollouts, 1.0), gpt2(rollouts, 1.0))


@pytest.mark.parametrize("missing", ["chat_template", "eos_token"])
def test_a_tokenizer_that_cannot_serve_is_named(missing, tmp_path, policy):
    tokenizer = copy.deepcopy(policy.tokenizer)
    setattr(tokenizer, missing, None)
    tokenizer.save_pretrained(tmp_path)
    policy.model.config.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="model.policy.path"):
        CausalPolicy(str(tmp_path), weights="random")


def test_embedded_tokenizer_encodes_any_text_with_single_digit_numbers(policy):
    text = "Zoë pays $1,234.50 (√4 times)!\n#### 2469"
    ids = policy.encode_text(text)
    assert policy.decode(torch.tensor(ids)) == text
    digits = set("0123456789")
    pieces = [policy.decode(torch.tensor([i])) for i in range(len(policy.tokenizer))]
    assert all(len(piece) == 1 for piece in pieces if digits & set(piece))
    assert (DATA / "warmstart" / "tokenizer.json").is_file()


def simple_loop(policy, prompt, stream, most, prefix=()):
    """A response by the sampler's docstring alone: row by row, without a cache, a batch or padding."""
    uniforms = np.random.default_rng(stream).random(most, np.float32)
    ids = list(prefix)
    while len(ids) < most and (not ids or ids[-1] != policy.eos_id):
        logits = policy.model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, -1]
        cumulative = logits.softmax(-1).cumsum(-1)
        ids.append(int((cumulative <= uniforms[len(ids)] * cumulative[-1]).sum()))
    return ids


@torch.no_grad()
def test_samples_and_continuations_are_those_of_a_simple_loop(policy, task):
    """512 tokens and more, id by id."""
    prompts = [policy.encode_prompt(example["prompt"]) for example in task.prompts("val").select(range(4))]
    plan = SamplingPlan(samples=2, cuts=Stride(14), continuations=2, max_new_tokens=60)
    rollouts = LocalSampler(batch_rows=6).sample(policy, prompts, plan, [(3, i) for i in range(4)])
    numbers = Counter()
    for row in range(len(rollouts)):
        group, origin, cut = (int(x[row]) for x in (rollouts.group, rollouts.origin, rollouts.cut))
        stream = (3, group, (row if origin < 0 else origin) % 2)
        if origin >= 0:
            numbers[origin, cut] += 1
            stream += (cut, numbers[origin, cut])
        ids = rollouts.response_ids[row, : rollouts.lengths[row]].tolist()
        assert ids == simple_loop(policy, prompts[group], stream, 60, ids[:cut])
    assert int(rollouts.mask.sum()) > 512
