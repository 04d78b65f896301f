"""Response-level and token-level credit for reinforcement learning of language models."""
