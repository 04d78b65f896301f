"""Rows of rollouts as one tree a prompt, in which each token stands once, and the attention of such trees.

A prompt is shared by its responses, and a prefix by the continuations of it. Layers that work token by token see every
token once. Attention sees the rows: queries, keys and values are copied to where they are seen from.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lit_rl.rollouts import Rollouts

NAME = "lit_rl_tree"


@dataclass
class Part:
    """Sequences that attention sees: ``R`` of them, with slots of ``Q`` queries and ``K`` keys each."""

    queries: Tensor  # [R, Q] slots
    keys: Tensor  # [R, K] slots
    seen: Tensor | None  # [R, Q, K] bool: which keys a query sees; None if all up to its own place


@dataclass
class Tree:
    """Where the tokens of some rows stand: in ``B`` sequences of ``S`` slots each, numbered 0..BS-1."""

    input_ids: Tensor  # [B, S]
    position_ids: Tensor  # [B, S]
    states: Tensor  # [n] slots whose outputs predict the chosen tokens, in the order of the mask's rows
    parts: list[Part]
    back: Tensor  # [BS] where each slot stands among the parts' queries, one part behind the other
    layers: int = 0  # that have attended
    _biases: dict[torch.dtype, list[Tensor | None]] = field(default_factory=dict)

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Attention of every slot to those on its path: [B, heads, S, size] each -> [B, S, heads, size]."""
        self.layers += 1
        shape = query.shape[0], query.shape[2]
        query, key, value = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
        out = []
        for part, bias in zip(self.parts, self._bias(query.dtype), strict=True):
            taken = _at(query, part.queries), _at(key, part.keys), _at(value, part.keys)
            out.append(sdpa_attention_forward(module, *taken, bias, **options)[0].flatten(0, 1))
        return torch.cat(out).index_select(0, self.back).unflatten(0, shape)

    def _bias(self, dtype: torch.dtype) -> list[Tensor | None]:
        """What scores are raised by: 0 where a key is seen, minus infinity where not."""
        if dtype not in self._biases:
            self._biases[dtype] = [
                None
                if part.seen is None
                else torch.zeros_like(part.seen, dtype=dtype).masked_fill_(~part.seen, -torch.inf)[:, None]
                for part in self.parts
            ]
        return self._biases[dtype]


def _at(x: Tensor, slots: Tensor) -> Tensor:
    """[BS, heads, size] at slots [R, K]: [R, heads, K, size]."""
    return x.flatten(1).index_select(0, slots.flatten()).view(*slots.shape, *x.shape[1:]).transpose(1, 2)


