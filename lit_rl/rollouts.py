"""The one data structure that flows: scored responses, as a table of rows.

Notation, used everywhere: ``P`` prompts, ``G`` samples a prompt, ``N`` rows, ``L`` prompt tokens (padded on the left),
``T`` response tokens (padded on the right), ``V`` vocabulary, ``M`` cuts a response, ``K`` continuations a cut.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class Rollouts:
    """N responses to P prompts. Every tensor has N rows; the writer of each optional field is named beside it.

    A row with ``trained = False`` is a probe: scored, but in no loss. ReMax's greedy response is one, and so are
    TRePO's continuations unless they are reused. A continuation holds the whole response, so that it is scored like any
    other; its mask is False on the prefix.

    In a response of several turns, an environment speaks in between. Its tokens lie in ``response_ids`` in order, count
    in ``lengths``, and are not in the mask: mask = filled & ~spoken & (behind the inherited prefix).
    """

    prompt_ids: Tensor  # [N, L]
    prompt_mask: Tensor  # [N, L] bool, False on the padding
    response_ids: Tensor  # [N, T]
    lengths: Tensor  # [N] response tokens, EOS and the environment's included
    mask: Tensor  # [N, T] bool: the response tokens that the policy chose; made from lengths, never from token values
    group: Tensor  # [N] index of the row's prompt, 0..P-1
    origin: Tensor  # [N] row of the whole table that a continuation was forked from, -1 for a response of its own
    cut: Tensor  # [N] tokens of the prefix that a continuation inherits, 0 for a response of its own
    trained: Tensor  # [N] bool
    truncated: Tensor  # [N] bool: ended by a limit, not by EOS or the environment
    examples: list[dict[str, Any]]  # one per prompt
    spoken: Tensor | None = None  # [N, T] bool, sampler: the environment's tokens; None where nobody speaks in between
    cuts: Tensor | None = None  # [N, T] bool, sampler: where the plan's rule cuts the row (forked there, if origin < 0)
    prefilled: int = 0  # tokens that were fed to the model without having just been sampled, sampler
    # [N, T], sampler: log-probabilities by which an engine of its own has drawn; None where the trainer's weights did
    sampler_logprobs: Tensor | None = None
    held: int | None = None  # tokens of an engine's requests that its prefix cache held, sampler
    left_out: Tensor | None = None  # [N] bool, Algorithm.prepare: samples that were no probes, and are not trained on
    one_step: bool = False  # all trained rows are in one optimizer step, of the weights that sampled, data module
    version: int = 0  # optimizer steps the sampling weights had taken
    rewards: Tensor | None = None  # [N], RewardCallback
    # [N, T], sampler: what the environment paid for a turn, at the turn's last chosen token; an inherited prefix's too
    turn_rewards: Tensor | None = None
    token_rewards: Tensor | None = None  # [N, T], Algorithm.prepare: what tokens earn beside the reward
    old_logprobs: Tensor | None = None  # [N, T], Algorithm.prepare: log pi of the weights that sampled
    reference_logprobs: Tensor | None = None  # [N, T], Algorithm.prepare
    entropy: Tensor | None = None  # [N, T], Algorithm.prepare
    advantages: Tensor | None = None  # [N, T], Algorithm.prepare
    values: Tensor | None = None  # [N, T], PPO.prepare: the critic's V(s_t) of the weights that sampled
    value_targets: Tensor | None = None  # [N, T], PPO.prepare: the returns that the critic is fitted to
    score_norms: Tensor | None = None  # [N, T], OptimalBaseline.prepare: |1[a_t] - pi(. | s_t)|^2
    window_tokens: float | None = None  # mean response tokens a row over one optimizer step and all ranks, data module
    padded: float = 1.0  # rows of a micro-batch's iteration, fill-ups included, over real ones, data module
    together: Sequence[Tensor] | None = None  # numbers of trained rows, of a pass's micro-batches, data module
    row: Any = None  # [N] the row's number in the whole table, what `origin` counts; made here

    def __post_init__(self) -> None:
        if self.row is None:
            self.row = torch.arange(len(self), device=self.response_ids.device)

    def __len__(self) -> int:
        return len(self.response_ids)

    @property
    def sampled(self) -> Tensor:
        """True for the responses sampled from their prompt, independent of each other; probes are none of them: [N]."""
        own = self.trained if self.left_out is None else self.trained | self.left_out
        return own & (self.origin < 0)

    @property
    def prefix_hits(self) -> float | None:
        """The share of the tokens in an engine's requests that its prefix cache held."""
        return None if self.held is None else self.held / (self.held + self.prefilled)

    @property
    def filled(self) -> Tensor:
        """True where the response has a token at all: [N, T]."""
        return response_mask(self.lengths, self.response_ids.shape[1])

    @property
    def written(self) -> Tensor:
        """True on the policy's tokens, those of an inherited prefix included: [N, T]."""
        return self.filled if self.spoken is None else self.filled & ~self.spoken

    def select(self, rows: Tensor) -> "Rollouts":
        """The given rows (indices or a boolean mask) as a table; ``group`` and ``origin`` count in the whole one."""
        return replace(self._map(lambda tensor: tensor[rows]), together=None)

    def read_together(self, needed: Tensor, rows: int) -> Iterator[Tensor]:
        """The rows that are ``needed`` [N], a part after the other, those that are trained among them.

        Micro-batches of training are parts, so that the loss reads the same rows together and finds the same numbers;
        of other rows, those of a group stand together, so many in a part.
        """
        order = self.group.argsort(stable=True)
        if self.together is not None:
            trained = self.trained.nonzero().squeeze(1)
            yield from (trained[part[part >= 0].to(trained.device)] for part in self.together if (part >= 0).any())
            needed = needed & ~self.trained
        others = order[needed[order]]
        yield from others.split(rows) if len(others) else ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Rollouts":
        """The same table on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _map(self, function: Any) -> "Rollouts":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: function(v) for name, v in values.items() if isinstance(v, Tensor)})


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Ids [N, L] with the padding on the left, and the mask of what is no padding (bool)."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    return ids, response_mask(torch.tensor([len(row) for row in rows]), width).flip(1)


def response_mask(lengths: Tensor, width: int) -> Tensor:
    """True on the first ``lengths[i]`` of ``width`` columns: [N] -> [N, width]."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]
