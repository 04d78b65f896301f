"""Scoring: the only place where a sampled response gets its reward."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_rl.algorithms import RLZVP
from lit_rl.callbacks.progress import report
from lit_rl.errors import UsageError
from lit_rl.policy.reward_model import RewardModel
from lit_rl.ranges import Count, Ranged
from lit_rl.rollouts import Rollouts
from lit_rl.tasks.base import Task
from lit_rl.tasks.scoring import check_call, check_scores, score_rows, scores_of, texts_of

HINTED = "data.hints"  # the key, in an example whose prompt has a hint, of the share of the demonstration in it


class RewardCallback(Ranged, Callback, setting="reward"):
    """Scores all responses of an iteration, probes included, before advantages are computed.

    Where the task has an environment, a response's score is the sum of what that has paid for its turns.

    Args:
        scorer: a function ``(example, ids, text) -> float`` that gives the reward; on the command line its import path.
            null takes the task's own score. Evaluation always takes the task's score. An environment's turns are part
            of the ids and the text.
        model: a reward model that gives the reward: a folder written by ``fit-reward``, or a name on the hub. The
            task's score of the same responses is logged as ``train/task_score``. If it falls while ``train/reward``
            rises, the policy exploits the reward model.
        probability: take the sigmoid of the reward model's score, 0 to 1. For a model fitted to ``outcomes`` it is the
            predicted task score, of the same scale as the task's own.
        shuffle: give the rewards of an iteration to its responses in a random order (on each process). A control:
            nothing can be learned from it. What an environment has paid for single turns is then taken away.
        overlong: tokens before ``model.max_new_tokens`` over which a penalty grows linearly from 0 to 1: the soft
            punishment of DAPO (2503.14476), in units of the reward. null for none. ``train/reward`` contains it.

    Raises:
        UsageError: both ``scorer`` and ``model`` are given, or ``scorer`` takes other arguments; ``RLZVP`` has a
            ``model`` or ``overlong``; in an iteration, the scorer raises an error or returns no number (see
            :func:`lit_rl.tasks.scoring.score_rows`).
    """

    def __init__(
        self,
        scorer: Callable[[dict[str, Any], Tensor, str], float] | None = None,
        model: str | None = None,
        shuffle: bool = False,
        probability: bool = False,
        overlong: Count | None = None,
    ) -> None:
        if scorer is not None and model is not None:
            raise UsageError("reward.scorer and reward.model are both set; leave one of them out")
        if scorer is not None:
            check_call(scorer, "reward.scorer")
        if model is not None and model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
            raise UsageError(f"reward.model: no folder '{model}'; give one that fit-reward has written or a hub name")
        if probability and model is None:
            raise UsageError("reward.probability is for a reward model; set reward.model, or leave it out")
        self.scorer, self.model, self.shuffle, self.probability = scorer, model, shuffle, probability
        self.overlong = overlong
        self.reward_model: RewardModel | None = None  # of a callback: in no checkpoint and no optimizer

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        limit: Any = pl_module.plan.max_new_tokens  # type: ignore[union-attr]
        if self.overlong is not None and self.overlong > limit:
            raise UsageError(
                f"reward.overlong is {self.overlong}, above model.max_new_tokens ({limit}), and would lower the reward "
                "of every response; lower it"
            )
        if isinstance(pl_module, RLZVP) and (self.model is not None or self.overlong is not None):
            raise UsageError(
                f"reward.{'overlong' if self.model is None else 'model'} gives responses that are all right, or all "
                "wrong, different rewards, and RLZVP tells them by equal ones; leave it out, or take GRPO"
            )
        if self.model is not None:
            self.reward_model = RewardModel.load(self.model).requires_grad_(False).to(pl_module.device)
            self.reward_model.check(pl_module.policy)  # type: ignore[arg-type]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        policy: Any = pl_module.policy
        started = time.perf_counter()
        rollouts = data.rollouts
        # where data samples again, the scores have decided which prompts to keep
        scores = rollouts.rewards if data.samples_again else self.score(trainer, pl_module, rollouts)
        rollouts.rewards = self._penalized(pl_module, rollouts, scores)
        values: dict[str, Any] = {}
        if self.reward_model is not None:
            sampled = rollouts.select(rollouts.sampled)
            texts = texts_of(sampled, policy.decode)
            values["train/task_score"] = scores_of(data.task, sampled, texts).mean()
        if self.shuffle:
            rng = np.random.default_rng([data.seed, data.stream, trainer.current_epoch, trainer.global_rank])
            rollouts.rewards = rollouts.rewards[torch.from_numpy(rng.permutation(len(rollouts)))]
            rollouts.turn_rewards = None
        values |= _unreadable(data.task, rollouts, policy)
        if data.hints:
            values["prompts/hinted"] = sum(HINTED in example for example in rollouts.examples) / len(rollouts.examples)
        values |= {
            "train/reward": rollouts.rewards[rollouts.sampled].mean(),
            "time/score": data.score_seconds + time.perf_counter() - started,
            "time/sample": data.sample_seconds,
        }
        pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def rewards(self, trainer: Trainer, pl_module: LightningModule, rollouts: Rollouts) -> Tensor:
        """What every row earns, probes included: its score, less the penalty of ``overlong``: [N]."""
        return self._penalized(pl_module, rollouts, self.score(trainer, pl_module, rollouts))

    def _penalized(self, pl_module: LightningModule, rollouts: Rollouts, scores: Tensor) -> Tensor:
        if self.overlong is None:
            return scores
        limit: Any = pl_module.plan.max_new_tokens  # type: ignore[union-attr]
        return scores - overlong_penalty(rollouts.written.sum(1), limit, self.overlong)

    def score(self, trainer: Trainer, pl_module: LightningModule, rollouts: Rollouts) -> Tensor:
        """The score of every row, probes included, before the penalty of ``overlong``: [N]."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        policy: Any = pl_module.policy
        if self.reward_model is None:
            show: Callable[[int, int], None] = lambda done, n: report(trainer, "scoring", done, n)  # noqa: E731
            texts = texts_of(rollouts, policy.decode)
            if self.scorer is None:
                return scores_of(data.task, rollouts, texts, progress=show)
            return score_rows(self.scorer, rollouts, texts, "reward.scorer", show)
        scores: list[Tensor] = []
        with torch.no_grad(), trainer.precision_plugin.forward_context():  # hooks run outside it
            for some in torch.arange(len(rollouts), device=rollouts.group.device).split(data.rows_per_microbatch):
                scores.append(self.reward_model(rollouts.select(some)))
                report(trainer, "scoring", int(some[-1]) + 1, len(rollouts))
        found = torch.cat(scores).sigmoid() if self.probability else torch.cat(scores)
        text: Callable[[int], str] = lambda row: texts_of(rollouts.select(torch.tensor([row])), policy.decode)[0]  # noqa: E731
        check_scores(found, rollouts, text, "reward.model")
        return found


def reward_callback(trainer: Any) -> RewardCallback:
    """The one whose rewards are kept: where there are several, the last."""
    *_, last = (each for each in trainer.callbacks if isinstance(each, RewardCallback))
    return last


def overlong_penalty(lengths: Tensor, limit: int, margin: int) -> Tensor:
    """0 up to ``limit - margin`` tokens, from there linearly to 1 at ``limit``: [N] (2503.14476)."""
    return (1 - (limit - lengths) / margin).clamp(0, 1)


def _unreadable(task: Any, rollouts: Rollouts, policy: Any) -> dict[str, Any]:
    """The share of sampled responses whose answer the task cannot read; nothing for a task that reads none,
    or whose environment does."""
    if type(task).unreadable is Task.unreadable or task.converses():
        return {}
    sampled = rollouts.select(rollouts.sampled)
    examples = (sampled.examples[group] for group in sampled.group.tolist())
    found = [task.unreadable(*row) for row in zip(examples, texts_of(sampled, policy.decode), strict=True)]
    return {"reward/unreadable": sum(found) / len(found)}
