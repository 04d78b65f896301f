"""The algorithm that knows the exact advantages."""

import pytest
import torch

from lit_rl.algorithms import REINFORCE
from lit_rl.exact.expectation import moments
from lit_rl.exact.oracle import ExactAdvantage
from lit_rl.exact.tree import grow
from lit_rl.policy import TabularPolicy
from lit_rl.tasks import Bottleneck, Parity


@pytest.mark.parametrize("eos", [False, True])
@pytest.mark.parametrize("task", [Bottleneck, Parity])
def test_it_is_unbiased_and_has_less_noise_than_no_baseline(task, eos):
    torch.manual_seed(3)
    task = task(vocabulary=3, length=3, eos=eos)
    policy = TabularPolicy(vocabulary=3, length=3, eos=eos, spread=1.0).double()
    tree = grow(policy, task)
    found = moments(ExactAdvantage(task, policy=policy, max_new_tokens=3), tree)
    plain = moments(REINFORCE(policy=policy, max_new_tokens=3), tree)
    torch.testing.assert_close(found.mean, plain.mean)
    torch.testing.assert_close(found.weights, tree.visits * tree.advantages)
    assert found.trace_cov < plain.trace_cov
