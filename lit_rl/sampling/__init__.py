"""Sampling: the only place that generates."""

from lit_rl.sampling.base import Progress, Sampler, SamplingPlan, check_length
from lit_rl.sampling.demonstrations import demonstrate
from lit_rl.sampling.local import LocalSampler

__all__ = ["LocalSampler", "Progress", "Sampler", "SamplingPlan", "check_length", "demonstrate"]
