"""What is kept in memory is what the models and the optimizer have."""

import pytest
import torch

from lit_rl.algorithms import PPO, RLOO
from lit_rl.callbacks import Memory

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
    assert metrics["memory/peak"] > sum(metrics[f"memory/{name}"] for name in (*models, "optimizer"))


def test_a_large_tensor_shows_in_the_peak(fit):
    first, _, _ = fit(RLOO, callbacks=(Memory(),))
    peak = float(first.callback_metrics["memory/peak"])
    filled = torch.ones(int(peak) * MIB // 4 + 100 * MIB)  # more than has ever been in use
    second, _, _ = fit(RLOO, callbacks=(Memory(),))
    assert float(second.callback_metrics["memory/peak"]) > peak + len(filled) * 4 / MIB / 4
