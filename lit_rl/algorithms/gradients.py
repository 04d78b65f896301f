"""The gradient of each group of an algorithm's rollouts, by the algorithm's own code."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lit_rl.algorithms.base import Algorithm
from lit_rl.functional.variance import GradientStatistics, gradient_statistics
from lit_rl.rollouts import Rollouts


def group_gradients(algorithm: Algorithm, rollouts: Rollouts, groups: int | None = None) -> Iterator[Tensor]:
    """The descent direction of each prompt's group, -grad of the loss's ``policy`` term: vectors [D].

    A group with its probes is the independent unit. The mean over the groups is the training gradient of the weights
    that sampled. Draws no random number and leaves ``.grad`` as it was.

    Args:
        rollouts: scored and prepared.
        groups: only the first so many.
    """
    rows_of = rollouts.mask[rollouts.trained].sum(1).float()
    parameters = [p for p in algorithm.policy.parameters() if p.requires_grad]
    for group in range(len(rollouts.examples))[:groups]:
        rows = rollouts.select((rollouts.group == group) & rollouts.trained)
        rows.window_tokens = float(rows_of.mean())
        with torch.enable_grad():
            loss = algorithm.loss(rows, algorithm.policy(rows, algorithm.plan.temperature))["policy"]
            gradients = torch.autograd.grad(loss, parameters)
        yield -torch.cat([g.reshape(-1) for g in gradients]).float()


def measure_gradient(algorithm: Algorithm, rollouts: Rollouts, groups: int | None = None) -> GradientStatistics:
    """Noise and size of the training gradient, from the gradients of single groups; see :func:`group_gradients`."""
    n, squares, total = 0, torch.zeros(()), torch.zeros(())
    for gradient in group_gradients(algorithm, rollouts, groups):
        n, squares, total = n + 1, squares + gradient.square().sum().double().cpu(), total.to(gradient) + gradient
    return gradient_statistics(squares, total.cpu(), n)
