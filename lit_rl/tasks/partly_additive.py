"""A reward that is a sum over tokens to a part, and for the rest whatever another task pays."""

import re
from collections.abc import Callable

from torch import Tensor

from lit_rl.errors import UsageError
from lit_rl.ranges import Count, Seed, Several, Share
from lit_rl.tasks.position_credit import Additive, Parity, PositionTask


class PartlyAdditive(PositionTask):
    """r = (1 - share) r_additive + share r_other: tokens earn by themselves, and together.

    Both parts see the same response. Their optima may differ, so that the best reward may be below 1.

    Args:
        other: the task of the other part, a class or a function that takes vocabulary, length, eos and size. On the
            command line, and in a configuration file, it has settings of its own: ``data.task.other.token``.
        share: of the other part; 0 is :class:`Additive` alone, 1 the other task alone.
        seed: of the table of :class:`Additive`.

    Attributes:
        additive, other: the two tasks.

    Raises:
        UsageError: as the two tasks do.
    """

    def __init__(
        self,
        vocabulary: Several = 4,
        length: Count = 8,
        eos: bool = False,
        size: Count = 256,
        other: Callable[[int, int, bool, int], PositionTask] = Parity,
        share: Share = 0.5,
        seed: Seed = 0,
    ) -> None:
        super().__init__(vocabulary, length, eos, size)
        self.share = share
        self.additive = Additive(vocabulary, length, eos, size, seed)
        try:
            self.other = other(vocabulary, length, eos, size)
        except UsageError as error:  # sizes are this task's, the other settings its part's
            own = r"data\.task\.(?!vocabulary|length|eos|size)"
            raise UsageError(re.sub(own, "data.task.other.", str(error))) from error

    def returns(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return self._mixed(self.additive.returns(ids, lengths), self.other.returns(ids, lengths))

    def earned(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return self._mixed(self.additive.earned(ids, lengths), self.other.earned(ids, lengths))

    def _mixed(self, additive: Tensor, other: Tensor) -> Tensor:
        return (1 - self.share) * additive + self.share * other
