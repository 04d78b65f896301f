"""One iteration is one epoch: its order, its exactness, and that watching it changes nothing."""

import random

import numpy as np
import pytest
import torch
from lightning import Callback

from lit_rl.algorithms import GRPO, PPO, REINFORCE, RLOO, OnlineDPO, ReMax, Supervised
from lit_rl.callbacks import Diagnostics, GradientVariance, Transcripts
from lit_rl.data import RolloutDataModule
from lit_rl.errors import UsageError
from lit_rl.tracking.run_logger import RunLogger

SAMPLING = [REINFORCE, RLOO, ReMax, GRPO, PPO, OnlineDPO]


class Watch(Callback):
    """Writes down what has happened to the rollouts by the time of each hook."""

    def __init__(self):
        self.events, self.ratios, self.gradients = [], [], []

    def on_train_epoch_start(self, trainer, pl_module):
        # after RewardCallback's, before the module's
        rollouts = trainer.datamodule.rollouts
        self.events.append(("start", rollouts.rewards is not None, rollouts.advantages is not None))
        self.events.append(("version", rollouts.version, trainer.global_step))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.events.append(("batch", batch.rewards is not None, batch.advantages is not None))
        if batch.old_logprobs is None:  # demonstrations were not sampled
            return
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            logprobs = pl_module.policy(batch, pl_module.plan.temperature)
        self.ratios.append((logprobs - batch.old_logprobs).exp())

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append(torch.cat([p.grad.reshape(-1).clone() for p in pl_module.policy.parameters()]))

    def on_train_epoch_end(self, trainer, pl_module):
        self.events.append(("end",))


@pytest.mark.parametrize("algorithm", [*SAMPLING, Supervised])
def test_order_of_an_iteration(fit, algorithm):
    watch = Watch()
    _, trained, data = fit(algorithm, iterations=3, callbacks=(watch,))
    batches = len(data.rollouts.select(data.rollouts.trained)) // 4
    iteration = [("start", True, False), ("version",), *[("batch", True, True)] * batches, ("end",)]
    assert [event[: len(want)] for event, want in zip(watch.events, iteration * 3, strict=True)] == iteration * 3


@pytest.mark.parametrize("algorithm", SAMPLING)
def test_rollouts_come_from_the_current_weights(fit, algorithm):
    """Each table's version is the number of updates taken, and its log-probabilities are those of these weights."""
    watch = Watch()
    trainer, _, data = fit(algorithm, iterations=3, callbacks=(watch,))
    versions = [event[1:] for event in watch.events if event[0] == "version"]
    updates = trainer.global_step // 3
    assert versions == [(0, 0), (updates, updates), (2 * updates, 2 * updates)]
    for first in watch.ratios[:: len(watch.ratios) // 3]:
        assert torch.equal(first, torch.ones_like(first))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_ratio_is_exactly_one_at_the_first_step(fit, precision):
    watch = Watch()
    fit(GRPO, callbacks=(watch,), data={"rows_per_microbatch": 8}, trainer={"precision": precision})
    assert torch.equal(watch.ratios[0], torch.ones_like(watch.ratios[0]))
    assert not torch.equal(watch.ratios[1], torch.ones_like(watch.ratios[1]))  # an update was taken in between


@pytest.mark.parametrize("algorithm", [RLOO, GRPO])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_an_iteration_of_one_step_needs_no_pass_before_it(fit, algorithm, precision):
    """The same weights and metrics as with log-probabilities computed beforehand, which a reference takes."""
    seen = []
    for reference in (True, False):
        options = {
            "data": {"rows_per_microbatch": 4},
            "trainer": {"accumulate_grad_batches": 4, "precision": precision},
        }
        observers = (Diagnostics(every_n_iterations=1),)
        trainer, trained, data = fit(algorithm, 2, observers, reference=reference, **options)
        assert trainer.global_step == 2 and (data.rollouts.old_logprobs is None) != reference
        seen.append((trained, trainer.callback_metrics))
    (before, metrics), (after, others) = seen
    assert all(torch.equal(p, q) for p, q in zip(before.policy.parameters(), after.policy.parameters(), strict=True))
    assert others["diagnostic/entropy_ratio"] == 1  # of the first iteration: known when it is over
    for name in ("policy/entropy", "policy/clip_fraction", "loss/policy"):
        assert float(others[name]) == pytest.approx(float(metrics[name]), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("normalizer", ["row_sum", "sequence_mean", "token_mean", "constant"])
def test_gradient_does_not_depend_on_the_micro_batch_size(fit, normalizer):
    gradients = []
    for rows in (2, 4, 16):
        watch = Watch()
        options = {"gradient_clip_val": None, "accumulate_grad_batches": 16 // rows}
        data = {"rows_per_microbatch": rows}
        fit(
            GRPO,
            callbacks=(watch,),
            data=data,
            trainer=options,
            normalizer=normalizer,
            kl_coefficient=0.1,
            kl="k2_loss",
        )
        assert len(watch.gradients) == 1
        gradients.append(watch.gradients[0])
    for other in gradients[1:]:
        assert torch.linalg.norm(other - gradients[0]) < 1e-5 * torch.linalg.norm(gradients[0])


def test_token_mean_is_the_mean_over_the_tokens_of_the_optimizer_step(fit):
    """With equal weights on all tokens, the gradient of two unequal micro-batches is that of all their tokens."""
    watch = Watch()
    options = {"gradient_clip_val": None, "accumulate_grad_batches": 2}
    _, algorithm, data = fit(
        Supervised,
        callbacks=(watch,),
        data={"rows_per_microbatch": 2},
        trainer=options,
        normalizer="token_mean",
        learning_rate=0.0,
    )
    rollouts = data.rollouts
    assert len(set(rollouts.lengths.tolist())) > 1
    loss = -algorithm.policy(rollouts, 1.0).sum() / rollouts.mask.sum()
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(algorithm.policy.parameters()))])
    assert torch.linalg.norm(watch.gradients[0] - expected) < 1e-5 * torch.linalg.norm(expected)


