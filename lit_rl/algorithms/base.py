"""What the algorithms share: one iteration is one Lightning epoch over one table of rollouts.

The order of an iteration: the data module samples, the reward callback scores, :meth:`Algorithm.prepare` computes
log-probabilities and advantages, :meth:`Algorithm.training_step` takes micro-batches through the loss, and Lightning
does the rest (accumulation, clipping, precision, several devices, checkpoints).
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lit_rl.errors import UsageError
from lit_rl.functional.advantages import zero_advantage_share
from lit_rl.functional.losses import (
    Normalizer,
    clipped_fraction,
    kl_loss,
    policy_gradient_loss,
    row_denominator,
)
from lit_rl.policy.causal import CausalPolicy
from lit_rl.policy.sharding import gathered, shard
from lit_rl.rollouts import Rollouts, response_mask
from lit_rl.sampling.base import SamplingPlan
from lit_rl.tasks.base import Example

ACCURACIES = ("accuracy", "accuracy_flexible", "accuracy_sampled")


class Algorithm(LightningModule):
    """A policy, how it is sampled, and how scored rollouts become a loss.

    A subclass overrides :meth:`advantages`, and :meth:`loss` where its loss is not the shared one. One with a critic
    overrides :meth:`predictions` too.

    Args:
        policy: the model that is trained; None takes the embedded one.
        samples: responses a prompt (G).
        temperature: of sampling and of every log-probability.
        max_new_tokens: the longest response.
        passes: over one iteration's rollouts; 1 stays closest to on-policy.
        normalizer: the loss denominator, see :func:`lit_rl.functional.losses.row_denominator`. ``row_sum`` is the
            policy gradient itself; ``constant`` divides it by ``max_new_tokens``.
        clip_low, clip_high: the ratio's clipping range (1 - low, 1 + high); None leaves a side open.
        kl_coefficient: weight of the penalty that keeps the policy near its start.
        kl: where the penalty goes: ``k1_reward`` lowers the reward by the sequence's log ratio; ``k2_loss`` and
            ``k3_loss`` add :func:`lit_rl.functional.losses.kl_loss`.
        reference: keep a frozen copy of the start, which ``policy/kl`` and the penalty need.
        learning_rate, betas, weight_decay: of AdamW.
        warmup_steps: optimizer steps of linear warm-up.
    """

    compares_group = False  # whether a prompt's responses are each other's baseline

    def __init__(
        self,
        policy: CausalPolicy | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        max_new_tokens: int = 192,
        passes: int = 1,
        normalizer: Normalizer = "row_sum",
        clip_low: float | None = None,
        clip_high: float | None = None,
        kl_coefficient: float = 0.0,
        kl: Literal["k1_reward", "k2_loss", "k3_loss"] = "k1_reward",
        reference: bool = True,
        learning_rate: float = 2e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        warmup_steps: int = 5,
    ) -> None:
        super().__init__()
        for name, value in {"samples": samples, "passes": passes, "max_new_tokens": max_new_tokens}.items():
            if value < 1:
                raise UsageError(f"model.{name} is {value}; it is a count of at least 1")
        if temperature <= 0:
            raise UsageError(f"model.temperature is {temperature}; it must be above 0")
        if kl_coefficient > 0 and not reference:
            raise UsageError("model.kl_coefficient is above 0 but model.reference is false; keep the reference")
        self.policy = policy if policy is not None else CausalPolicy()
        self.plan = SamplingPlan(samples=samples, temperature=temperature, max_new_tokens=max_new_tokens)
        self._passes = passes
        self.normalizer: Normalizer = normalizer
        self.clip_low, self.clip_high = clip_low, clip_high
        self.kl_coefficient, self.kl = kl_coefficient, kl
        self.learning_rate, self.betas, self.weight_decay = learning_rate, betas, weight_decay
        self.warmup_steps = warmup_steps
        # in a tuple: no parameter of this module, so in no optimizer, checkpoint or gradient synchronisation
        self._reference: tuple[CausalPolicy, ...] = ()
        if reference:
            self._reference = (self.policy.reference(),)
        self.accuracies = nn.ModuleDict(
            {split: nn.ModuleDict({name: MeanMetric() for name in ACCURACIES}) for split in ("val", "test")}
        )
        self._evaluating = ExitStack()
        self._update_seconds = 0.0
        self._batch_started = 0.0
        self._restored_iterations = 0

    # ---- what an algorithm is: neither of these touches the trainer or logs -------------------------------------

    def advantages(self, rollouts: Rollouts) -> Tensor:
        """The weight of each token's score function, from scored rollouts: [N, T]."""
        raise NotImplementedError

    def loss(self, minibatch: Rollouts, logprobs: Tensor) -> dict[str, Tensor]:
        """The terms of the loss on some rows of prepared rollouts; their sum is minimised. ``policy`` is always one.

        Args:
            minibatch: N rows.
            logprobs: [N, T] of the weights in training.
        """
        assert minibatch.old_logprobs is not None and minibatch.advantages is not None
        mask = minibatch.mask
        denominator = row_denominator(mask, self.normalizer, minibatch.window_tokens, self.plan.max_new_tokens)
        terms = {
            "policy": policy_gradient_loss(
                logprobs,
                minibatch.old_logprobs,
                minibatch.advantages,
                mask,
                denominator,
                self.clip_low,
                self.clip_high,
            )
        }
        if self.kl_coefficient > 0 and self.kl != "k1_reward":
            assert minibatch.reference_logprobs is not None
            kind: Literal["k2", "k3"] = "k2" if self.kl == "k2_loss" else "k3"
            penalty = kl_loss(logprobs, minibatch.reference_logprobs, mask, denominator, kind)
            terms["kl"] = self.kl_coefficient * penalty
        return terms

    def predictions(self, minibatch: Rollouts) -> tuple[Tensor, ...]:
        """What :meth:`loss` takes beside the rows: their log-probabilities under the weights in training, [N, T]."""
        return (self.policy(minibatch, self.plan.temperature),)

    @property
    def behaviour(self) -> CausalPolicy:
        """The policy that is sampled from."""
        return self.policy

    @property
    def passes(self) -> int:
        """Over the next iteration's rollouts."""
        return self._passes

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Models that are used and never trained; not among the parameters."""
        return self._reference

    def token_rewards(self, rollouts: Rollouts, rows: int) -> Tensor | None:
        """What tokens earn beside the response's reward, from prepared log-probabilities [N, T]; None if nothing.

        Here the KL penalty ``k1_reward``, -beta log(pi / pi_ref).
        """
        if not self._penalized:
            return None
        assert rollouts.old_logprobs is not None and rollouts.reference_logprobs is not None
        return -self.kl_coefficient * (rollouts.old_logprobs - rollouts.reference_logprobs)

    @property
    def _penalized(self) -> bool:
        return self.kl_coefficient > 0 and self.kl == "k1_reward"

    @torch.no_grad()
    def prepare(self, rollouts: Rollouts, rows: int) -> None:
        """Fills old and reference log-probabilities, token rewards and advantages, ``rows`` rows at a time.

        Log-probabilities of probes are 0 where no reward needs them.
        """
        needed = torch.ones_like(rollouts.trained) if self._penalized else rollouts.trained | rollouts.sampled
        blank = torch.zeros_like(rollouts.response_ids, dtype=self.policy.dtype)
        old, entropy, reference = blank, blank.clone(), blank.clone()
        for index in needed.nonzero().squeeze(1).split(rows):
            part = rollouts.select(index)
            old[index], entropy[index] = self.policy.logprobs_and_entropy(part, self.plan.temperature)
            for policy in self._reference:
                reference[index] = policy(part, self.plan.temperature)
        rollouts.old_logprobs, rollouts.entropy = old, entropy
        if self._reference:
            rollouts.reference_logprobs = reference
        rollouts.token_rewards = self.token_rewards(rollouts, rows)
        advantages = self.advantages(rollouts)
        if advantages.shape != rollouts.mask.shape:
            raise UsageError(
                f"model: {type(self).__name__}.advantages returns the shape {tuple(advantages.shape)}, not one number "
                f"a token, {tuple(rollouts.mask.shape)}"
            )
        rollouts.advantages = advantages * rollouts.mask

    @staticmethod
    def returns(rollouts: Rollouts) -> Tensor:
        """The response's return [N]: its reward plus what its tokens earned, a continuation's inherited ones too."""
        assert rollouts.rewards is not None, "score the rollouts before preparing them"
        if rollouts.token_rewards is None:
            return rollouts.rewards
        earned = rollouts.token_rewards[rollouts.origin] * response_mask(rollouts.cut, rollouts.mask.shape[1])
        return rollouts.rewards + rollouts.token_rewards.sum(1) + earned.sum(1)

    # ---- Lightning's hooks --------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        if self.device_mesh is not None:
            for module in (*self.children(), *(each for each in self.frozen if isinstance(each, CausalPolicy))):
                shard(module, self.device_mesh["data_parallel"])

    def on_fit_start(self) -> None:
        for module in self.frozen:
            module.to(self.device)

    def on_train_epoch_start(self) -> None:
        rollouts: Rollouts = self._data.rollouts
        started = self._now()
        # hooks run outside the precision's context, and the ratio must start at 1
        with gathered(self, *self.frozen), self.trainer.precision_plugin.forward_context():
            self.prepare(rollouts, self._data.rows_per_microbatch)
        self._update_seconds = self._now() - started
        self._log(self._describe(rollouts))

    def training_step(self, minibatch: Rollouts, batch_idx: int) -> Tensor:
        predictions = self.predictions(minibatch)
        old, advantages = minibatch.old_logprobs, minibatch.advantages
        if old is not None and advantages is not None:
            ranges = self.clip_low, self.clip_high
            removed = clipped_fraction(predictions[0].detach(), old, advantages, minibatch.mask, *ranges)
            self._log({"policy/clip_fraction": removed}, len(minibatch))
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
        tokens = {f"tokens/{name}": float(count) for name, count in self._data.state_dict().items()}
        self._log({"time/update": self._update_seconds, **tokens})

    def on_validation_start(self) -> None:
        self._evaluating.enter_context(gathered(self.policy))  # ranks may have different numbers of batches

    def on_validation_end(self) -> None:
        self._evaluating.close()

    on_test_start, on_test_end = on_validation_start, on_validation_end

    def validation_step(self, examples: list[Example], batch_idx: int) -> None:
        self._evaluate("val", examples)

    def test_step(self, examples: list[Example], batch_idx: int) -> None:
        self._evaluate("test", examples)

    def configure_optimizers(self) -> Any:
        groups, warmups = zip(*self.parameter_groups(), strict=True)
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, list(warmups))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def parameter_groups(self) -> list[tuple[dict[str, Any], Callable[[int], float]]]:
        """The optimizer's parameter groups, each with the factor of its learning rate by optimizer steps taken.

        Frozen parameters are in them too: FSDP2 numbers a checkpoint's by their place in the module.
        """
        return [({"params": list(self.policy.parameters())}, self.warmup)]

    def warmup(self, step: int) -> float:
        """The factor of the learning rate after ``step`` steps of what is warmed up."""
        return min(1.0, (step + 1) / max(1, self.warmup_steps))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["policy"] = dict(self.policy.recipe)
        # Lightning writes an epoch-end checkpoint before it counts the epoch as completed, and on resuming would
        # sample that epoch's rollouts a second time
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for count in ("current", "total"):
            progress[count]["completed"] = progress[count]["processed"]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "state_dict" in checkpoint:  # FSDP2 has looked at it, and taken it out
            self.check_weights(checkpoint["state_dict"])
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        if progress["ready"] != progress["processed"]:
            raise UsageError("ckpt_path: not a checkpoint of the end of an iteration; choose one written there")
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
            "response/length": trained.lengths.float().mean(),
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
        return values

    def _evaluate(self, split: str, examples: list[Example]) -> None:
        """Greedy and sampled accuracy, by the sampler and the verifier that training uses."""
        rollouts, strict, flexible = self._data.evaluate(self.policy, self.plan, examples)
        metrics: Any = self.accuracies[split]
        metrics["accuracy"].update(strict[~rollouts.trained])
        metrics["accuracy_flexible"].update(flexible[~rollouts.trained])
        metrics["accuracy_sampled"].update(strict[rollouts.trained])
        self._log({f"{split}/{name}": metrics[name] for name in ACCURACIES})

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
            raise UsageError("trainer: give it a RolloutDataModule as `datamodule`; it samples, and loaders can't")
        return data
