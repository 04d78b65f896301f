"""Tasks: prompts and rewards.

They import neither Lightning nor transformers, nor any model. Begin with ``base.py``, then read ``gsm8k.py``.
"""

from lit_rl.tasks.arithmetic import Arithmetic
from lit_rl.tasks.asking import AskForMissing, Calculator
from lit_rl.tasks.base import Example, Split, Task
from lit_rl.tasks.custom import Custom
from lit_rl.tasks.environment import Environment, Turn
from lit_rl.tasks.gsm8k import GSM8K
from lit_rl.tasks.gsm8k_style import GSM8KStyle
from lit_rl.tasks.gsm_symbolic import GSMSymbolic
from lit_rl.tasks.guess_number import GuessNumber
from lit_rl.tasks.partly_additive import PartlyAdditive
from lit_rl.tasks.position_credit import Additive, Bottleneck, KeyToken, Pairwise, Parity, PositionTask
from lit_rl.tasks.reasoning import ReasoningGym

__all__ = [
    "GSM8K",
    "Additive",
    "Arithmetic",
    "AskForMissing",
    "Bottleneck",
    "Calculator",
    "Custom",
    "Environment",
    "Example",
    "GSM8KStyle",
    "GSMSymbolic",
    "GuessNumber",
    "KeyToken",
    "Pairwise",
    "Parity",
    "PartlyAdditive",
    "PositionTask",
    "ReasoningGym",
    "Split",
    "Task",
    "Turn",
]
