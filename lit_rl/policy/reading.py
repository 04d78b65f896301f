"""A causal model's reading of rollouts: what it says of each token that the policy chose."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from lit_rl.policy.tree import NAME, Tree, lay_out
from lit_rl.rollouts import Rollouts, pad_left, response_mask

# with a mask, at some lengths, the gradients of cuDNN's attention are NaN (pytorch/pytorch#196678); the others' are not
torch.backends.cuda.enable_cudnn_sdp(False)
_takes: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()  # models without their heads


def read(model: nn.Module, rollouts: Rollouts, states: bool = False, apart: bool = False) -> tuple[Tensor, Tensor]:
    """The logits of pi(. | s_t) for the n tokens of the mask, row by row, and the last hidden states of these s_t.

    Prompts, and prefixes that continuations share, are read once, where the model allows it (:func:`takes_tree`). A
    row's numbers depend on the rows that are read with it by rounding alone; with the same rows they are the same.

    Args:
        states: hidden states are asked for.
        apart: each group stands in a sequence of its own, in the order of their numbers, and the logits of all its
            tokens are computed.

    Returns:
        [n, V] and [n, H]; without ``states`` the second is empty.
    """
    if not takes_tree(model):
        width = rollouts.response_ids.shape[1]
        options = {"logits_to_keep": width + 1, "output_hidden_states": states}
        out = model(**whole_inputs(rollouts), use_cache=False, **options)
        hidden = out.hidden_states[-1] if states else out.logits[..., :0]
        return _before(out.logits, rollouts), _before(hidden, rollouts)
    tree = lay_out(rollouts, apart)
    keep = {} if apart else {"logits_to_keep": tree.states}
    out = model(**_inputs(tree), output_hidden_states=states, **keep)
    logits = out.logits.flatten(0, 1)
    logits = logits[tree.states] if apart else logits
    return logits, out.hidden_states[-1].flatten(0, 1)[tree.states] if states else logits[:, :0]


def read_states(base: nn.Module, rollouts: Rollouts) -> Tensor:
    """The last hidden states [n, H] of :func:`read`, by a model without its head."""
    if not takes_tree(base):
        return _before(base(**whole_inputs(rollouts), use_cache=False).last_hidden_state, rollouts)
    tree = lay_out(rollouts)
    return base(**_inputs(tree)).last_hidden_state.flatten(0, 1)[tree.states]


def on_table(values: Tensor, mask: Tensor) -> Tensor:
    """Values [n, ...] of the mask's tokens as a table [N, T, ...], 0 outside the mask."""
    return values.new_zeros(*mask.shape, *values.shape[1:]).index_put((mask,), values)


def _before(x: Tensor, rollouts: Rollouts) -> Tensor:
    """What stands before the chosen tokens: [N, tokens, ...] of whole rows -> [n, ...]."""
    return x[:, -rollouts.mask.shape[1] - 1 : -1][rollouts.mask]


def _inputs(tree: Tree) -> dict[str, Any]:
    unused = torch.empty(1, 1, 1, 1, device=tree.input_ids.device)  # models make no mask where one has four dimensions
    ids = {"input_ids": tree.input_ids, "position_ids": tree.position_ids}
    return {**ids, "attention_mask": unused, "tree": tree, "use_cache": False}


def takes_tree(model: nn.Module) -> bool:
    """Whether a model can read trees: found out once, by reading a small one.

    That takes a model of transformers with PyTorch's attention, all of whose layers see all tokens before. Trees are
    then known to its attention for good.
    """
    plain: Any = next((each for each in model.modules() if isinstance(each, PreTrainedModel)), None)
    if plain is None:
        return False
    base = plain.base_model
    if base not in _takes:
        _takes[base] = _reads_trees(model, plain)
    return _takes[base]


def may_take_tree(config: Any) -> bool:
    """Whether a model with that config is worth a try: it has PyTorch's attention, over all tokens before."""
    layers: Any = DynamicCache(config=config).layers
    return config._attn_implementation in ("sdpa", NAME) and all(type(layer) is DynamicLayer for layer in layers)


@torch.no_grad()
def _reads_trees(model: Any, plain: PreTrainedModel) -> bool:
    config: Any = plain.config
    if not may_take_tree(config):
        return False
    rollouts = _small(int(config.get_text_config(decoder=True).vocab_size)).to(plain.device)
    tree = lay_out(rollouts)
    plain.set_attn_implementation(NAME)
    try:
        with torch.autocast(plain.device.type, enabled=False):
            ours = model(**_inputs(tree))[0].flatten(0, 1)[tree.states].float()
            rows = _before(model(**whole_inputs(rollouts), use_cache=False)[0], rollouts).float()
    except (RuntimeError, TypeError, ValueError):  # of an attention that takes other arguments
        right = False
    else:
        error = max(0.01, torch.finfo(plain.dtype).eps ** 0.5)
        right = bool((ours - rows).abs().max() <= error * rows.abs().max())
    if not right or tree.layers != config.get_text_config(decoder=True).num_hidden_layers:
        plain.set_attn_implementation("sdpa")
        return False
    return True


def _small(vocabulary: int) -> Rollouts:
    """Two responses to one prompt and one to another, and a continuation of the second."""
    prompt_ids, prompt_mask = pad_left([[1, 0, 1], [1, 0, 1], [0, 1], [1, 0, 1]], 0)
    lengths, cut = torch.tensor([4, 3, 4, 4]), torch.tensor([0, 0, 0, 2])
    response_ids = torch.arange(16).view(4, 4) % vocabulary
    response_ids[3, :2] = response_ids[1, :2]
    return Rollouts(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        response_ids=response_ids,
        lengths=lengths,
        mask=response_mask(lengths, 4) & ~response_mask(cut, 4),
        group=torch.tensor([0, 0, 1, 0]),
        origin=torch.tensor([-1, -1, -1, 1]),
        cut=cut,
        trained=torch.ones(4, dtype=torch.bool),
        truncated=torch.zeros(4, dtype=torch.bool),
        examples=[{}, {}],
    )


def whole_inputs(rollouts: Rollouts) -> dict[str, Tensor]:
    """What a transformers model takes to read prompts and responses whole, each row for itself."""
    mask = torch.cat([rollouts.prompt_mask, rollouts.filled], 1).long()
    return {
        "input_ids": torch.cat([rollouts.prompt_ids, rollouts.response_ids], 1),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }
