"""TRePO's noise in closed form against the enumeration of everything it can sample."""

import pytest
import torch
from scipy.stats import spearmanr

from lit_rl.algorithms import RLOO, TRePO
from lit_rl.exact.certificate import random_policy
from lit_rl.exact.expectation import moments
from lit_rl.exact.noise import predicted_noise, trepo_noise
from lit_rl.exact.tree import grow
from lit_rl.functional.cuts import Stride
from lit_rl.tasks import Additive, Bottleneck, Pairwise, Parity

SETTINGS = [
    (Pairwise(2, 4), RLOO, {"samples": 2}, (0,), 1),
    (Additive(3, 3), RLOO, {"samples": 3}, (0,), 1),
    (Pairwise(2, 3), TRePO, {"samples": 2, "continuations": 1, "cuts": Stride(1)}, (0, 1, 2), 1),
    (Parity(2, 4), TRePO, {"samples": 2, "continuations": 1, "cuts": Stride(2)}, (0, 2), 1),
    (Additive(3, 3), TRePO, {"samples": 2, "continuations": 2, "cuts": Stride(2)}, (0, 2), 2),
    (Parity(2, 3), TRePO, {"samples": 3, "continuations": 1, "cuts": Stride(2)}, (0, 2), 1),
]


@pytest.mark.parametrize("task, build, settings, cuts, k", SETTINGS)
def test_the_closed_form_is_the_enumerated_noise(task, build, settings, cuts, k):
    policy = random_policy(task)
    algorithm = build(policy=policy, max_new_tokens=task.length, reference=False, **settings)
    tree = grow(policy, task)
    found = moments(algorithm, tree)
    assert found.exact
    assert trepo_noise(tree, cuts, k, settings["samples"]) == pytest.approx(found.trace_cov, rel=1e-12)


@pytest.mark.parametrize("samples", [2, 5])
def test_the_prediction_is_exact_for_rloo_and_where_all_is_decided_before_the_cut(samples):
    task = Bottleneck(2, 4, positions=(0, 1))
    tree = grow(random_policy(task), task)
    for cuts in ((0,), (0, 2), (0, 3), (0, 2, 3)):
        known = trepo_noise(tree, cuts, 1, samples)
        assert predicted_noise(tree, cuts, 1, samples) == pytest.approx(known, rel=1e-12)


def test_the_prediction_ranks_cuts_of_other_rewards():
    noise = []
    for task in (Additive(2, 4), Pairwise(2, 4), Parity(2, 4)):
        tree = grow(random_policy(task), task)
        rloo = trepo_noise(tree, (0,), 1, 4)
        for cuts in ((0, 1), (0, 2), (0, 3), (0, 1, 2, 3)):
            noise += [[each(tree, cuts, k, 4) / rloo for each in (predicted_noise, trepo_noise)] for k in (1, 4)]
    predicted, exact = zip(*noise, strict=True)
    assert spearmanr(predicted, exact).statistic > 0.9


def test_continuations_without_end_leave_what_segments_decide():
    task = Pairwise(3, 4)
    tree = grow(random_policy(task), task)
    some, many = (trepo_noise(tree, (0, 1, 2, 3), k, 4) for k in (4, 10**9))
    assert many < some < trepo_noise(tree, (0, 1, 2, 3), 1, 4)
    siblings = torch.tensor([trepo_noise(tree, (0,), 1, samples) * samples for samples in (2, 10**9)])
    assert siblings[1] < siblings[0]
