"""Synthetic tasks whose exact credit is known, and measures of an estimate of credit."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import pad

from lit_rl.errors import UsageError
from lit_rl.ranges import Count, Seed, Several, Whole
from lit_rl.tasks.base import Example, Split, Task

ABSENT = -1  # stands where a response has no token that could earn


class PositionTask(Task):
    """A task whose reward, 0 to 1, is a function of the response's token ids alone; the text is never read.

    There is one prompt. Its content is its token ids as decimal text, here the one token 0.

    Args:
        vocabulary: number of tokens; ids are 0..vocabulary - 1.
        length: the most tokens of a response.
        eos: whether the last token of the vocabulary ends a response; it is part of it, but earns nothing. Without,
            every response has exactly ``length`` tokens.
        size: prompts of a split.

    Raises:
        UsageError: fewer than two tokens besides EOS, or another argument (of a subclass, too) out of range.
    """

    def __init__(self, vocabulary: Several = 4, length: Count = 8, eos: bool = False, size: Count = 256) -> None:
        if vocabulary < 2 + eos:
            raise UsageError(f"data.task.vocabulary is {vocabulary}; choose at least {2 + eos}: two tokens besides EOS")
        self.vocabulary, self.length, self.size = vocabulary, length, size
        self.actions = vocabulary - eos  # tokens that can earn: 0..actions - 1
        self.eos_id: int | None = vocabulary - 1 if eos else None
        self._prompts: Dataset | None = None

    def prompts(self, split: Split) -> Dataset:
        if self._prompts is None:
            self._prompts = Dataset.from_list([{"prompt": [{"role": "user", "content": "0"}]}] * self.size)
        return self._prompts

    @abstractmethod
    def returns(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The exact rewards of N responses.

        Args:
            ids: [N, T] long; tokens at and behind ``lengths`` or behind EOS are ignored, whatever they are.
            lengths: [N] tokens of each response, EOS included.

        Returns:
            [N] float64, in 0..1.

        Raises:
            UsageError: a response longer than ``length``, or a token outside the vocabulary.
        """

    def earned(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """What each token earns as soon as it is known: a function of s_t and a_t alone that sums to :meth:`returns`.

        It is what the token changes in the reward that the response would have if it ended there.

        Args:
            ids, lengths: as of :meth:`returns`.

        Returns:
            [N, T] float64, in units of the reward; 0 at and behind ``lengths`` or behind EOS.
        """
        prefixes = [self.returns(ids, lengths.clamp(max=t)) for t in range(ids.shape[1] + 1)]
        return torch.stack(prefixes, 1).diff(dim=1)

    def score(self, example: Example, ids: Tensor, text: str) -> float:
        return self.returns(ids[None], torch.tensor([len(ids)], device=ids.device)).item()

    def _tokens(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The tokens that can earn [N, length], ABSENT elsewhere."""
        longest = int(lengths.max()) if len(lengths) else 0
        if longest > self.length:
            raise UsageError(
                f"model.max_new_tokens is at least {longest}: the task's responses have at most {self.length} tokens; "
                f"set it to {self.length}"
            )
        ids = pad(ids, (0, self.length - ids.shape[1]), value=ABSENT)  # or cuts, where ids are wider
        there = torch.arange(self.length, device=ids.device) < lengths[:, None]
        if self.eos_id is not None:
            there &= (ids == self.eos_id).cumsum(1) == 0
        strange = ids[there & ((ids < 0) | (ids >= self.vocabulary))]
        if len(strange):
            known = f"data.task.vocabulary is {self.vocabulary}"
            raise UsageError(f"{known}, but a response has token {int(strange[0])}; set it to the policy's vocabulary")
        return torch.where(there, ids, ABSENT)

    def _check(self, name: str, value: int, below: int, what: str) -> None:
        if value >= below:
            raise UsageError(f"data.task.{name} is {value}; choose {what}, 0 to {below - 1}")


class Additive(PositionTask):
    """Every token earns by itself: r = sum_t w[t, a_t].

    The worst token of each position earns 0, as EOS does. The only optimum has the best token at each of the ``length``
    positions, without EOS.

    Args:
        seed: of the table w; vocabularies with equally many tokens besides EOS share it.

    Attributes:
        token_rewards: w [length, vocabulary] float64, 0 in the column of EOS.
    """

    def __init__(
        self, vocabulary: Several = 4, length: Count = 8, eos: bool = False, size: Count = 256, seed: Seed = 0
    ) -> None:
        super().__init__(vocabulary, length, eos, size)
        generator = torch.Generator().manual_seed(seed)
        table = torch.rand(length, self.actions, generator=generator, dtype=torch.float64)
        table -= table.amin(1, keepdim=True)
        # multiples of 2^-40 add up without rounding, in any order: the optimum earns exactly 1
        table = (table / table.amax(1).sum() * 2**40).floor() / 2**40
        best, token = table.max(1)
        table[best.argmax(), token[best.argmax()]] += 1 - best.sum()
        self.token_rewards = pad(table, (0, vocabulary - self.actions))

    def returns(self, ids: Tensor, lengths: Tensor) -> Tensor:
        tokens = self._tokens(ids, lengths)
        table = self.token_rewards.to(ids.device)
        earned = table[torch.arange(self.length, device=ids.device), tokens.clamp(min=0)]
        return torch.where(tokens != ABSENT, earned, 0.0).sum(1)


class KeyToken(PositionTask):
    """One token decides: r = 1[a_position = target]. Every response with it is optimal.

    Args:
        position: counted from 0; a response that ended before it earns 0.
        target: a token that is not EOS.
    """

    def __init__(
        self,
        vocabulary: Several = 4,
        length: Count = 8,
        eos: bool = False,
        size: Count = 256,
        position: Whole = 0,
        target: Whole = 1,
    ) -> None:
        super().__init__(vocabulary, length, eos, size)
        self._check("position", position, length, "a position of the response")
        self._check("target", target, self.actions, "a token besides EOS")
        self.position, self.target = position, target

    def returns(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return (self._tokens(ids, lengths)[:, self.position] == self.target).double()


class Bottleneck(PositionTask):
    """Several tokens decide together: r = 1[a_t = target for all t in positions].

    Every response with ``target`` at all these positions is optimal, whatever the other tokens are.

    Args:
        positions: counted from 0; null takes two, a quarter and three quarters along (one, if ``length`` is 1).
        target: a token that is not EOS.
    """

    def __init__(
        self,
        vocabulary: Several = 4,
        length: Count = 8,
        eos: bool = False,
        size: Count = 256,
        positions: Sequence[Whole] | None = None,
        target: Whole = 1,
    ) -> None:
        super().__init__(vocabulary, length, eos, size)
        self.positions = sorted({length // 4, 3 * length // 4} if positions is None else set(positions))
        if not self.positions:
            raise UsageError("data.task.positions is empty; give at least one, or null for two spread over a response")
        for position in self.positions:
            self._check("positions", position, length, "a position of the response")
        self._check("target", target, self.actions, "a token besides EOS")
        self.target = target

    def returns(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return (self._tokens(ids, lengths)[:, self.positions] == self.target).all(1).double()


class Pairwise(PositionTask):
    """Neighbours that count up earn: r = (1 / (length - 1)) sum_{t >= 1} 1[a_t = (a_{t-1} + 1) mod A].

    A is the number of tokens besides EOS. Neighbours interact: no table of rewards by position adds up to r. Optimal
    are the A responses that count up, modulo A, through all ``length`` positions, without EOS; ``length`` is at least
    2.
    """

    def __init__(self, vocabulary: Several = 4, length: Count = 8, eos: bool = False, size: Count = 256) -> None:
        super().__init__(vocabulary, length, eos, size)
        if length < 2:
            raise UsageError(f"data.task.length is {length}; pairs take at least 2")

    def returns(self, ids: Tensor, lengths: Tensor) -> Tensor:
        tokens = self._tokens(ids, lengths)
        follows = tokens[:, 1:] == (tokens[:, :-1] + 1) % self.actions  # ABSENT follows nothing, only ABSENT follows it
        return follows.sum(1).double() / (self.length - 1)


class Parity(PositionTask):
    """An odd number of one token earns: r = 1[the number of ``token``s in the response is odd].

    Each token matters only together with all the others. Optimal is every response with an odd number of them, of any
    length; one without tokens earns 0.

    Args:
        token: the token that counts, not EOS.
    """

    def __init__(
        self, vocabulary: Several = 4, length: Count = 8, eos: bool = False, size: Count = 256, token: Whole = 1
    ) -> None:
        super().__init__(vocabulary, length, eos, size)
        self._check("token", token, self.actions, "a token besides EOS")
        self.token = token

    def returns(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return ((self._tokens(ids, lengths) == self.token).sum(1) % 2).double()

    def earned(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The whole reward at the last token: nothing is known before it."""
        ended = lengths
        if self.eos_id is not None:
            before = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
            ended = (before & ((ids == self.eos_id).cumsum(1) - (ids == self.eos_id).long() == 0)).sum(1)
        last = torch.arange(ids.shape[1], device=ids.device) == ended[:, None] - 1
        return torch.where(last, self.returns(ids, lengths)[:, None], 0.0)


def credit_correlation(estimated: Tensor, exact: Tensor, mask: Tensor) -> Tensor:
    """Pearson's correlation of estimated and exact advantages over the rows, at each position.

    Args:
        estimated, exact, mask: [N, T].

    Returns:
        [T] float64; NaN where fewer than two rows are in the mask, or either has no spread beyond rounding.
    """
    x, y = _centred(estimated, mask), _centred(exact, mask)
    return ((x * y).sum(0) / (x.square().sum(0).sqrt() * y.square().sum(0).sqrt())).clamp(-1, 1)


def calibration_slope(estimated: Tensor, exact: Tensor, mask: Tensor) -> Tensor:
    """The slope of exact = a + slope * estimated, by least squares over the rows, at each position: 1 is calibrated.

    Args:
        estimated, exact, mask: [N, T].

    Returns:
        [T] float64; NaN where fewer than two rows are in the mask, or ``estimated`` has no spread beyond rounding.
    """
    x, y = _centred(estimated, mask), _centred(exact, mask)
    return (x * y).sum(0) / x.square().sum(0)


def gradient_share(position_gradients: Tensor) -> Tensor:
    """|g_t| / sum_t |g_t|: [T, D] -> [T]; zeros if all g_t are zero."""
    norms = torch.linalg.vector_norm(position_gradients, dim=1)
    total = norms.sum()
    return torch.where(total > 0, norms / total, 0.0)


def _centred(x: Tensor, mask: Tensor) -> Tensor:
    """x less its mean over each position's rows, float64; exactly 0 outside the mask and where there is no spread."""
    if not len(x):
        return x.double()
    rounding = 16 * torch.finfo(x.dtype).eps  # of the largest value: advantages are differences of values that size
    x = torch.where(mask, x, 0.0).double()
    spread = torch.where(mask, x, -torch.inf).amax(0) - torch.where(mask, x, torch.inf).amin(0)
    centred = x - x.sum(0) / mask.sum(0)
    return torch.where(mask & ~(spread <= rounding * x.abs().max()), centred, 0.0)
