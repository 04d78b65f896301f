"""Policies."""

from lit_rl.policy.causal import CausalPolicy
from lit_rl.policy.tokens import TabularPolicy, TokenTransformer

__all__ = ["CausalPolicy", "TabularPolicy", "TokenTransformer"]
