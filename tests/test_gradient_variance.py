"""Gradient statistics against numpy, and the group gradients against the training gradient."""

import numpy as np
import pytest
import torch
from families import CONFIGS, encode, family
from lightning import Callback
from torch import nn

from lit_rl.algorithms import GRPO, REINFORCE, RLOO, ReMax, TRePO
from lit_rl.algorithms.gradients import _at_once, _one_by_one, group_gradients, measure_gradient
from lit_rl.algorithms.per_group import gradients_of_groups, recorded, squared_norms
from lit_rl.functional.cuts import Bernoulli
from lit_rl.functional.variance import gradient_statistics, signal_share
from lit_rl.policy import CausalPolicy, TabularPolicy, TokenTransformer, pieces
from lit_rl.sampling import LocalSampler


def test_statistics_agree_with_numpys_covariance():
    g = np.random.default_rng(0).normal(1.0, 2.0, (50, 7))
    found = gradient_statistics(torch.tensor((g**2).sum()), torch.tensor(g.sum(0)), 50)
    trace = np.trace(np.cov(g.T))
    assert float(found.trace_cov) == pytest.approx(trace)
    assert float(found.norm_sq) == pytest.approx((g.mean(0) ** 2).sum() - trace / 50)
    assert float(found.relative_variance * found.snr) == pytest.approx(50)


def test_norm_is_unbiased():
    """Over many repetitions with a known mean: within 4 standard errors of |G|^2 and of tr Sigma."""
    rng = np.random.default_rng(1)
    mean, sd = np.array([0.3, -0.2, 0.1]), np.array([1.0, 2.0, 0.5])
    draws = rng.normal(mean, sd, (4000, 6, 3))
    found = [gradient_statistics(torch.tensor((g**2).sum()), torch.tensor(g.sum(0)), 6)[:2] for g in draws]
    for estimates, truth in zip(np.array(found).T, ((sd**2).sum(), (mean**2).sum()), strict=True):
        assert abs(estimates.mean() - truth) < 4 * estimates.std() / np.sqrt(len(estimates))


@pytest.mark.parametrize("n", [1, 4, 40])
@pytest.mark.parametrize("curvature", [0.5, 3.0])
def test_the_share_of_signal_is_the_step_that_gains_most_on_a_quadratic(n, curvature):
    """Among the steps along means of n noisy gradients of G x - L |x|^2 / 2, by what they gain on average."""
    rng = np.random.default_rng(2)
    mean, sd = np.array([0.3, -0.2, 0.1]), np.array([0.4, 0.5, 0.3])
    steps = rng.normal(mean, sd, (20_000, n, 3)).mean(1)
    rates = np.linspace(0, 1.5 / curvature, 301)
    gains = [((rate * steps) @ mean - curvature / 2 * ((rate * steps) ** 2).sum(1)).mean() for rate in rates]
    share = signal_share(float((mean**2).sum()), float((sd**2).sum()) / n)
    assert rates[np.argmax(gains)] == pytest.approx(share / curvature, rel=0.03)


def test_without_noise_all_is_signal_and_a_negative_square_is_none():
    assert signal_share(2.0, 0.0) == 1 and signal_share(-0.1, 1.0) == signal_share(0.0, 0.0) == 0


def test_a_large_table_loses_no_digits():
    torch.manual_seed(0)
    table = nn.Embedding(30_000, 256)
    ids = torch.arange(30_000).repeat(2, 1)
    with recorded(table, 2, 2) as calls:
        loss = table(ids).square().sum()
    [(_, gradients)] = gradients_of_groups(loss, calls, 2)
    assert float(squared_norms(gradients)) == pytest.approx(float(gradients.double().square().sum()), rel=1e-6)


@pytest.mark.parametrize("algorithm", [REINFORCE, RLOO, ReMax, GRPO, TRePO])
@pytest.mark.parametrize("normalizer", ["row_sum", "token_mean"])
def test_mean_of_group_gradients_is_the_training_gradient(fit, algorithm, normalizer):
    seen = {}

    class Compare(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 0:
                rollouts = trainer.datamodule.rollouts
                seen["groups"] = torch.stack(list(group_gradients(pl_module, rollouts)))
                seen["measured"] = measure_gradient(pl_module, rollouts)

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen["training"] = -torch.cat([p.grad.reshape(-1) for p in pl_module.policy.parameters()])

    rows = 4 if algorithm in (REINFORCE, ReMax) else 16
    data = {"rows_per_microbatch": rows}
    fit(algorithm, callbacks=(Compare(),), data=data, trainer={"gradient_clip_val": None}, normalizer=normalizer)
    mean = seen["groups"].mean(0)
    assert torch.linalg.norm(mean - seen["training"]) < 1e-5 * torch.linalg.norm(mean)
    trace = seen["groups"].double().var(0).sum()
    assert float(seen["measured"].trace_cov) == pytest.approx(float(trace), rel=1e-4)


@pytest.mark.parametrize("name", [*CONFIGS, "tokens", "tabular", "lora", "many logits"])
def test_the_groups_together_give_the_sums_of_one_after_another(name, tmp_path, monkeypatch):
    """Also where groups have different numbers of rows, and where layers share a parameter or can't be taken apart."""
    torch.manual_seed(0)
    if name == "many logits":  # they are made in pieces, of which groups are not
        name = "llama"
        monkeypatch.setattr(pieces, "MOST_LOGITS", 1)
    policy: CausalPolicy
    if name in ("tokens", "tabular"):
        policy = TokenTransformer(5, 12, eos=True) if name == "tokens" else TabularPolicy(4, 6, spread=1.0)
        prompts = [[0], [0], [0]]
    else:
        policy = CausalPolicy(lora_rank=2) if name == "lora" else family(name, tmp_path)
        prompts = encode(policy)
    algorithm = TRePO(
        policy=policy, samples=3, cuts=Bernoulli(0.3), reuse=True, max_new_tokens=6, normalizer="token_mean"
    )
    rollouts = LocalSampler().sample(policy, prompts, algorithm.plan, [(i,) for i in range(len(prompts))])
    rollouts.examples = [{}] * len(prompts)
    rollouts.rewards = rollouts.response_ids.sum(1) % 7 / 7.0
    algorithm.prepare(rollouts, 8)
    assert len(set(rollouts.group.bincount().tolist())) > 1
    found = _at_once(algorithm, rollouts, None, 5.0, 64)
    if name == "tabular":
        assert found is None  # its one layer takes token ids and a mask
        return
    for whole, groups in ((found, None), (_at_once(algorithm, rollouts, 2, 5.0, 64), 2)):
        n, squares, total = _one_by_one(algorithm, rollouts, groups, 5.0, 64)
        assert whole[0] == n and float(whole[1]) == pytest.approx(float(squares), rel=1e-5)
        assert torch.linalg.norm(whole[2] - total) < 1e-5 * torch.linalg.norm(total)
