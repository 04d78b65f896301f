"""Preference pairs, and the loss that learns from them."""

from torch import Tensor
from torch.nn.functional import logsigmoid


def best_and_worst(rewards: Tensor) -> tuple[Tensor, Tensor]:
    """The columns of the first largest and of the last smallest reward of each group: [P, G] -> [P], [P].

    The two differ in every group, even if all rewards are equal.
    """
    return rewards.argmax(1), rewards.shape[1] - 1 - rewards.flip(1).argmin(1)


def dpo_loss(log_ratios: Tensor, signs: Tensor, beta: float) -> Tensor:
    """The DPO loss (2305.18290): -mean_pairs w log sigmoid(beta (Delta_+ - Delta_-)).

    Delta = log pi(response) / pi_ref(response). At pi = pi_ref the gradient is -mean_pairs w beta/2 (grad log pi(+) -
    grad log pi(-)).

    Args:
        log_ratios: [N] Delta; rows 2j and 2j + 1 are a pair.
        signs: [N] 1 for the preferred response of a pair and -1 for the other; 0 and 0 for a tie, whose weight w is 0.
        beta: how strongly the policy is held to the reference.
    """
    margins, weights = (log_ratios * signs).view(-1, 2).sum(1), signs.view(-1, 2).abs().amax(1)
    return -(weights * logsigmoid(beta * margins)).mean()
