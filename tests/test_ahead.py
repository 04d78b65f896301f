"""Decoding ahead gives what decoding with a look at each token gives; on a GPU, from CUDA graphs, as well."""

from functools import cache

import pytest
import torch
from families import CONFIGS, PROMPTS, encode, family

from lit_rl.errors import UsageError
from lit_rl.functional.cuts import Entropy, Stride
from lit_rl.policy import TabularPolicy
from lit_rl.sampling import LocalSampler, SamplingPlan, ahead, compiled, local
from lit_rl.sampling.graphs import Replay

PLANS = {
    "samples": SamplingPlan(samples=3, greedy=True, max_new_tokens=40),
    "stride": SamplingPlan(samples=2, greedy=True, cuts=Stride(7), continuations=2, temperature=0.8, max_new_tokens=40),
    "entropy": SamplingPlan(samples=2, cuts=Entropy(3.0), continuations=1, fork_root=True, max_new_tokens=20),
}


def sample(policy, plan, sampler):
    prompts = encode(policy, PROMPTS)
    return sampler.sample(policy, prompts, plan, [(7, i) for i in range(len(prompts))])


def contents(rollouts):
    """All that was written, row by row, whatever the order of the continuations."""
    names = ("origin", "cut", "lengths", "truncated", "trained", "response_ids", "mask", "cuts")
    columns = [getattr(rollouts, name).tolist() for name in names if getattr(rollouts, name) is not None]
    return sorted(zip(*columns, strict=True))


class OneByOne(Replay):
    def __call__(self, step, times):
        for _ in range(times):
            step()


@pytest.fixture(params=CONFIGS)
def policy(request, tmp_path):
    torch.compiler.reset()  # of other models
    policy = family(request.param, tmp_path).double()  # sums in another order draw no other token
    policy.stop_ids = torch.arange(0, 400, 16)  # responses of many lengths
    return policy


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("steps", [1, 5, 32])
def test_responses_are_those_of_decoding_step_by_step(policy, plan, steps, monkeypatch):
    plain = sample(policy, plan, LocalSampler(batch_rows=8))
    assert len(set(plain.lengths.tolist())) > 5
    monkeypatch.setattr(ahead, "STEPS", steps)
    monkeypatch.setattr(local, "replayable", lambda policy, cache: True)
    sampler = LocalSampler(batch_rows=8)
    sampler._replay = OneByOne()
    found = sample(policy, plan, sampler)
    assert contents(plain) == contents(found)


def test_compiled_layers_draw_what_they_draw_as_they_are(policy, monkeypatch):
    plan, calls = PLANS["stride"], []
    plain = sample(policy, plan, LocalSampler(batch_rows=8))

    def counted(graph, inputs):
        calls.append(graph)
        return graph.forward

    compile_ = cache(lambda: torch.compile(compiled.step, dynamic=True, fullgraph=True, backend=counted))
    monkeypatch.setattr(compiled, "program", compile_)
    monkeypatch.setattr(local, "replayable", lambda policy, cache: True)
    sampler = LocalSampler(batch_rows=8, compile=True)
    sampler._replay = OneByOne()
    assert contents(sample(policy, plan, sampler)) == contents(plain)
    once = len(calls)
    assert contents(sample(policy, plan, sampler)) == contents(plain)
    assert 1 <= once == len(calls) <= 3  # not for each layer, nor for each number of rows


def test_compiling_needs_steps_and_layers_to_compile(monkeypatch):
    with pytest.raises(UsageError, match="data.sampler.compile"):
        LocalSampler(cuda_graphs=False, compile=True)
    table = TabularPolicy(4, 6)
    assert len(LocalSampler(compile=True).sample(table, [[0]], SamplingPlan(), [(0,)])) == 1  # one by one
    monkeypatch.setattr(local, "replayable", lambda policy, cache: True)
    with pytest.raises(UsageError, match="data.sampler.compile"):
        LocalSampler(compile=True).sample(table, [[0]], SamplingPlan(), [(0,)])


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@cuda
@pytest.mark.parametrize("compile", [False, True], ids=["graph", "compiled"])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_cuda_graph_draws_what_single_steps_draw(policy, plan, compile):
    policy = policy.cuda()
    plain = sample(policy, plan, LocalSampler(batch_rows=8, cuda_graphs=False))
    assert contents(sample(policy, plan, LocalSampler(batch_rows=8, compile=compile))) == contents(plain)
