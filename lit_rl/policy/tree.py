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
class Tree:
    """Where the tokens of some rows stand: in ``B`` sequences of ``S`` slots each, numbered 0..BS-1.

    Attention sees ``P`` prompts, padded on the right to ``L`` slots, and ``R`` paths behind prompts, ``T`` slots each.
    """

    input_ids: Tensor  # [B, S]
    position_ids: Tensor  # [B, S]
    states: Tensor  # [n] slots whose outputs predict the chosen tokens, in the order of the mask's rows
    prompts: Tensor  # [P, L] slots
    paths: Tensor  # [R, T] slots
    keys: Tensor  # [R, L + T] slots that a path's tokens see, the later ones of the path among them
    prompt_mask: Tensor  # [R, L] bool, False on the padding of the path's prompt
    back: Tensor  # [BS] where each slot stands in prompts and paths, one behind the other
    layers: int = 0  # that have attended
    _biases: dict[torch.dtype, Tensor] = field(default_factory=dict)

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Attention of every slot to those on its path: [B, heads, S, size] each -> [B, S, heads, size]."""
        self.layers += 1
        shape = query.shape[0], query.shape[2]
        query, key, value = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
        parts = []
        for own, seen, bias in ((self.prompts, self.prompts, None), (self.paths, self.keys, self._bias(query))):
            taken = _at(query, own), _at(key, seen), _at(value, seen)
            parts.append(sdpa_attention_forward(module, *taken, bias, **options)[0])
        return torch.cat([part.flatten(0, 1) for part in parts]).index_select(0, self.back).unflatten(0, shape)

    def _bias(self, query: Tensor) -> Tensor:
        """What scores of paths are raised by: 0 where a token is seen, minus infinity where not: [R, 1, T, L + T]."""
        if query.dtype not in self._biases:
            width = self.paths.shape[1]
            before = self.prompt_mask[:, None].expand(-1, width, -1)
            own = torch.ones(width, width, dtype=torch.bool, device=before.device).tril().expand(len(before), -1, -1)
            seen = torch.cat([before, own], -1)[:, None]
            zeros = torch.zeros_like(seen, dtype=query.dtype)
            self._biases[query.dtype] = zeros.masked_fill_(~seen, -torch.inf)
        return self._biases[query.dtype]


def _at(x: Tensor, slots: Tensor) -> Tensor:
    """[BS, heads, size] at slots [R, K]: [R, heads, K, size]."""
    return x.flatten(1).index_select(0, slots.flatten()).view(*slots.shape, *x.shape[1:]).transpose(1, 2)


def lay_out(rollouts: Rollouts, apart: bool = False) -> Tree:
    """The tree of some rows.

    What rows share is read from ``group``, ``row``, ``origin`` and ``cut``. A stem is the response that rows begin
    with: a sample's own, or that which continuations were forked from, whether its row is among these or not. It is as
    long as any of them takes. Tokens that no chosen token comes after have no slot.

    Args:
        apart: each prompt's tree is a sequence of its own, of as many slots as the largest takes; otherwise all stand
            in one sequence.
    """
    width, length, device = rollouts.mask.shape[1], rollouts.prompt_ids.shape[1], rollouts.mask.device
    used = rollouts.mask.any(1)
    used[0] |= ~used.any()  # something is read even where nothing is asked for
    rows = used.nonzero().squeeze(1)
    numbers, columns = torch.arange(len(rows), device=device), torch.arange(width, device=device)
    mask, ids, cut = rollouts.mask[rows], rollouts.response_ids[rows], rollouts.cut[rows]
    forked = rollouts.origin[rows] >= 0
    end = (mask * columns).amax(1)  # the tokens before the last chosen one

    prompt, first = _representatives(rollouts.group[rows], numbers)
    lengths = rollouts.prompt_mask[rows[first]].sum(1)
    stem, longest = _representatives(
        torch.where(forked, rollouts.origin[rows], rollouts.row[rows]), torch.where(forked, cut, end)
    )
    stem_end = torch.where(forked, cut, end)[longest]
    fork = forked.nonzero().squeeze(1)

    # segments: prompts, stems, branches
    start = torch.cat([stem_end.new_zeros(len(stem_end)), cut[fork]])  # of a path's own tokens, and their end:
    stop = torch.cat([stem_end, end[fork].maximum(cut[fork])])
    path_prompt = torch.cat([prompt[longest], prompt[fork]])
    sizes = torch.cat([lengths, stop - start])
    home = torch.cat([torch.arange(len(first), device=device), path_prompt]) if apart else torch.zeros_like(sizes)
    begin, sequences, slots = _placed(sizes, home, len(first) if apart else 1)
    total = sequences * slots

    behind = torch.arange(length, device=device)
    prompts = begin[: len(first), None] + behind.minimum(lengths[:, None] - 1)
    own = begin[len(first) :, None] + (columns - start[:, None]).clamp(min=0).minimum((stop - start)[:, None] - 1)
    own = own.clamp(0, total - 1)  # of a path without a token
    stems = len(stem_end)
    shared = columns < start[stems:, None]
    paths = torch.cat([own[:stems], torch.where(shared, own[:stems][stem[fork]], own[stems:])])

    placed = [behind < lengths[:, None], (columns >= start[:, None]) & (columns < stop[:, None])]
    place = torch.where(_flat(*placed), _flat(prompts, paths), total)

    def fill(values: Tensor) -> Tensor:
        return values.new_zeros(total + 1).index_put((place,), values)[:total]

    shifted = (behind + length - lengths[:, None]).clamp(max=length - 1)  # prompts are padded on the left
    tokens = _flat(rollouts.prompt_ids[rows[first]].gather(1, shifted), ids[torch.cat([longest, fork])])
    positions = _flat(behind.expand_as(prompts), lengths[path_prompt, None] + columns)
    path = stem.clone()
    path[fork] = stems + torch.arange(len(fork), device=device)
    last = prompts[prompt, -1]  # also of a padded prompt
    before = torch.cat([last[:, None], paths[path, :-1]], 1)
    return Tree(
        input_ids=fill(tokens).view(sequences, slots),
        position_ids=fill(positions).view(sequences, slots),
        states=before[mask],
        prompts=prompts,
        paths=paths,
        keys=torch.cat([prompts[path_prompt], paths], 1),
        prompt_mask=placed[0][path_prompt],
        back=fill(torch.arange(len(place), device=device)),
    )


def _representatives(keys: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """The number of each key [n] among the different ones, and for each of these the first row of the largest size."""
    values, number = keys.unique(return_inverse=True)
    most = sizes.new_zeros(len(values)).scatter_reduce(0, number, sizes, "amax")
    rows = torch.arange(len(keys), device=keys.device)
    candidates = torch.where(sizes == most[number], rows, len(rows))
    return number, torch.full_like(most, len(rows)).scatter_reduce(0, number, candidates, "amin")


def _placed(sizes: Tensor, home: Tensor, sequences: int) -> tuple[Tensor, int, int]:
    """The first slot of each segment, by the sequence that is its home; how many sequences, and slots of each."""
    totals = sizes.new_zeros(sequences).scatter_add(0, home, sizes)
    slots = int(totals.max())
    order = home.argsort(stable=True)
    inside = sizes[order].cumsum(0) - sizes[order] - (totals.cumsum(0) - totals)[home[order]]
    begin = torch.empty_like(sizes).index_put((order,), inside + home[order] * slots)
    return begin, sequences, slots


def _flat(*parts: Tensor) -> Tensor:
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
