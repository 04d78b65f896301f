"""The critic: predicts the values of prefixes, by a linear head on a causal model."""

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_rl.policy.causal import CausalPolicy, states
from lit_rl.rollouts import Rollouts

Trunk = Literal["copy", "shared"]


class Critic(nn.Module):
    """V(s_t) = w . h(s_t) + b, where h is the last hidden state of a causal model before token t. It starts at V = 0.

    Args:
        policy: whose model, without its language head, is the trunk.
        trunk: ``copy`` trains a copy of it, which doubles the memory. ``shared`` has only the head, and is given the
            policy's hidden states.
    """

    def __init__(self, policy: CausalPolicy, trunk: Trunk = "copy") -> None:
        super().__init__()
        base: Any = policy.model.base_model
        self.trunk = copy.deepcopy(base) if trunk == "copy" else None
        self.head = nn.Linear(base.config.hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, rollouts: Rollouts) -> Tensor:
        """V(s_t) of responses, by the critic's own trunk: [N, T] float32, 0 where the mask is."""
        assert self.trunk is not None, "a shared trunk's hidden states go to `read`"
        return self.read(states(self.trunk, rollouts), rollouts)

    def read(self, states: Tensor, rollouts: Rollouts) -> Tensor:
        """V(s_t) from hidden states [N, T, H]: [N, T], 0 where the mask is."""
        with torch.autocast(states.device.type, enabled=False):  # in half precision a value would have three digits
            return self.head(states.to(self.head.weight.dtype)).squeeze(-1) * rollouts.mask
