"""Graphs of decoding steps share one pool of memory, whatever the number of calls of the sampler."""

import itertools
from contextlib import nullcontext

import pytest
import torch
from lightning import Callback

from lit_rl.algorithms import GRPO, TRePO
from lit_rl.policy import CausalPolicy
from lit_rl.sampling import LocalSampler, SamplingPlan
from lit_rl.sampling.graphs import Replay


class Allocator:
    """CUDA's part, without a GPU: pools that live as long as a graph captured in them, and are not given back."""

    def __init__(self):
        self.names, self.pools, self.running, self.cached, self.steps = itertools.count(), {}, 0, False, 0

    def graph(allocator):
        class Graph:
            name = None

            def pool(self):
                return self.name

            def capture_begin(self, pool, **kwargs):
                assert pool is None or allocator.pools[pool] > 0, "no graph holds that pool any more"
                self.name = next(allocator.names) if pool is None else pool
                allocator.pools[self.name] = allocator.pools.get(self.name, 0) + 1
                allocator.running += 1

            def capture_end(self):
                allocator.running -= 1

            def replay(self):
                allocator.steps += 1

            def __del__(self):
                if self.name is not None:
                    allocator.pools[self.name] -= 1

        return Graph()

    def step(self):
        """A step of decoding: taken, or captured, for which memory that is only cached is no use."""
        if self.running and self.cached:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.steps += not self.running


class Stream:
    def wait_stream(self, other): ...
    def synchronize(self): ...


@pytest.fixture
def allocator(monkeypatch):
    allocator = Allocator()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", allocator.graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: setattr(allocator, "cached", False))
    return allocator


def test_all_graphs_are_captured_in_one_pool(allocator):
    replay = Replay()
    for times in (32, 16, 1, 32, 7):
        taken = allocator.steps
        replay(allocator.step, times)
        assert allocator.steps == taken + times
    assert allocator.pools == {0: 1}  # one pool, held by the last graph alone


def test_a_capture_that_finds_no_memory_takes_what_is_cached(allocator):
    allocator.cached = True
    replay = Replay()
    replay(allocator.step, 32)
    assert allocator.steps == 32 and not allocator.cached and not allocator.running


def test_a_capture_that_finds_no_memory_at_all_is_out_of_memory(allocator, monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    allocator.cached = True
    with pytest.raises(torch.OutOfMemoryError):
        Replay()(allocator.step, 32)
    assert not allocator.running


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@cuda
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("compile", [False, True], ids=["graph", "compiled"])
@pytest.mark.parametrize("make", [GRPO, TRePO])
def test_reserved_memory_stays_level(fit, make, compile, precision):
    reserved = []

    class Level(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            reserved.append(torch.cuda.memory_reserved())

    torch.cuda.empty_cache()
    options = {"accelerator": "gpu", "devices": 1, "precision": precision}
    data = {"sampler": LocalSampler(compile=compile), "prompts_per_iteration": 64, "rows_per_microbatch": 64}
    fit(make, iterations=60, callbacks=(Level(),), trainer=options, data=data)
    assert reserved[59] <= 1.05 * reserved[4]


@cuda
def test_a_capture_takes_memory_that_is_only_cached():
    policy, plan = CausalPolicy().cuda(), SamplingPlan(samples=64, max_new_tokens=64)
    prompts = [policy.encode_prompt([{"role": "user", "content": "2 + 3"}])] * 4
    torch.cuda.empty_cache()
    plain = LocalSampler(cuda_graphs=False).sample(policy, prompts, plan, [(i,) for i in range(4)])
    torch.empty(2**28, dtype=torch.uint8, device="cuda")  # freed at once, and cached
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / whole)
    try:
        found = LocalSampler().sample(policy, prompts, plan, [(i,) for i in range(4)])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert found.lengths.shape == plain.lengths.shape
