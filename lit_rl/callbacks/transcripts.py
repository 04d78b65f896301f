"""A few responses with their scores, to be read by a person."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger

from lit_rl.functional.chosen import turn_ends
from lit_rl.ranges import Ranged, Whole
from lit_rl.tasks.scoring import scores_of, shown_turns, texts_of
from lit_rl.tracking.run_logger import RunLogger

FILE = "transcripts.json"


class Transcripts(Ranged, Callback, setting="transcripts"):
    """Adds some responses with their rewards to the table ``transcripts.json`` of the MLflow run.

    The prompt is the text that the policy answered, without special tokens; an environment may open with another one
    than the example's. Where an environment speaks in between, a line before each turn says whose it is, and
    ``turn_rewards`` what the environment paid for each of the policy's turns.

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
        prompts = zip(shown.prompt_ids.cpu(), shown.prompt_mask.cpu(), strict=True)
        table = {
            "iteration": [trainer.current_epoch + 1] * len(shown),
            "prompt": [policy.decode(ids[mask]) for ids, mask in prompts],
            "response": shown_turns(shown, policy.decode),
            "reward": shown.rewards.tolist(),
            "truncated": shown.truncated.tolist(),
        }
        if shown.turn_rewards is not None or not data.task.converses():  # reward.shuffle takes turns' rewards away
            texts = texts_of(shown, policy.decode)
            table["score_flexible"] = scores_of(data.task, shown, texts, flexible=True).tolist()
        if shown.turn_rewards is not None:
            ends = turn_ends(shown.written)
            paid = (rewards[end].tolist() for rewards, end in zip(shown.turn_rewards, ends, strict=True))
            table["turn_rewards"] = [", ".join(f"{reward:g}" for reward in row) for row in paid]
        if isinstance(logger, RunLogger):
            logger.log_table(table, FILE)
        else:
            logger.experiment.log_table(logger.run_id, table, FILE)
