"""The algorithms, each a LightningModule."""

from lit_rl.algorithms.base import Algorithm
from lit_rl.algorithms.grpo import GRPO
from lit_rl.algorithms.reinforce import REINFORCE
from lit_rl.algorithms.remax import ReMax
from lit_rl.algorithms.rloo import RLOO
from lit_rl.algorithms.supervised import Supervised
from lit_rl.algorithms.trepo import TRePO

__all__ = ["GRPO", "REINFORCE", "RLOO", "Algorithm", "ReMax", "Supervised", "TRePO"]
