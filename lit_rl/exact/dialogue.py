"""Tasks of several turns that can be enumerated: an environment draws some tokens of a response by itself."""

from abc import abstractmethod

import torch
from torch import Tensor

from lit_rl.tasks import PositionTask

REPEATS = (0.7, 0.6)  # how likely the environment of TwoTurns says the policy's token, 0 or 1, once more


class Dialogue(PositionTask):
    """A task with an environment that speaks at fixed positions of the response.

    The reward is the sum of what is paid for the turns. Responses are of one length, and positions count all tokens.

    Attributes:
        spoken: positions of the environment's tokens.
    """

    spoken: tuple[int, ...]

    @abstractmethod
    def answers(self, prefixes: Tensor) -> Tensor:
        """log P(. | prefix) of the environment: [X, V] float64.

        Args:
            prefixes: [X, t] the tokens before one of the positions ``spoken``.
        """

    @abstractmethod
    def turn_rewards(self, ids: Tensor) -> Tensor:
        """What is paid for each turn, at the turn's last token of the policy: [N, T] float64.

        Args:
            ids: [N, T] whole responses.
        """

    def returns(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return self.turn_rewards(ids).sum(1)


class TwoTurns(Dialogue):
    """The policy writes a token, the environment answers with one, and the policy writes two more; all are 0 or 1.

    The environment repeats the policy's token with probability 0.7 if it is 0, with 0.6 if it is 1. The first turn
    earns 1/4 if it is repeated, the second one 3/4 if its tokens add up to what the two before them do.
    """

    spoken = (1,)

    def __init__(self) -> None:
        super().__init__(vocabulary=2, length=4, size=1)

    def answers(self, prefixes: Tensor) -> Tensor:
        said = prefixes[:, -1:]
        repeated = torch.tensor(REPEATS, dtype=torch.float64)[said]
        return torch.where(said == torch.arange(2), repeated, 1 - repeated).log()

    def turn_rewards(self, ids: Tensor) -> Tensor:
        paid = torch.zeros(ids.shape, dtype=torch.float64, device=ids.device)
        paid[:, 0] = 0.25 * (ids[:, 0] == ids[:, 1])
        paid[:, 3] = 0.75 * (ids[:, :2].sum(1) == ids[:, 2:].sum(1))
        return paid


def spoken_at(task: PositionTask) -> list[int]:
    """The positions of an environment's tokens."""
    return list(task.spoken) if isinstance(task, Dialogue) else []
