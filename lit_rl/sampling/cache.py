"""A KV cache with room to grow, whose rows may change places and stay behind when they are done."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class RoomyLayer(DynamicLayer):
    """Keys and values [rows, heads, slots, size], views of tensors with more slots and, perhaps, more rows.

    A step writes its slot where there is room for it, and copies nothing. ``DynamicLayer`` copies all slots each step.

    Args:
        sliding_window: of the model's attention; kept for the mask alone, no slot is forgotten.
        keep: rows that leave the view stay behind it.
    """

    keys: Any  # Tensor, once there is one
    values: Any

    def __init__(self, sliding_window: int | None, keep: bool) -> None:
        super().__init__()
        self.sliding_window, self.keep = sliding_window, keep
        self._stride = 1  # of the rows in view, among all
        self._slot: Tensor | None = None  # where a step writes while slots are held

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        key_states, value_states = (_as_attended(x) for x in (key_states, value_states))
        if self._slot is not None:
            self.keys.index_copy_(2, self._slot, key_states)
            self.values.index_copy_(2, self._slot, value_states)
            return self.keys, self.values
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._place([key_states, value_states], len(key_states), key_states.shape[2])
            return self.keys, self.values
        start = self.keys.shape[2]
        self._grow(key_states.shape[2])
        self.keys[:, :, start:].copy_(key_states)
        self.values[:, :, start:].copy_(value_states)
        return self.keys, self.values

    def hold(self, slots: int, slot: Tensor) -> None:
        """Shows so many more ``slots``, zeros, of which each step writes the one that ``slot`` [1] says."""
        start = self.keys.shape[2]
        self._grow(slots)
        self.keys[:, :, start:].zero_()
        self.values[:, :, start:].zero_()
        self._slot = slot

    def release(self) -> None:
        """Steps write behind what is shown again."""
        self._slot = None

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.is_initialized:
            rows, slots = self.keys.shape[::2]
            parts = [_roomy(part, repeats, slots + 1) for part in (self.keys, self.values)]
            self._place(parts, rows * repeats, slots)

    def leave(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        """Shows the first ``rows`` alone, after ``movers`` [n] have taken the places of ``holes`` [n]."""
        slots = self.keys.shape[2]
        for whole in (self._all_keys[:, :, :slots], self._all_values[:, :, :slots]):
            done = whole[holes] if self.keep else None
            whole[holes] = whole[movers]
            if done is not None:
                whole[movers] = done
        self._show(rows, slots)

    def clear(self, mask: Tensor) -> None:
        """Zeros where the ``mask`` [rows, slots] of the rows in view is false, which may never have been written."""
        for part in (self.keys, self.values):
            part.masked_fill_(~mask[:, None, :, None], 0)

    def fork(self, which: Tensor, mask: Tensor, copies: int, keep: bool) -> "RoomyLayer":
        """See :meth:`RowCache.fork`."""
        forked = RoomyLayer(self.sliding_window, keep)
        forked.lazy_initialization(self._all_keys, self._all_values)
        forked._stride = copies
        slots, behind = mask.shape[1], ~mask[:, None, :, None]
        # slots of rows that left early were never written, and what is masked has to be finite nevertheless
        parts = (whole[which, :, :slots].masked_fill_(behind, 0) for whole in (self._all_keys, self._all_values))
        forked._place([_roomy(part, copies, slots + 1) for part in parts], len(which), slots)
        return forked

    def spread(self, since: int) -> None:
        """Shows all copies of a fork, after each has got the slots that were filled in the one in view."""
        rows, slots = self.keys.shape[::2]
        for whole in (self._all_keys, self._all_values):
            new = whole[:, :, since:slots].unflatten(0, (rows, self._stride))
            new[:, 1:] = new[:, :1]
        rows, self._stride = rows * self._stride, 1
        self._show(rows, slots)

    def _grow(self, slots: int) -> None:
        """Shows so many more slots, whatever is in them."""
        rows, start = self.keys.shape[::2]
        end = start + slots
        if end > self._all_keys.shape[2]:
            kept = len(self._all_keys) if self.keep else rows * self._stride
            parts = self._all_keys[:kept, :, :start], self._all_values[:kept, :, :start]
            self._place([_roomy(part, 1, end) for part in parts], rows, start)
        self._show(rows, end)

    def _place(self, parts: Sequence[Tensor], rows: int, slots: int) -> None:
        self._all_keys, self._all_values = parts
        self._show(rows, slots)

    def _show(self, rows: int, slots: int) -> None:
        parts = (x[: rows * self._stride : self._stride] for x in (self._all_keys, self._all_values))
        self.keys, self.values = (x.narrow(2, 0, slots) for x in parts)


def _as_attended(states: Tensor) -> Tensor:
    """In the precision that autocast gives attention's products; kept otherwise, all of it would be cast each step."""
    kind = states.device.type
    cast = states.dtype == torch.float32 and torch.is_autocast_enabled(kind)
    return states.to(torch.get_autocast_dtype(kind)) if cast else states


