"""How an algorithm is trained: Lightning's hooks, checkpoints and metrics."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lit_rl.algorithms.optimization import MakeOptimizer, Optimization
from lit_rl.algorithms.schedules import Schedule
from lit_rl.errors import UsageError, never_the_end
from lit_rl.functional.advantages import zero_advantage_share
from lit_rl.functional.losses import clipped_fraction
from lit_rl.functional.sampler_gap import gap
from lit_rl.policy.causal import CausalPolicy
from lit_rl.policy.sharding import gathered, shard
from lit_rl.ranges import Ranged
from lit_rl.rollouts import Rollouts
from lit_rl.sampling.base import SamplingPlan
from lit_rl.tasks.base import Example

ACCURACIES = ("accuracy", "accuracy_flexible", "accuracy_sampled")


class Training(Ranged, Optimization, setting="model"):
    """Connects an algorithm's ``prepare``, ``predictions`` and ``loss`` with a Trainer. It contains no estimator.

    Args:
        policy: the model that is trained.
        plan: what is sampled.
        clip_low: clipping range of the importance ratio, below, for ``policy/clip_fraction``.
        clip_high: the same above.
        learning_rate: see :class:`lit_rl.algorithms.base.Algorithm`, as for ``schedule`` and ``warmup_steps``.
        make_optimizer: makes the optimizer of parameter groups and a learning rate.
    """

    def __init__(
        self,
        policy: CausalPolicy,
        plan: SamplingPlan,
        clip_low: float | None,
        clip_high: float | None,
        learning_rate: float,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        warmup_steps: int,
    ) -> None:
        super().__init__(learning_rate, make_optimizer, schedule, warmup_steps)
        self.policy, self.plan = policy, plan
        self.clip_low, self.clip_high = clip_low, clip_high
        self.accuracies = nn.ModuleDict(
            {split: nn.ModuleDict({name: MeanMetric() for name in ACCURACIES}) for split in ("val", "test")}
        )
        self._evaluating = ExitStack()
        self._update_seconds = 0.0
        self._batch_started = 0.0
        self._restored_iterations = 0

    # ---- what an algorithm says ---------------------------------------------------------------------------------

    def prepare(self, rollouts: Rollouts, rows: int) -> None:
        """Fills what the loss takes, ``rows`` rows at a time."""
        raise NotImplementedError

    def predictions(self, minibatch: Rollouts) -> tuple[Tensor, ...]:
        """What :meth:`loss` takes beside the rows, log-probabilities [N, T] first."""
        raise NotImplementedError

    def loss(self, minibatch: Rollouts, logprobs: Tensor) -> dict[str, Tensor]:
        """The terms of the loss, whose sum is minimised."""
        raise NotImplementedError

    def clipped(self, minibatch: Rollouts, logprobs: Tensor, old: Tensor) -> Tensor:
        """The share of tokens whose gradient the clipping removes."""
        assert minibatch.advantages is not None
        return clipped_fraction(logprobs, old, minibatch.advantages, minibatch.mask, self.clip_low, self.clip_high)

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Models that are used and never trained."""
        raise NotImplementedError

    # ---- Lightning's hooks --------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        if self.device_mesh is not None:
            for module in (*self.children(), *(each for each in self.frozen if isinstance(each, CausalPolicy))):
                shard(module, self.device_mesh["data_parallel"])

    def on_fit_start(self) -> None:
        super().on_fit_start()
        for module in self.frozen:
            module.to(self.device)

    @never_the_end
    def on_train_epoch_start(self) -> None:
        rate = self.set_learning_rates()
        if rate is not None:
            self._log({"progress/learning_rate": rate})
        rollouts: Rollouts = self._data.rollouts
        started = self._now()
        # hooks run outside the precision's context, and the ratio must start at 1
        with gathered(self, *self.frozen), self.trainer.precision_plugin.forward_context():
            self.prepare(rollouts, self._data.rows_per_microbatch)
        self._update_seconds = self._now() - started
        self._log(self._describe(rollouts))

    @never_the_end
    def training_step(self, minibatch: Rollouts, batch_idx: int) -> Tensor:
        predictions = self.predictions(minibatch)
        logprobs, mask, advantages = predictions[0].detach(), minibatch.mask, minibatch.advantages
        old = minibatch.old_logprobs
        if old is None and minibatch.entropy is not None:  # see Algorithm.prepare
            old = logprobs
            own = mask & (minibatch.origin < 0)[:, None]  # as in _describe
            # a micro-batch without such tokens logs as well: ranks reduce metrics in the order of their first log
            weight: Any = float(own.sum())  # ranks' weights are averaged, and whole numbers would be cut
            self._log({"policy/entropy": (minibatch.entropy * own).sum() / max(weight, 1.0)}, weight)
        if old is not None and advantages is not None:
            self._log({"policy/clip_fraction": self.clipped(minibatch, logprobs, old)}, len(minibatch))
        # fill-up rows have a loss of 0: the mean over a micro-batch becomes the one over its real rows
        terms = {name: minibatch.padded * term for name, term in self.loss(minibatch, *predictions).items()}
        self._log({f"loss/{name}": term.detach() for name, term in terms.items()}, len(minibatch))
        return torch.stack(list(terms.values())).sum()

    # a module's batch hooks run inside those of the callbacks, so observers don't count as update time
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._batch_started = self._now()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._update_seconds += self._now() - self._batch_started

    def on_train_epoch_end(self) -> None:
        trainer: Any = self.trainer
        taken, whole = trainer.fit_loop.epoch_loop.batch_progress.current.processed, trainer.num_training_batches
        if taken != whole and not trainer.should_stop:
            raise UsageError(
                f"trainer.callbacks: iteration {self.current_epoch + 1} ended after {taken} of {whole} micro-batches; "
                "a callback raised StopIteration or returned -1; correct that callback"
            )
        tokens = {f"tokens/{name}": float(count) for name, count in self._data.state_dict().items()}
        if self._data.prompts.too_long == "drop":
            tokens["prompts/too_long"] = float(sum(self._data.prompts.left_out.values()))
        steps = {"progress/optimizer_steps": float(self.global_step)}
        self._log({"time/update": self._update_seconds, **steps, **tokens})

    def on_train_end(self) -> None:
        trainer: Any = self.trainer
        done, whole = trainer.fit_loop.epoch_progress.current.processed, trainer.max_epochs
        if not trainer.should_stop and done != whole:
            raise UsageError(
                f"trainer.callbacks: training ended after iteration {done} of {whole}; a callback raised "
                "StopIteration; correct that callback"
            )

    def on_validation_start(self) -> None:
        for metric in self.accuracies.modules():
            if isinstance(metric, MeanMetric):
                metric.reset()  # may be of `validate`, in inference mode, where nothing else can update it
        self._evaluating.enter_context(gathered(self.policy))  # ranks may have different numbers of batches

    def on_validation_end(self) -> None:
        self._evaluating.close()

    on_test_start, on_test_end = on_validation_start, on_validation_end

    def train_dataloader(self) -> Any:
        """Asked for only where no data module is given, and says so."""
        return self._data

    val_dataloader, test_dataloader = train_dataloader, train_dataloader

    def validation_step(self, examples: list[Example], batch_idx: int) -> None:
        self._evaluate("val", examples)

    def test_step(self, examples: list[Example], batch_idx: int) -> None:
        self._evaluate("test", examples)

    def parameter_groups(self) -> list[tuple[dict[str, Any], Callable[[int], float]]]:
        return [({"params": list(self.policy.parameters())}, self.warmup)]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["policy"] = dict(self.policy.recipe)
        # Lightning writes an epoch-end checkpoint before it counts the epoch as completed, and on resuming would
        # sample that epoch's rollouts a second time; one of the validation behind an iteration is no different
        loop = checkpoint["loops"]["fit_loop"]
        progress, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
        trained = batches["is_last_batch"] and batches["current"]["completed"] == batches["current"]["ready"]
        for count in ("current", "total"):
            progress[count]["processed"] = progress[count]["ready" if trained else "processed"]
            progress[count]["completed"] = progress[count]["processed"]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "state_dict" in checkpoint:  # FSDP2 has looked at it, and taken it out
            self.check_weights(checkpoint["state_dict"])
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        if progress["ready"] != progress["processed"]:
            raise UsageError(
                "ckpt_path: this checkpoint was not written at the end of an iteration; choose one that was (a "
                "ModelCheckpoint writes such by every_n_epochs, not by every_n_train_steps)"
            )
        self._restored_iterations = checkpoint["epoch"] + 1

    def check_weights(self, saved: Mapping[str, Tensor]) -> None:
        """That a checkpoint's ``state_dict`` has this module's names and shapes.

        Raises:
            UsageError: it has others.
        """
        if {name: x.shape for name, x in saved.items()} != {name: x.shape for name, x in self.state_dict().items()}:
            raise UsageError(
                "ckpt_path: the checkpoint is of another algorithm or model; give the settings of the run that wrote "
                "it (config.yaml in MLflow)"
            )

    # ---- metrics ------------------------------------------------------------------------------------------------

    def _describe(self, rollouts: Rollouts) -> dict[str, Tensor]:
        trained = rollouts.select(rollouts.sampled)
        assert trained.advantages is not None
        values = {
            "response/length": trained.mask.sum(1).float().mean(),  # of the policy's tokens
            "response/truncated": trained.truncated.float().mean(),
            "group/zero_advantage": zero_advantage_share(trained.advantages, trained.group),
        }
        if trained.entropy is not None:
            sums = torch.stack([trained.entropy.double().sum(), trained.mask.sum()])
            entropy, tokens = self._data.sum_over_ranks(sums)  # a mean over tokens, of which ranks have not as many
            values["policy/entropy"] = entropy / tokens  # nats a token
        if trained.old_logprobs is not None and trained.reference_logprobs is not None:
            # k1: the mean over responses of log pi(response) / pi_ref(response), in nats
            values["policy/kl"] = (trained.old_logprobs - trained.reference_logprobs).sum(1).mean()
        if rollouts.sampler_logprobs is not None and rollouts.old_logprobs is not None:
            read = rollouts.mask & (rollouts.trained | rollouts.sampled)[:, None]  # reused continuations, too
            total, largest = gap(rollouts.old_logprobs, rollouts.sampler_logprobs, read)
            total, tokens = self._data.sum_over_ranks(torch.stack([total, read.sum().double()]))
            values["sampler/kl"] = total / tokens  # log pi_sampler - log pi, nats a token
            values["sampler/ratio_max"] = self._data.max_over_ranks(largest)
        if rollouts.prefix_hits is not None:
            values["sampler/prefix_hits"] = torch.tensor(rollouts.prefix_hits)
        return values

    @never_the_end
    def _evaluate(self, split: str, examples: list[Example]) -> None:
        """Greedy and sampled accuracy, by the sampler and the verifier that training uses."""
        rollouts, strict, flexible = self._data.evaluate(self.policy, self.plan, examples)
        metrics: Any = self.accuracies[split]
        metrics["accuracy"].update(strict[~rollouts.trained])
        metrics["accuracy_flexible"].update(flexible[~rollouts.trained])
        metrics["accuracy_sampled"].update(strict[rollouts.trained])
        self._log({f"{split}/{name}": metrics[name] for name in ACCURACIES})

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        # ranks reduce what they log where they train: GPUs' libraries know no tensor elsewhere
        super().log(name, value.to(self.device) if isinstance(value, Tensor) else value, *args, **kwargs)

    def _log(self, values: dict[str, Any], batch_size: int = 1) -> None:
        """Logs means over the iteration and the ranks, against the number of iterations finished at its end."""
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        finished = self.current_epoch + 1 if fitting else self.current_epoch or self._restored_iterations
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": batch_size, "sync_dist": True}
        self.log_dict(values, **options)
        # not its mean: over ranks with different numbers of batches Lightning's is another number
        self.log("step", float(finished), reduce_fx="max", **options)

    def _now(self) -> float:
        """Seconds, once the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @property
    def _data(self) -> Any:
        """The RolloutDataModule; typed loosely, for it stands above this module."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None:
            raise UsageError(
                "trainer: pass a RolloutDataModule as `datamodule`; it samples the responses, and other loaders cannot"
            )
        return data