def test_observers_change_neither_weights_nor_random_numbers(fit):
    def final(callbacks):
        logger = RunLogger() if callbacks else False  # transcripts go to MLflow
        _, algorithm, data = fit(RLOO, iterations=3, callbacks=callbacks, trainer={"logger": logger})
        if callbacks:
            artifacts = logger.experiment.list_artifacts(logger.run_id)
            assert "transcripts.json" in [artifact.path for artifact in artifacts]
        return algorithm.state_dict(), data.rollouts.response_ids, random.random(), np.random.rand(), torch.rand(3)

    watched = final((GradientVariance(every_n_iterations=1), Transcripts(every_n_iterations=1)))
    alone = final(())
    assert all(torch.equal(alone[0][key], watched[0][key]) for key in alone[0])
    assert torch.equal(alone[1], watched[1]) and torch.equal(alone[4], watched[4]) and alone[2:4] == watched[2:4]


def test_passes_take_each_row_once_a_pass(fit):
    seen = []

    class Rows(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.extend(batch.response_ids.tolist())

    trainer, _, data = fit(RLOO, callbacks=(Rows(),), passes=3)
    assert trainer.global_step == 12
    assert sorted(seen) == sorted(data.rollouts.response_ids.tolist() * 3)
    assert sorted(seen[:16]) == sorted(data.rollouts.response_ids.tolist())


def test_probes_are_generated_and_scored_but_never_trained_on(fit):
    trainer, _, data = fit(ReMax, iterations=2)
    rollouts = data.rollouts
    assert rollouts.trained.tolist() == [True, False] * 4 and rollouts.rewards is not None
    assert trainer.global_step == 2  # 4 trained rows of 8, in micro-batches of 4
    assert trainer.callback_metrics["tokens/generated"] == data.generated > int(rollouts.mask.sum())


@pytest.mark.parametrize(
    "options, data, setting",
    [
        ({"reload_dataloaders_every_n_epochs": 0}, {}, "trainer.reload_dataloaders_every_n_epochs"),
        ({"max_steps": 5}, {}, "trainer.max_steps"),
        ({"limit_train_batches": 1}, {}, "trainer.limit_train_batches"),
        ({"fast_dev_run": True}, {}, "trainer.fast_dev_run"),
        ({"precision": "bf16-true"}, {}, "trainer.precision"),
        ({}, {"rows_per_microbatch": 3}, "data.rows_per_microbatch"),
        ({"accumulate_grad_batches": 3}, {}, "trainer.accumulate_grad_batches"),
    ],
)
def test_settings_that_would_train_silently_wrong_are_refused(fit, options, data, setting):
    with pytest.raises(UsageError, match=setting):
        fit(RLOO, trainer=options, data=data)


def test_seed_everything_reaches_the_samples(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")  # what seed_everything leaves behind
    assert RolloutDataModule().seed == 7 and RolloutDataModule(seed=3).seed == 3


def test_same_seed_same_run_and_another_stream_other_samples(fit):
    first, again, other = (fit(RLOO, iterations=2, data={"stream": s})[2].rollouts for s in (0, 0, 1))
    assert torch.equal(first.response_ids, again.response_ids) and first.examples == again.examples
    assert other.examples == first.examples and not torch.equal(other.response_ids[:, :20], first.response_ids[:, :20])


def test_prompts_are_drawn_without_repetition_before_the_data_are_used_up(fit, task):
    drawn = []

    class Prompts(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            drawn.extend(example["question"] for example in trainer.datamodule.rollouts.examples)

    fit(REINFORCE, iterations=4, callbacks=(Prompts(),), data={"prompts_per_iteration": 64, "rows_per_microbatch": 64})
    assert sorted(drawn) == sorted(task.prompts("train")["question"])


@pytest.mark.parametrize("setting, value", [("eval_rows", 0), ("rows_per_microbatch", -4), ("seed", -1)])
def test_data_module_refuses_numbers_out_of_range(setting, value):
    with pytest.raises(UsageError, match=f"data.{setting}"):
        RolloutDataModule(**{setting: value})


def test_gradient_variance_can_be_off_and_needs_two_groups(fit):
    trainer, *_ = fit(RLOO, callbacks=(GradientVariance(every_n_iterations=0), Transcripts(every_n_iterations=0)))
    assert not [name for name in trainer.callback_metrics if name.startswith("gradient/")]
    trainer, *_ = fit(RLOO, callbacks=(GradientVariance(),), data={"prompts_per_iteration": 1})
    assert not [name for name in trainer.callback_metrics if name.startswith("gradient/")]
    with pytest.raises(UsageError, match="gradient_variance.every_n_iterations"):
        GradientVariance(every_n_iterations=-1)
