"""From prompts to rollouts to micro-batches: the phase of an iteration that samples.

It takes algorithms, callbacks' progress and what stands below them, and no command line. Begin with ``module.py``.
"""

from lit_rl.data.module import TRAINER_DEFAULTS, RolloutDataModule

__all__ = ["TRAINER_DEFAULTS", "RolloutDataModule"]
