"""What is kept in memory is what the models and the optimizer have."""

import re

import plain_vllm
import psutil
import pytest
import torch
from lightning import Callback

from lit_rl.algorithms import PPO, RLOO, TRePO
from lit_rl.callbacks import Memory
from lit_rl.errors import usage_error
from lit_rl.sampling import VLLM

MIB = 2**20


@pytest.mark.parametrize("make, models", [(RLOO, {"policy": 1, "frozen": 1}), (PPO, {"policy": 1, "frozen": 1})])
def test_sizes(fit, make, models):
    trainer, algorithm, _ = fit(make, callbacks=(Memory(),))
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    policy = sum(p.numel() for p in algorithm.policy.parameters()) * 4 / MIB
    critic = sum(p.numel() for p in algorithm.critic.parameters()) * 4 / MIB if make is PPO else 0
    for name, count in models.items():
        assert metrics[f"memory/{name}"] == pytest.approx(count * policy, rel=1e-3)
    assert metrics.get("memory/critic", 0) == pytest.approx(critic, rel=1e-3)
    # AdamW keeps two numbers a parameter, and counts steps
    assert metrics["memory/optimizer"] == pytest.approx(2 * (policy + critic), rel=1e-3)
    assert metrics["memory/resident"] == pytest.approx(psutil.Process().memory_info().rss / MIB, rel=0.2)
    assert metrics["memory/peak"] > sum(metrics[f"memory/{name}"] for name in (*models, "optimizer"))


def test_a_large_tensor_shows_in_the_peak(fit):
    first, _, _ = fit(RLOO, callbacks=(Memory(),))
    peak = float(first.callback_metrics["memory/peak"])
    filled = torch.ones(int(peak) * MIB // 4 + 100 * MIB)  # more than has ever been in use
    second, _, _ = fit(RLOO, callbacks=(Memory(),))
    assert float(second.callback_metrics["memory/peak"]) > peak + len(filled) * 4 / MIB / 4


class Fails(Callback):
    def __init__(self, error):
        self.error = error

    def on_train_batch_start(self, *args):
        raise self.error


@pytest.mark.parametrize("make", [RLOO, PPO, TRePO])
def test_out_of_memory_says_what_takes_it_and_what_lowers_it(fit, make):
    for error in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("[...] can't allocate memory: you tried")):
        with pytest.raises(RuntimeError) as raised:
            fit(make, callbacks=(Memory(), Fails(error)))
        (line,) = str(usage_error(raised.value)).splitlines()
        for named in ("policy", "optimizer", "caches of 512 rows", "logits", "data.sampler.batch_rows", "checkpoint"):
            assert named in line
        assert ("critic" in line) == (make is PPO)


def test_out_of_memory_beside_an_engine_names_its_share(fit, monkeypatch):
    plain_vllm.installed(monkeypatch)
    error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError) as raised:
        fit(RLOO, callbacks=(Memory(), Fails(error)), data={"sampler": VLLM(memory_share=0.25)}, max_new_tokens=4)
    (line,) = str(usage_error(raised.value)).splitlines()
    [size] = re.findall(r"engine \(data\.sampler\.memory_share\) ([\d.]+)", line)
    assert float(size) == pytest.approx(psutil.virtual_memory().total / 4 / 2**30, abs=0.01)
    assert "lower data.sampler.memory_share" in line and "batch_rows" not in line


def test_another_error_stays_what_it_is(fit):
    with pytest.raises(RuntimeError) as raised:
        fit(RLOO, callbacks=(Memory(), Fails(RuntimeError("shapes differ"))))
    assert usage_error(raised.value) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_out_of_memory_on_a_gpu(fit):
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**26) / whole)
    try:
        with pytest.raises(torch.OutOfMemoryError) as raised:
            sizes = {"prompts_per_iteration": 128, "rows_per_microbatch": 128}
            fit(RLOO, callbacks=(Memory(),), samples=8, trainer={"accelerator": "gpu", "devices": 1}, data=sizes)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "data.sampler.batch_rows" in str(usage_error(raised.value))
