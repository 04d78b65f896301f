"""The algorithms. Each is a LightningModule that says only what differs from the others.

They import the policy, the sampling plan and ``functional``, but neither data nor callbacks. Begin with ``rloo.py``,
then read ``base.py``, which all of them share.
"""

from lit_rl.algorithms.abc import ABC
from lit_rl.algorithms.base import Algorithm
from lit_rl.algorithms.cispo import CISPO
from lit_rl.algorithms.grpo import GRPO
from lit_rl.algorithms.gspo import GSPO
from lit_rl.algorithms.online_dpo import OnlineDPO
from lit_rl.algorithms.optimal_baseline import OptimalBaseline
from lit_rl.algorithms.p3o import P3O
from lit_rl.algorithms.ppo import PPO
from lit_rl.algorithms.reinforce import REINFORCE
from lit_rl.algorithms.reinforce_plus_plus import REINFORCEPlusPlus
from lit_rl.algorithms.remax import ReMax
from lit_rl.algorithms.rl_zvp import RLZVP
from lit_rl.algorithms.rloo import RLOO
from lit_rl.algorithms.rto import RTO
from lit_rl.algorithms.supervised import Supervised
from lit_rl.algorithms.trepo import TRePO

__all__ = [
    "ABC",
    "CISPO",
    "GRPO",
    "GSPO",
    "P3O",
    "PPO",
    "REINFORCE",
    "RLOO",
    "RLZVP",
    "RTO",
    "Algorithm",
    "OnlineDPO",
    "OptimalBaseline",
    "REINFORCEPlusPlus",
    "ReMax",
    "Supervised",
    "TRePO",
]
