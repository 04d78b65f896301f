"""Cut rules: where responses are cut, so that continuations can be sampled from there.

A cut at t ends the prefix before token t. A rule must depend on that prefix only, or be independent of the response.
Then the value of the prefix is a baseline that leaves the gradient unbiased. 2410.01679 cuts at reasoning steps.

Only tokens of the policy are cut before. Where an environment speaks in between, a rule sees the policy's tokens alone,
one behind the other.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_rl.errors import UsageError
from lit_rl.functional.chosen import packed, unpacked
from lit_rl.ranges import Count, NonNegative, Ranged, Several, SomeShare, Whole


class CutRule(Ranged, ABC, setting="model.cuts"):
    """Says for each token how likely the response is cut before it."""

    needs_entropy = False

    @abstractmethod
    def chances(self, ids: Tensor, lengths: Tensor, entropy: Tensor) -> Tensor:
        """The probability [N, T] of a cut before each token; cuts are independent over tokens.

        Position 0, the prompt itself, and positions from ``lengths`` on are left to the caller.

        Args:
            ids: [N, T] response tokens of the policy.
            lengths: [N].
            entropy: [N, T] of pi(. | s_t) in nats; zeros unless ``needs_entropy``.
        """

    def chances_in_turns(self, ids: Tensor, written: Tensor, entropy: Tensor) -> Tensor:
        """The same for responses of several turns: 0 at the tokens that the environment speaks.

        Args:
            ids: [N, T] response tokens, the environment's included.
            written: [N, T] bool, the policy's tokens.
            entropy: [N, T] as of :meth:`chances`.
        """
        alone = self.chances(packed(ids, written), written.sum(1), packed(entropy, written))
        return unpacked(alone, written)

    def check(self, length: int, vocabulary: int) -> None:
        """Checks that the rule can cut a response of at most ``length`` tokens, out of ``vocabulary`` ones.

        Raises:
            UsageError: it never can.
        """


@dataclass(frozen=True)
class Stride(CutRule):
    """Cuts before every so many tokens: 0, ``every``, 2 ``every``, ...

    Args:
        every: tokens between two cuts; 1 cuts before every token.
    """

    every: Count = 8

    def check(self, length: int, vocabulary: int) -> None:
        if self.every >= length:
            raise UsageError(
                f"model.cuts.every is {self.every}: no response has more than {length} tokens (model.max_new_tokens), "
                "so nothing is cut; lower it"
            )

    def chances(self, ids: Tensor, lengths: Tensor, entropy: Tensor) -> Tensor:
        return (_positions(ids) % self.every == 0).to(entropy)


@dataclass(frozen=True)
class Bernoulli(CutRule):
    """Cuts before each token at random, with the same probability.

    Args:
        probability: of a cut before a token.
    """

    probability: SomeShare = 0.1

    def chances(self, ids: Tensor, lengths: Tensor, entropy: Tensor) -> Tensor:
        return torch.full_like(entropy, self.probability)


@dataclass(frozen=True)
class Entropy(CutRule):
    """Cuts where the policy is undecided: where the entropy of pi(. | s_t) is above a threshold.

    Args:
        threshold: in nats.
    """

    threshold: NonNegative = 1.0
    needs_entropy = True

    def check(self, length: int, vocabulary: int) -> None:
        if self.threshold >= math.log(vocabulary):
            raise UsageError(
                f"model.cuts.threshold is {self.threshold}: over {vocabulary} tokens no entropy is above "
                f"{math.log(vocabulary):.4g} nats, so nothing is cut; lower it"
            )

    def chances(self, ids: Tensor, lengths: Tensor, entropy: Tensor) -> Tensor:
        return (entropy > self.threshold).to(entropy)


@dataclass(frozen=True)
class Boundary(CutRule):
    """Cuts behind each of the given tokens; with that of the newline, at VinePPO's reasoning steps (2410.01679).

    Args:
        token_ids: ids of the tokens.
    """

    token_ids: tuple[Whole, ...] = ()

    def __post_init__(self) -> None:
        if not self.token_ids:
            raise UsageError("model.cuts.token_ids is empty; give the ids of the tokens behind which to cut")

    def check(self, length: int, vocabulary: int) -> None:
        if max(self.token_ids) >= vocabulary:
            raise UsageError(
                f"model.cuts.token_ids has {max(self.token_ids)}: the policy's tokens are 0 to {vocabulary - 1}; give "
                "some of these"
            )

    def chances(self, ids: Tensor, lengths: Tensor, entropy: Tensor) -> Tensor:
        behind = torch.isin(ids, torch.tensor(self.token_ids, device=ids.device)).roll(1, 1)
        behind[:, 0] = False
        return behind.to(entropy)


@dataclass(frozen=True)
class Turns(CutRule):
    """Cuts where the policy begins to speak again: before the first token of each of its turns but the first.

    What the environment said is part of the prefix. A response of one turn is not cut.
    """

    def chances(self, ids: Tensor, lengths: Tensor, entropy: Tensor) -> Tensor:
        return torch.zeros_like(entropy)

    def chances_in_turns(self, ids: Tensor, written: Tensor, entropy: Tensor) -> Tensor:
        again = written[:, 1:] & ~written[:, :-1] & (written.cumsum(1)[:, :-1] > 0)
        return torch.cat([torch.zeros_like(again[:, :1]), again], 1).to(entropy)


@dataclass(frozen=True)
class Relative(CutRule):
    """Cuts at fractions j / segments of the finished response: a control, which is biased where lengths vary.

    Whether it cuts at t reveals something about the tokens behind t.

    Args:
        segments: parts of equal length that a response is cut into.
    """

    segments: Several = 4

    def chances(self, ids: Tensor, lengths: Tensor, entropy: Tensor) -> Tensor:
        parts = torch.arange(1, self.segments, device=ids.device)
        at = lengths[:, None] * parts // self.segments
        return (_positions(ids)[:, None] == at[..., None]).any(1).to(entropy)


def cut_positions(cuts: Tensor) -> Tensor:
    """A mask of cuts [N, T] as positions [N, M], ascending, padded with -1; position 0 always is one of them."""
    cuts = cuts.clone()
    cuts[:, 0] = True
    count = cuts.sum(1)
    order = (~cuts).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(count.max())]
    return order.masked_fill(torch.arange(order.shape[1], device=order.device) >= count[:, None], -1)


def _positions(ids: Tensor) -> Tensor:
    return torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
