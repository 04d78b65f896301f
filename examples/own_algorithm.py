"""An algorithm of your own, judged before it trains: does it estimate the gradient of the mean reward, how noisily?

From the repository's root:

    python examples/own_algorithm.py    # seconds: the two below, on a small task whose exact gradient is known
    python -m lit_rl verify --model examples.own_algorithm.MedianOfOthers --model.samples 3    # the same, by command
    python -m lit_rl fit --model examples.own_algorithm.MedianOfOthers --data.task KeyToken --trainer.max_epochs 20
"""

import torch
from torch import Tensor

from lit_rl.algorithms import Algorithm
from lit_rl.exact.certificate import Claim, certify
from lit_rl.exact.report import HEADER, line
from lit_rl.ranges import Several
from lit_rl.rollouts import Rollouts
from lit_rl.tasks import Pairwise


class MedianOfOthers(Algorithm):
    """A response's reward minus the median reward of the other responses, which an outlier moves less than the mean.

    The baseline does not depend on the response itself, so the gradient is unbiased.

    Args:
        samples: responses a prompt, at least 2.
    """

    compares_group = True  # a prompt's responses are each other's baseline

    def __init__(self, samples: Several = 4, **kwargs) -> None:
        super().__init__(samples=samples, **kwargs)  # policy, learning_rate and whatever else all algorithms take

    def advantages(self, rollouts: Rollouts) -> Tensor:
        rewards = self.returns(rollouts).view(-1, self.plan.samples)  # [P, G]: the rows of a prompt stand together
        advantages = rewards - self.baselines(rewards)
        return advantages.flatten()[:, None].expand_as(rollouts.mask)  # [N, T]: the same for each token

    def baselines(self, rewards: Tensor) -> Tensor:
        """One for each response: [P, G]."""
        others = [torch.cat([rewards[:, :i], rewards[:, i + 1 :]], 1) for i in range(rewards.shape[1])]
        return torch.stack([each.median(1).values for each in others], 1)


class MedianOfAll(MedianOfOthers):
    """The same with the median of all responses: it contains the response itself, so the gradient is biased."""

    def baselines(self, rewards: Tensor) -> Tensor:
        return rewards.median(1, keepdim=True).values


def main() -> None:
    print(HEADER)
    for estimator in (MedianOfOthers, MedianOfAll):
        print(line(certify(Claim(estimator.__name__, estimator, Pairwise(vocabulary=2, length=3)))))


if __name__ == "__main__":
    main()