def _roomy(states: Tensor, repeats: int, least: int) -> Tensor:
    """Rows [n, heads, slots, size], each so many times, with room for a quarter more slots than are needed."""
    rows, heads, slots, size = states.shape
    room = states.new_empty(rows * repeats, heads, room_of(least), size)
    room.unflatten(0, (rows, repeats))[..., :slots, :] = states[:, None]
    return room


def room_of(slots: int) -> int:
    """The slots that there is room for where so many are needed."""
    return slots + slots // 4 + 8


class RowCache(DynamicCache):
    """``DynamicCache`` with layers that have room. A kind of layer that is not attention's stays what it is.

    Args:
        config: of the model.
        keep: rows that leave can still be copied.
    """

    layers: Any  # a list of them

    def __init__(self, config: Any, keep: bool = False) -> None:
        super().__init__(config=config)
        self._config, self._forked = config, 0
        attention = (DynamicLayer, DynamicSlidingWindowLayer)
        self.layers = [
            RoomyLayer(getattr(layer, "sliding_window", None), keep) if type(layer) in attention else layer
            for layer in self.layers
        ]

    def leave(self, alive: Tensor) -> Tensor:
        """Keeps the rows that are ``alive`` [rows] in view; returns the order [rows] in which rows now stand."""
        count = int(alive.sum())
        order = torch.arange(len(alive), device=alive.device)
        holes, movers = (~alive[:count]).nonzero().squeeze(1), alive[count:].nonzero().squeeze(1) + count
        order[holes], order[movers] = movers, holes
        for layer in self._filled:
            if isinstance(layer, RoomyLayer):
                layer.leave(holes, movers, count)
            else:
                layer.batch_select_indices(order[:count])
        return order

    def bring_back(self, which: Tensor, mask: Tensor) -> Tensor:
        """Shows the rows ``which`` [B] bool alone, of all there are; returns the order [B] in which rows now stand.

        Rows that leave must be kept, and the cache :attr:`cuttable`.

        Args:
            mask: [B, slots] the slots of each row; the others become zeros.
        """
        order = self.leave(which)
        for layer in self._filled:
            layer.clear(mask[order[: int(which.sum())]])
        return order

    def fork(self, which: Tensor, mask: Tensor, copies: int, keep: bool = False) -> "RowCache":
        """Prefixes of rows ``which`` [F], of those that have left too; :meth:`spread` makes ``copies`` rows of each.

        The cache must be :attr:`cuttable`.

        Args:
            mask: [F, slots] the slots of each prefix; the others are zeros.
            keep: rows of the fork that leave can be brought back.
        """
        forked = RowCache(self._config)
        forked.layers = [
            each.fork(which, mask, copies, keep) if isinstance(each, RoomyLayer) and each.is_initialized else each
            for each in self.layers
        ]
        forked._forked = mask.shape[1]
        return forked

    def spread(self) -> None:
        """Shows all copies that :meth:`fork` made room for, with the slots filled since then."""
        for layer in self._filled:
            layer.spread(self._forked)

    @contextmanager
    def held(self, slots: int, slot: Tensor) -> Iterator[None]:
        """Within, the cache shows so many more slots, and a step writes the one that ``slot`` [1] says."""
        for layer in self._filled:
            layer.hold(slots, slot)
        try:
            yield
        finally:
            for layer in self._filled:
                layer.release()

    @property
    def cuttable(self) -> bool:
        """Whether keys and values are all that the layers remember, each in a slot of its own."""
        return all(isinstance(layer, RoomyLayer) for layer in self._filled)

    @property
    def slots(self) -> int:
        """Slots that attention's layers show."""
        return max((each.keys.shape[2] for each in self._filled if isinstance(each, RoomyLayer)), default=0)

    @property
    def window(self) -> int:
        """Slots that the model's attention reaches back over."""
        return min((getattr(each, "sliding_window", None) or sys.maxsize for each in self.layers), default=sys.maxsize)

    @property
    def _filled(self) -> list[Any]:
        return [layer for layer in self.layers if layer.is_initialized]  # some models share a layer's with the next


def bytes_a_slot(config: Any, element: int) -> int:
    """What a token of a row takes in a model's cache: its keys and values in all layers.

    Args:
        element: bytes of a number.
    """
    text = config.get_text_config(decoder=True)
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return 2 * text.num_hidden_layers * heads * size * element