def lay_out(rollouts: Rollouts, apart: bool = False) -> Tree:
    """The tree of some rows.

    What rows share is read from ``group``, ``row``, ``origin`` and ``cut``. A stem is the response that rows begin
    with: a sample's own, or that which continuations were forked from, whether its row is among these or not. It is as
    long as any of them takes. A branch is what a continuation goes on with. Tokens that no chosen token comes after
    have no slot.

    Args:
        apart: each prompt's tree is a sequence of its own, of as many slots as the largest takes; otherwise all stand
            in one sequence.
    """
    used = rollouts.mask.any(1)
    used[0] |= ~used.any()  # something is read even where nothing is asked for
    rows = used.nonzero().squeeze(1)
    mask, ids, cut, origin = (x[rows] for x in (rollouts.mask, rollouts.response_ids, rollouts.cut, rollouts.origin))
    device, forked = mask.device, origin >= 0
    end = (mask * torch.arange(mask.shape[1], device=device)).amax(1)  # the tokens before the last chosen one
    shared = torch.where(forked, cut, end)

    prompt, first = _representatives(rollouts.group[rows], torch.zeros_like(rows))
    stem, longest = _representatives(torch.where(forked, origin, rollouts.row[rows]), shared)
    fork = forked.nonzero().squeeze(1)
    lengths = rollouts.prompt_mask[rows[first]].sum(1)
    sizes = lengths, shared[longest], (end - cut)[fork].clamp(min=0)
    trees = torch.arange(len(first), device=device), prompt[longest], prompt[fork]

    home = torch.cat(trees) if apart else torch.zeros(sum(map(len, trees)), dtype=torch.long, device=device)
    begins, total = _placed(torch.cat(sizes), home, len(first) if apart else 1)
    begin = begins.split([len(each) for each in sizes])

    def slots(kind: int, columns: Tensor) -> Tensor:
        """Of segments, at the columns [width] or [segments, width] of each; what lies outside is one of their own."""
        inside = columns.clamp(min=0).minimum(sizes[kind][:, None] - 1)
        return (begin[kind][:, None] + inside).clamp(0, total - 1)  # a segment may be empty

    behind = torch.arange(int(lengths.max()), device=device)
    columns = torch.arange(max(1, int(shared.maximum(end).max())), device=device)
    prompts, stems = slots(0, behind), slots(1, columns)
    before = behind < lengths[:, None]
    stem_seen = [before[trees[1], None].expand(-1, len(columns), -1), (columns <= columns[:, None])[None]]
    parts = [Part(prompts, prompts, None), Part(stems, torch.cat([prompts[trees[1]], stems], 1), _seen(*stem_seen))]
    paths = stems[stem]
    shift = rollouts.prompt_ids.shape[1] - lengths[:, None]  # prompts are padded on the left
    tokens = [_gather(rollouts.prompt_ids[rows[first]], shift + behind), ids[longest][:, : len(columns)]]
    positions = [behind.expand_as(prompts), lengths[trees[1], None] + columns]
    filled = [before, columns < sizes[1][:, None]]
    if len(fork):
        own = torch.arange(max(1, int(sizes[2].max())), device=device)
        at = cut[fork, None] + own
        paths[fork] = torch.where(columns < cut[fork, None], paths[fork], slots(2, columns - cut[fork, None]))
        branch_seen = before[trees[2], None].expand(-1, len(own), -1), columns <= at[..., None]
        parts.append(Part(slots(2, own), torch.cat([prompts[trees[2]], paths[fork]], 1), _seen(*branch_seen)))
        tokens.append(_gather(ids[fork], at))
        positions.append(lengths[trees[2], None] + at)
        filled.append(own < sizes[2][:, None])
    place = torch.where(_flat(filled), _flat([part.queries for part in parts]), total)

    def fill(values: Tensor) -> Tensor:
        return values.new_zeros(total + 1).index_put((place,), values)[:total]

    sequences = len(first) if apart else 1
    predicting = torch.cat([prompts[prompt, -1:], paths], 1)[:, : mask.shape[1]]  # before token 0 stands the prompt
    return Tree(
        input_ids=fill(_flat(tokens)).view(sequences, -1),
        position_ids=fill(_flat(positions)).view(sequences, -1),
        states=predicting[mask[:, : predicting.shape[1]]],
        parts=parts,
        back=fill(torch.arange(len(place), device=device)),
    )


def _representatives(keys: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """The number of each key [n] among the different ones, and for each of these the first row of the largest size."""
    values, number = keys.unique(return_inverse=True)
    most = sizes.new_zeros(len(values)).scatter_reduce(0, number, sizes, "amax")
    rows = torch.arange(len(keys), device=keys.device)
    candidates = torch.where(sizes == most[number], rows, len(rows))
    return number, torch.full_like(most, len(rows)).scatter_reduce(0, number, candidates, "amin")


def _placed(sizes: Tensor, home: Tensor, sequences: int) -> tuple[Tensor, int]:
    """The first slot of each segment, by the sequence that is its home, and how many slots there are."""
    totals = sizes.new_zeros(sequences).scatter_add(0, home, sizes)
    slots = int(totals.max())
    order = home.argsort(stable=True)
    inside = sizes[order].cumsum(0) - sizes[order] - (totals.cumsum(0) - totals)[home[order]]
    return torch.empty_like(sizes).index_put((order,), inside + home[order] * slots), sequences * slots


def _gather(ids: Tensor, columns: Tensor) -> Tensor:
    """Row i's ids at its own columns, those behind the last one clamped."""
    return ids.gather(1, columns.clamp(max=ids.shape[1] - 1))


def _seen(prompt: Tensor, own: Tensor) -> Tensor:
    """Which keys of the prompt [R, Q, L] and of the path [R or 1, Q, T] a query sees."""
    return torch.cat([prompt, own.expand(len(prompt), -1, -1)], -1)


def _flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    tree: Tree | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: with a tree, its attention, and PyTorch's kernel as it is without one."""
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return tree.attend(module, query, key, value, **options), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
