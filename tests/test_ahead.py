"""Decoding ahead gives what decoding with a look at each token gives; on a GPU, from CUDA graphs, as well."""

import pytest
import torch
from families import CONFIGS, PROMPTS, encode, family

from lit_rl.functional.cuts import Entropy, Stride
from lit_rl.sampling import LocalSampler, SamplingPlan, ahead, local
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


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@cuda
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_cuda_graph_draws_what_single_steps_draw(policy, plan):
    policy = policy.cuda()
    plain = sample(policy, plan, LocalSampler(batch_rows=8, cuda_graphs=False))
    assert contents(sample(policy, plan, LocalSampler(batch_rows=8))) == contents(plain)
