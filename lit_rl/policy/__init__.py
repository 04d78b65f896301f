"""Policies, critics and reward models: causal language models of transformers, and small ones.

They import nothing that samples or trains them. Begin with ``causal.py``.
"""

from lit_rl.policy.causal import CausalPolicy
from lit_rl.policy.reward_model import RewardModel
from lit_rl.policy.tokens import TabularPolicy, TokenTransformer

__all__ = ["CausalPolicy", "RewardModel", "TabularPolicy", "TokenTransformer"]
