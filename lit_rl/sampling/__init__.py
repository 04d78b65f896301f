"""Sampling: the only place that generates tokens.

It imports the policy and the cut rules of ``functional``; it knows no task and no algorithm. Begin with ``base.py``,
then read ``local.py``.
"""

from lit_rl.sampling.base import Progress, Sampler, SamplingPlan, check_environments, check_length, positions
from lit_rl.sampling.demonstrations import demonstrate
from lit_rl.sampling.local import LocalSampler
from lit_rl.sampling.vllm import VLLM

__all__ = [
    "VLLM",
    "LocalSampler",
    "Progress",
    "Sampler",
    "SamplingPlan",
    "check_environments",
    "check_length",
    "demonstrate",
    "positions",
]
