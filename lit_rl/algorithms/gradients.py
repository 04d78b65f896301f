"""The gradient of each group of rollouts, computed by the algorithm's own code."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lit_rl.algorithms.base import Algorithm
from lit_rl.algorithms.per_group import gradients_of_groups, groups_at_once, recorded, squared_norms
from lit_rl.functional.variance import GradientStatistics, gradient_statistics
from lit_rl.policy.sharding import gathered
from lit_rl.rollouts import Rollouts


def group_gradients(
    algorithm: Algorithm,
    rollouts: Rollouts,
    groups: int | None = None,
    window_tokens: float | None = None,
    most_rows: int = 1024,
) -> Iterator[Tensor]:
    """The gradient estimate of each prompt's group, -grad of the loss's ``policy`` term: vectors [D].

    A group with its probes is the independent unit. The mean over the groups is the training gradient at the weights
    that sampled. It draws no random number and leaves ``.grad`` as it was.

    Args:
        rollouts: scored and prepared.
        groups: measure only the first so many groups.
        window_tokens: mean number of response tokens per row, over all ranks; None takes that of these rollouts.
        most_rows: the most rows of one forward and backward pass. A group is larger where its continuations are trained
            on.
    """
    if window_tokens is None:
        window_tokens = float(rollouts.mask[rollouts.trained].sum(1).float().mean())
    trained_rows = int(rollouts.trained.sum())
    parameters = [p for p in algorithm.policy.parameters() if p.requires_grad]
    for group in range(len(rollouts.examples))[:groups]:
        total: Any = 0
        for rows in ((rollouts.group == group) & rollouts.trained).nonzero().squeeze(1).split(most_rows):
            part = rollouts.select(rows)
            part.window_tokens = window_tokens
            # the training loss is a mean over rows, of which groups may have more or fewer
            weight = len(part) * len(rollouts.examples) / trained_rows
            with torch.enable_grad():
                loss = algorithm.loss(part, algorithm.policy(part, algorithm.plan.temperature))["policy"]
                gradients = torch.autograd.grad(weight * loss, parameters)
            total = total - torch.cat([g.reshape(-1) for g in gradients])
        yield total


def measure_gradient(
    algorithm: Algorithm,
    rollouts: Rollouts,
    groups: int | None = None,
    sum_over_ranks: Callable[[Tensor], Tensor] = lambda x: x,
    most_rows: int = 1024,
) -> GradientStatistics | None:
    """Noise and size of the training gradient, from the gradients of the groups; see :func:`group_gradients`.

    Args:
        sum_over_ranks: adds up what the ranks have measured, each on its own groups.
        most_rows: the most rows of one forward and backward pass.

    Returns:
        None if there are fewer than two groups.
    """
    tokens = sum_over_ranks(rollouts.mask[rollouts.trained].sum().float())
    rows = sum_over_ranks(rollouts.trained.sum().float())
    window = float(tokens / rows)
    with gathered(algorithm.policy):
        found = _at_once(algorithm, rollouts, groups, window, most_rows)
        if found is None:
            found = _one_by_one(algorithm, rollouts, groups, window, most_rows)
    n, squares, total = found
    n, squares, total = int(sum_over_ranks(torch.tensor(n))), sum_over_ranks(squares), sum_over_ranks(total)
    return gradient_statistics(squares, total, n) if n > 1 else None


Sums = tuple[int, Tensor, Tensor]  # over groups: how many, of |g|^2, of g [D]


def _one_by_one(
    algorithm: Algorithm, rollouts: Rollouts, groups: int | None, window_tokens: float, most_rows: int
) -> Sums:
    n, squares, total = 0, torch.zeros(()), torch.zeros(())
    for gradient in group_gradients(algorithm, rollouts, groups, window_tokens, most_rows):
        n, squares, total = n + 1, squares + gradient.square().sum().cpu(), total.to(gradient) + gradient
    return n, squares, total


def _at_once(
    algorithm: Algorithm, rollouts: Rollouts, groups: int | None, window_tokens: float, most_rows: int
) -> Sums | None:
    """The same from one backward pass for many groups; None where the layers of the model do not allow it."""
    policy, count = algorithm.policy, len(rollouts.examples)
    members = [((rollouts.group == group) & rollouts.trained).nonzero().squeeze(1) for group in range(count)[:groups]]
    most = max(map(len, members))
    logits = most * rollouts.response_ids.shape[1] * policy.vocabulary
    once = min(groups_at_once(policy, logits), most_rows // most)
    if once < 2:
        return None
    totals = {id(p): torch.zeros_like(p).flatten() for p in policy.parameters() if p.requires_grad}
    squares = torch.zeros((), dtype=torch.float64, device=policy.device)
    for start in range(0, len(members), once):
        some = members[start : start + once]
        numbers = pad_sequence(some, batch_first=True, padding_value=-1)
        numbers = torch.nn.functional.pad(numbers, (0, most - numbers.shape[1]), value=-1).flatten()
        own = torch.stack([each[0] for each in some]).repeat_interleave(most)  # fills up with the group's own
        part = rollouts.select(torch.where(numbers < 0, own, numbers))
        part.mask = part.mask & (numbers >= 0)[:, None]
        part.window_tokens = window_tokens
        with torch.enable_grad():
            with recorded(policy.model, len(part), len(some)) as calls:
                logprobs = policy(part, algorithm.plan.temperature, whole=True)
            if not calls:
                return None
            # as in group_gradients: the loss is a mean over these rows, wanted is one over all trained ones
            loss = len(part) * count / int(rollouts.trained.sum()) * algorithm.loss(part, logprobs)["policy"]
        for parameter, gradients in gradients_of_groups(loss, calls, len(some)):
            squares += squared_norms(gradients)
            totals[id(parameter)] -= gradients.sum(0).flatten()
    return len(members), squares.cpu(), torch.cat(list(totals.values()))
