"""What happens beside training: scoring, checkpoints, and observers, which change neither weights nor random numbers.

They may import algorithms, the oracle and what stands below them, but not the data module. Begin with ``reward.py``.
"""

from lit_rl.callbacks.budget import Budget
from lit_rl.callbacks.checkpoint import IterationCheckpoint
from lit_rl.callbacks.credit import Credit
from lit_rl.callbacks.diagnostics import Diagnostics
from lit_rl.callbacks.gradient_variance import GradientVariance
from lit_rl.callbacks.interruption import Interruption
from lit_rl.callbacks.memory import Memory
from lit_rl.callbacks.progress import IterationProgress
from lit_rl.callbacks.reward import RewardCallback
from lit_rl.callbacks.transcripts import Transcripts
from lit_rl.callbacks.value_accuracy import ValueAccuracy

__all__ = [
    "Budget",
    "Credit",
    "Diagnostics",
    "GradientVariance",
    "Interruption",
    "IterationCheckpoint",
    "IterationProgress",
    "Memory",
    "RewardCallback",
    "Transcripts",
    "ValueAccuracy",
]
