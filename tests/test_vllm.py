"""The sampler over vLLM, with a plain engine in vLLM's place; ``make vllm`` tests it with vLLM itself."""

import os
from dataclasses import replace

import plain_vllm
import pytest
import torch
from conversations import sampled
from families import PROMPTS, encode, family
from test_turns import contents, ending_often

from lit_rl.algorithms import GRPO, RLOO, OnlineDPO, ReMax, TRePO
from lit_rl.errors import UsageError
from lit_rl.functional.cuts import Bernoulli, Entropy, Stride, Turns
from lit_rl.policy.lora import merged, whole_weights
from lit_rl.rollouts import response_mask
from lit_rl.sampling import VLLM, LocalSampler, SamplingPlan
from lit_rl.sampling.vllm import seed_of

PLAN = SamplingPlan(samples=3, greedy=True, temperature=0.7, max_new_tokens=12)
FORKED = replace(PLAN, cuts=Stride(3), continuations=2)
STREAMS = [(7, i) for i in range(len(PROMPTS))]


@pytest.fixture
def sampler(monkeypatch):
    plain_vllm.installed(monkeypatch)
    return VLLM()


@pytest.fixture(params=["llama", "gpt2"])
def some_policy(request, tmp_path):
    policy = family(request.param, tmp_path)
    policy.stop_ids = torch.tensor([1, *range(300, 400, 4)])
    return policy


def greedy_of(rollouts):
    rows = (~rollouts.trained & (rollouts.origin < 0)).nonzero().squeeze(1).tolist()
    return [rollouts.response_ids[row, : rollouts.lengths[row]].tolist() for row in rows]


def own_logprobs(policy, rollouts, temperature):
    with torch.no_grad():
        return policy(rollouts, temperature)


def test_without_vllm_a_line_says_where_it_is(lit_rl, monkeypatch):
    monkeypatch.setattr("lit_rl.sampling.vllm.find_spec", lambda name: None)
    code, _, err = lit_rl("fit", "--data.sampler", "VLLM")
    assert code == 2 and err.count("\n") == 1 and "make vllm" in err and "data.sampler" in err


def test_rows_are_responses_to_their_prompts(sampler, some_policy):
    prompts = encode(some_policy)
    rollouts = sampler.sample(some_policy, prompts, PLAN, STREAMS)
    local = LocalSampler().sample(some_policy, prompts, PLAN, STREAMS)
    assert greedy_of(rollouts) == greedy_of(local)
    for name in ("prompt_ids", "prompt_mask", "group", "origin", "trained"):
        assert torch.equal(getattr(rollouts, name), getattr(local, name))
    filled = response_mask(rollouts.lengths, rollouts.response_ids.shape[1])
    assert torch.equal(rollouts.mask, filled) and rollouts.spoken is None and rollouts.cuts is None
    last = rollouts.response_ids.gather(1, rollouts.lengths[:, None] - 1).squeeze(1)
    assert torch.equal(~rollouts.truncated, torch.isin(last, some_policy.stop_ids))
    assert 0 < int(rollouts.truncated.sum()) < len(rollouts)
    drawn = rollouts.sampler_logprobs[rollouts.trained]
    own = own_logprobs(some_policy, rollouts, 0.7)[rollouts.trained]
    torch.testing.assert_close(drawn, own, atol=2e-5, rtol=0)
    assert local.sampler_logprobs is None


def test_a_row_depends_on_its_own_stream_alone(sampler, some_policy):
    prompts = encode(some_policy)
    whole = contents(sampler.sample(some_policy, prompts, FORKED, STREAMS))
    assert any(len(key) == 3 for key in whole)
    before = torch.get_rng_state()
    part = contents(sampler.sample(some_policy, prompts[1:], FORKED, STREAMS[1:]))
    assert torch.equal(before, torch.get_rng_state())
    assert part == {(key[0] - 4, *key[1:]): value for key, value in whole.items() if key[0] >= 4}
    others = contents(sampler.sample(some_policy, prompts, FORKED, [(8, i) for i in range(3)]))
    rows = [key for key in whole if len(key) == 1 and key[0] % 4 < 3]
    assert sum(others[key] != whole[key] for key in rows) > len(rows) // 2
    assert len({seed_of((a, b, c)) for a in range(20) for b in range(20) for c in range(20)}) == 8000


