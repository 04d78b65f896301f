"""Low-rank adapters (2106.09685), by peft."""

import copy
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_rl.errors import UsageError


def add_adapters(model: PreTrainedModel, rank: int, alpha: int) -> None:
    """Freezes the model, and adds adapters of scale ``alpha / rank`` to all its linear layers but the last.

    They start at 0, with PyTorch's global seed.

    Raises:
        UsageError: peft is not installed, or too old for transformers.
    """
    try:
        from peft import LoraConfig  # optional

        model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear"))
    except (ImportError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"model.policy.lora_rank takes peft ({reason}); pip install 'lit-rl[lora]', or leave it 0"
        ) from None


class AdaptersOff(nn.Module):
    """The model that the adapters were added to, from the very same weights."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.config = model.config

    def forward(self, **kwargs: Any) -> Any:
        self.model.disable_adapters()
        try:
            return self.model(**kwargs)
        finally:
            self.model.enable_adapters()


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """A copy without adapters, whose weights have taken up what they add."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    whole = copy.deepcopy(model)
    for name, layer in list(whole.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            whole.set_submodule(name, layer.get_base_layer())
    whole._hf_peft_config_loaded = False
    return whole


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters by the names that it has without adapters, which are merged in; tied ones have two names.

    The model stays as it is, and what has no adapter is not copied.
    """
    named = model.named_parameters(remove_duplicate=False)
    weights = {name: each.detach() for name, each in named if ".lora_" not in name}
    for name, layer in model.named_modules():
        for adapter in getattr(layer, "active_adapters", ()) if hasattr(layer, "get_delta_weight") else ():
            base = f"{name}.base_layer.weight"
            weights[base] = weights[base] + layer.get_delta_weight(adapter).detach()
    return {name.replace(".base_layer.", "."): each for name, each in weights.items()}
