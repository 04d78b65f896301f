"""From prompts to responses to micro-batches: the sampling phase of an iteration.

It may import algorithms, the callbacks' progress and what stands below them, but no command line. Begin with
``module.py``.
"""

from lit_rl.data.module import TRAINER_DEFAULTS, RolloutDataModule

__all__ = ["TRAINER_DEFAULTS", "RolloutDataModule"]
