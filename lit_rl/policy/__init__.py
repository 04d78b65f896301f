"""Policies."""

from lit_rl.policy.causal import CausalPolicy

__all__ = ["CausalPolicy"]
