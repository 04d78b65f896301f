"""Tasks: prompts and rewards. Imports neither Lightning nor the algorithms."""

from lit_rl.tasks.base import Example, Split, Task
from lit_rl.tasks.gsm8k import GSM8K
from lit_rl.tasks.gsm8k_style import GSM8KStyle

__all__ = ["GSM8K", "Example", "GSM8KStyle", "Split", "Task"]