@pytest.mark.parametrize("cuts", [Stride(3), Bernoulli(0.3), Entropy(2.0)])
@pytest.mark.parametrize("reuse", [False, True])
def test_continuations_go_on_from_their_cuts(sampler, some_policy, cuts, reuse):
    plan = replace(FORKED, cuts=cuts, reuse=reuse, fork_root=True)
    rollouts = sampler.sample(some_policy, encode(some_policy), plan, STREAMS)
    forked = (rollouts.origin >= 0).nonzero().squeeze(1)
    origin, cut = rollouts.origin[forked], rollouts.cut[forked]
    prefix = response_mask(cut, rollouts.response_ids.shape[1])
    assert torch.equal(rollouts.response_ids[forked] * prefix, rollouts.response_ids[origin] * prefix)
    assert not rollouts.mask[forked][prefix].any() and (rollouts.lengths[forked] > cut).all()
    assert bool(rollouts.trained[forked].all()) == reuse == bool(rollouts.trained[forked].any())
    # each cut of a sample is forked so many times, and they are where the rule says
    places = torch.stack([origin, cut], 1).unique(dim=0)
    samples = rollouts.origin < 0
    assert places.tolist() == (rollouts.cuts & samples[:, None]).nonzero().tolist() and len(places) > 5
    assert len(forked) == 2 * len(places)
    if isinstance(cuts, Entropy):
        with torch.no_grad():
            _, entropy = some_policy.logprobs_and_entropy(rollouts.select(samples), 0.7)
        said = (entropy > 2.0) & rollouts.mask[samples] & rollouts.trained[samples][:, None]
        assert torch.equal(rollouts.cuts[samples][:, 1:], said[:, 1:])
    drawn, own = rollouts.sampler_logprobs[forked], own_logprobs(some_policy, rollouts, 0.7)[forked]
    torch.testing.assert_close(drawn * rollouts.mask[forked], own, atol=2e-5, rtol=0)
    requested = rollouts.prefilled / (1 - rollouts.prefix_hits)
    assert 0.3 < rollouts.prefix_hits < 1 and requested > rollouts.prefilled


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_environments_speak_between_turns(sampler, name, tmp_path):
    """A greedy row's conversation is the local sampler's; its continuations go on in the turn of their cut."""
    policy = ending_often(name, tmp_path).float()
    plan = replace(FORKED, temperature=1.5, max_new_tokens=20, cuts=Turns())
    rollouts, local = sampled(policy, plan, sampler), sampled(policy, plan)
    whole, theirs = contents(rollouts), contents(local)
    assert all(whole[key] == theirs[key] for key in [(3,), (7,), (11,)])
    assert rollouts.spoken.any() and not (rollouts.spoken & rollouts.mask).any() and (rollouts.origin >= 0).any()
    rows = rollouts.trained | (rollouts.origin >= 0)
    drawn, own = rollouts.sampler_logprobs * rollouts.mask, own_logprobs(policy, rollouts, 1.5)
    torch.testing.assert_close(drawn[rows], own[rows], atol=2e-5, rtol=0)
    alone = contents(sampled(policy, plan, sampler, some=slice(1, 3)))
    assert alone == {(key[0] - 4, *key[1:]): value for key, value in whole.items() if key[0] >= 4}


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_the_engine_has_the_weights_of_now_and_forgets_with_those_before(sampler, lora_rank, tmp_path):
    policy = family("llama", tmp_path, lora_rank=lora_rank)
    prompts = encode(policy)
    hits = [sampler.sample(policy, prompts, PLAN, STREAMS).prefix_hits for _ in range(2)]
    assert hits[1] > hits[0]
    for parameter in policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    moved = sampler.sample(policy, prompts, PLAN, STREAMS)
    assert greedy_of(moved) == greedy_of(LocalSampler().sample(policy, prompts, PLAN, STREAMS))
    assert moved.prefix_hits == pytest.approx(hits[0], abs=0.05)
    own = own_logprobs(policy, moved, 0.7)[moved.trained]
    torch.testing.assert_close(moved.sampler_logprobs[moved.trained], own, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_whole_weights_are_those_of_an_export(name, tmp_path):
    policy = family(name, tmp_path, lora_rank=4)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    found, exported = whole_weights(policy.model), dict(merged(policy.model).named_parameters(remove_duplicate=False))
    assert set(found) == set(exported)
    for weight, other in exported.items():
        torch.testing.assert_close(found[weight], other.detach(), atol=1e-5, rtol=1e-5)


def test_mistakes_are_lines(sampler, policy, tmp_path, monkeypatch):
    prompts = encode(policy)
    with pytest.raises(UsageError, match=r"model\.temperature"):
        sampler.sample(policy, prompts, replace(PLAN, temperature=0.001), STREAMS)
    sampler.sample(policy, prompts, replace(PLAN, max_new_tokens=2), STREAMS)
    with pytest.raises(UsageError, match="another model"):
        sampler.sample(family("llama", tmp_path), prompts, PLAN, STREAMS)
    broken = family("llama", tmp_path)
    next(broken.parameters()).data[0, 0] = torch.nan
    with pytest.raises(UsageError, match=r"learning_rate.*NaN"):
        VLLM().sample(broken, prompts, PLAN, STREAMS)

    def refuse(self, *args, **kwargs):
        raise ValueError("more than\n gpu_memory_utilization")

    monkeypatch.setattr(plain_vllm.LLM, "__init__", refuse)
    with pytest.raises(UsageError, match=r"^data\.sampler: .*more than data\.sampler\.memory_share"):
        VLLM().sample(policy, prompts, PLAN, STREAMS)


def test_its_longest_row_is_a_limit_and_shortens_no_response(fit, sampler):
    data = {"sampler": VLLM(max_model_len=37)}
    with pytest.raises(UsageError, match=r"more than the 37 tokens of data\.sampler\.max_model_len; raise that"):
        fit(RLOO, data=data, samples=2, max_new_tokens=8)
    _, _, module = fit(RLOO, data={**data, "too_long": "drop"}, samples=2, max_new_tokens=8)
    rollouts = module.rollouts
    assert 0 < len(module.prompts.of("train")) < 256
    assert rollouts.truncated.any() and (rollouts.lengths[rollouts.truncated] == 8).all()


@pytest.mark.parametrize(
    ("gpus", "device", "beside", "sleeps"),
    [(1, "cuda:3", True, True), (2, "cuda:1", True, True), (2, "cuda:2", False, False), (1, "cpu", True, False)],
)
def test_it_sleeps_where_the_policy_takes_its_memory(sampler, gpus, device, beside, sleeps):
    device = torch.device(device)
    for sleep in (True, False):
        engine = VLLM(tensor_parallel_size=gpus, sleep=sleep).engine
        assert (engine.beside(device), engine.sleeps(device)) == (beside, sleeps and sleep)


def test_the_process_keeps_its_environment(sampler, policy):
    before = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    sampler.sample(policy, encode(policy), replace(PLAN, max_new_tokens=2), STREAMS)
    assert before == {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}


@pytest.mark.parametrize(
    ("make", "settings"),
    [(GRPO, {}), (RLOO, {"samples": 2, "reference": False}), (ReMax, {}), (OnlineDPO, {}), (TRePO, {"samples": 2})],
)
def test_algorithms_train_on_its_responses_and_tell_how_far_it_is(fit, sampler, make, settings):
    trainer, _, module = fit(make, data={"sampler": sampler}, max_new_tokens=8, **settings)
    seen = trainer.callback_metrics
    assert abs(float(seen["sampler/kl"])) < 1e-5 and float(seen["sampler/ratio_max"]) == pytest.approx(1, abs=1e-3)
    assert 0 < float(seen["sampler/prefix_hits"]) < 1
    assert module.generated == int(module.rollouts.mask.sum()) and module.prefilled == module.rollouts.prefilled


class Off(VLLM):
    """Half a nat off in the tokens of continuations."""

    def sample(self, *args, **kwargs):
        rollouts = super().sample(*args, **kwargs)
        rollouts.sampler_logprobs[rollouts.origin >= 0] -= 0.5
        return rollouts


@pytest.mark.parametrize("reuse", [False, True])
def test_it_tells_how_far_it_is_of_all_tokens_that_are_trained_on(fit, sampler, reuse):
    trainer, _, module = fit(TRePO, data={"sampler": Off()}, max_new_tokens=8, samples=2, reuse=reuse)
    rows = module.rollouts
    tokens = rows.mask[rows.trained].sum()
    off = 0.5 * rows.mask[rows.trained & (rows.origin >= 0)].sum() / tokens
    assert (float(off) > 0.1) == reuse
    seen = trainer.callback_metrics
    assert float(seen["sampler/kl"]) == pytest.approx(-float(off), abs=1e-5)
    assert float(seen["sampler/ratio_max"].log()) == pytest.approx(0.5 * reuse, abs=1e-3)
