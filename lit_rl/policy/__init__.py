"""Policies, and the model that scores what they say."""

from lit_rl.policy.causal import CausalPolicy
from lit_rl.policy.reward_model import RewardModel
from lit_rl.policy.tokens import TabularPolicy, TokenTransformer

__all__ = ["CausalPolicy", "RewardModel", "TabularPolicy", "TokenTransformer"]
