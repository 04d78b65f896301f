"""Scoring: the only place where a training rollout gets its reward."""

import time
from collections.abc import Callable
from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_rl.callbacks.progress import report
from lit_rl.tasks.scoring import score_rows, texts_of


class RewardCallback(Callback):
    """Writes ``rollouts.rewards`` at the start of an iteration, probes included, before advantages are computed.

    Args:
        scorer: ``(example, ids, text) -> float``, by its import path on the command line; None takes the task's own
            score. Evaluation always takes the task's.
    """

    def __init__(self, scorer: Callable[[dict[str, Any], Tensor, str], float] | None = None) -> None:
        self.scorer = scorer

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        policy: Any = pl_module.policy
        started = time.perf_counter()
        rollouts = data.rollouts
        score = self.scorer if self.scorer is not None else data.task.score
        texts = texts_of(rollouts, policy.decode)
        rollouts.rewards = score_rows(score, rollouts, texts, lambda done, n: report(trainer, "scoring", done, n))
        values = {
            "train/reward": rollouts.rewards[rollouts.sampled].mean(),
            "time/score": time.perf_counter() - started,
            "time/sample": data.sample_seconds,
        }
        pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
