"""A few responses with their scores, to be read by a person."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger

from lit_rl.ranges import Ranged, Whole
from lit_rl.tasks.scoring import score_rows, texts_of
from lit_rl.tracking.run_logger import RunLogger

FILE = "transcripts.json"


class Transcripts(Ranged, Callback, setting="transcripts"):
    """Adds some responses with their rewards to the table ``transcripts.json`` of the MLflow run.

    Args:
        responses: how many, each to another prompt.
        every_n_iterations: add them every so many iterations, beginning with the first; 0 never.
    """

    def __init__(self, responses: Whole = 3, every_n_iterations: Whole = 10) -> None:
        self.responses, self.every_n_iterations = responses, every_n_iterations

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logger = next((each for each in trainer.loggers if isinstance(each, MLFlowLogger)), None)
        if logger is None or not trainer.is_global_zero or self.responses < 1:
            return
        if not self.every_n_iterations or trainer.current_epoch % self.every_n_iterations:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        rollouts = data.rollouts
        groups = range(min(self.responses, len(rollouts.examples)))
        shown = rollouts.select(torch.stack([(rollouts.group == group).nonzero()[0, 0] for group in groups]))
        policy: Any = pl_module.policy
        texts = texts_of(shown, policy.decode)
        examples = shown.examples[: len(shown)]
        table = {
            "iteration": [trainer.current_epoch + 1] * len(shown),
            "prompt": ["\n".join(turn["content"] for turn in example["prompt"]) for example in examples],
            "response": texts,
            "reward": shown.rewards.tolist(),
            "score_flexible": score_rows(data.task.score_flexible, shown, texts, data.task.scored_by).tolist(),
            "truncated": shown.truncated.tolist(),
        }
        if isinstance(logger, RunLogger):
            logger.log_table(table, FILE)
        else:
            logger.experiment.log_table(logger.run_id, table, FILE)
