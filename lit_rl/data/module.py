"""The data module: draws prompts and samples responses, once in each iteration."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from lit_rl.algorithms.base import Algorithm
from lit_rl.callbacks.progress import report
from lit_rl.callbacks.reward import reward_callback
from lit_rl.data.microbatches import MicroBatches, by_length, by_tokens, fewest, groups_together, pieces, shuffled
from lit_rl.data.prompts import Prompts, TooLong
from lit_rl.data.resampling import check_plan, resampled
from lit_rl.data.trainer_flags import check_trainer
from lit_rl.errors import UsageError, never_the_end
from lit_rl.policy.causal import CausalPolicy
from lit_rl.policy.sharding import gathered
from lit_rl.ranges import Count, Positive, Ranged, Seed, Whole
from lit_rl.rollouts import Rollouts
from lit_rl.sampling import LocalSampler, Sampler, SamplingPlan, check_environments, check_length, demonstrate
from lit_rl.tasks import GSM8KStyle, Task
from lit_rl.tasks.base import Example, Split
from lit_rl.tasks.scoring import scores_of, texts_of
from lit_rl.tasks.stepping import Environments, Stepper

# what a Trainer needs for, or is best given with, this data module
TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 50,
    "reload_dataloaders_every_n_epochs": 1,  # each iteration samples from the current weights
    "use_distributed_sampler": False,  # each rank draws its own prompts
    "inference_mode": False,  # whatever evaluation leaves behind, training can go on with
    "num_sanity_val_steps": 0,
    "check_val_every_n_epoch": 10,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 1,
    "enable_model_summary": False,
}
TRAIN, VAL, TEST, PROBE, RESAMPLE = range(5)  # random streams never shared


class RolloutDataModule(Ranged, LightningDataModule, setting="data"):
    """Draws prompts, samples responses to them, and serves these as micro-batches.

    ``train_dataloader`` is the sampling phase of an iteration. Lightning calls it at the start of every epoch (with
    ``reload_dataloaders_every_n_epochs=1``, which is required), so responses always come from the current weights.

    Args:
        task: where prompts and rewards come from; null takes ``GSM8KStyle``.
        sampler: what generates responses; null takes ``LocalSampler``.
        prompts_per_iteration: prompts of an iteration, over all processes. All responses to a prompt stay on one
            process.
        rows_per_microbatch: responses in one forward and backward pass. An optimizer step takes
            ``trainer.accumulate_grad_batches`` micro-batches.
        tokens_per_microbatch: tokens that the model reads in one forward and backward pass, what rows share once;
            groups stay whole where they fit. An optimizer step then takes micro-batches of unequally many responses,
            and ``rows_per_microbatch`` are read at once only where nothing is trained. null goes by rows.
        eval_prompts: problems used for validation and for testing; null takes the whole split.
        eval_rows: problems evaluated at once.
        seed: seed of the order of prompts and of all sampling; null takes ``seed_everything``.
        stream: another number gives other samples for the same prompts.
        too_long: what happens with prompts that, together with ``model.max_new_tokens``, are longer than the model
            or the sampler allows. ``error``: the run is refused. ``drop``: they are left out of every split; their
            number is printed and logged as ``prompts/too_long``.
        max_turns: turns of the policy in a response, where a task has an environment; one that is not done then is
            truncated.
        environment_workers: environments that step at once, in threads.
        environment_seconds: that an environment may take for a step; the run ends where one takes longer.
        resample: how many times an iteration's prompts whose samples all earn the same reward are replaced by others,
            drawn at random: DAPO's dynamic sampling (2503.14476). All tokens count. The prompts that are trained on
            are then no longer those of the task: solved ones and hopeless ones are rare.
        hints: how many times a prompt that none of its samples solves, as accuracies count it, is asked again: the k-th
            time with the share k / (hints + 1) of its demonstration, in whole words (GHPO, 2507.10628). The last try is
            trained on. All tokens count. ``prompts/hinted`` is the share with a hint. Evaluation gives none.

    Raises:
        UsageError: settings under which an iteration cannot be sampled or trained on; before the first iteration.
    """

    def __init__(
        self,
        task: Task | None = None,
        sampler: Sampler | None = None,
        prompts_per_iteration: Count = 32,
        rows_per_microbatch: Count = 32,
        tokens_per_microbatch: Count | None = None,
        eval_prompts: Count | None = 256,
        eval_rows: Count = 256,
        seed: Seed | None = None,
        stream: Whole = 0,
        too_long: TooLong = "error",
        max_turns: Count = 16,
        environment_workers: Count = 8,
        environment_seconds: Positive = 60.0,
        resample: Whole = 0,
        hints: Whole = 0,
    ) -> None:
        super().__init__()
        self.task = task if task is not None else GSM8KStyle()
        self.sampler = sampler if sampler is not None else LocalSampler()
        self.prompts_per_iteration, self.rows_per_microbatch = prompts_per_iteration, rows_per_microbatch
        self.tokens_per_microbatch = tokens_per_microbatch
        self.eval_prompts, self.eval_rows = eval_prompts, eval_rows
        self.seed = seed if seed is not None else int(os.environ.get("PL_GLOBAL_SEED", 0))
        self.stream = stream
        self.prompts = Prompts(self.task, too_long)
        self.stepper = Stepper(self.task.environment, environment_workers, environment_seconds, max_turns)
        self.resample, self.hints = resample, hints
        # a run's tokens, of all ranks: sampled ones, those of continuations among them, and prefilled ones
        self.generated = self.continued = self.prefilled = 0
        self.sample_seconds = self.score_seconds = 0.0  # of the current iteration, of what is scored to sample
        self._replaced = 0  # tokens of the current iteration's responses that are not trained on

    @never_the_end
    def setup(self, stage: str) -> None:
        """Checks all that can be known before the first iteration."""
        trainer: Any = self.trainer
        algorithm = self._algorithm
        splits: dict[Split, int | None] = {"test": self.eval_prompts} if stage == "test" else {"val": self.eval_prompts}
        if stage == "fit":
            if trainer.current_epoch == 0:  # of another run; a checkpoint's come after this
                self.generated = self.continued = self.prefilled = 0
            sizes = self.prompts_per_iteration, self.rows_per_microbatch, self.tokens_per_microbatch
            check_trainer(trainer, algorithm.plan, *sizes)
            if self.samples_again:
                check_plan(algorithm, reward_callback(trainer), self.task, self.resample, self.hints)
            splits = {"train": None, **(splits if trainer.limit_val_batches else {})}
        if self.task.converses():
            algorithm.policy.check_turns()
            check_environments(self.sampler)
        policy, most = algorithm.policy, algorithm.plan.max_new_tokens
        for split, first in splits.items():
            self.prompts.look(split, policy, self.sampler, most, first, trainer.is_global_zero)

    # ---- training -----------------------------------------------------------------------------------------------

    @never_the_end
    def train_dataloader(self) -> DataLoader:
        algorithm = self._algorithm
        started = time.perf_counter()
        self.rollouts = self._sample_iteration(algorithm)
        self.sample_seconds = time.perf_counter() - started - self.score_seconds
        if not algorithm.plan.demonstrations:
            own, forked = self.rollouts.mask, self.rollouts.mask[self.rollouts.origin >= 0]
            counts = torch.tensor([int(own.sum()) + self._replaced, int(forked.sum()), self.rollouts.prefilled])
            generated, continued, prefilled = self.sum_over_ranks(counts.double()).long().tolist()
            self.generated += generated
            self.continued += continued
            self.prefilled += prefilled
        schedule = self._schedule(algorithm)
        trainer: Any = self.trainer
        self.rollouts.one_step = len(schedule) == trainer.accumulate_grad_batches
        self.rollouts.together = schedule[: len(schedule) // algorithm.passes]
        # a pair is chosen after this: its loss takes no mean over tokens
        windows = [None] * len(schedule) if algorithm.plan.pairs else self._window_tokens(schedule)
        microbatches = MicroBatches(self.rollouts, schedule, windows)
        return DataLoader(microbatches, batch_size=None, shuffle=False, num_workers=0)

    def _sample_iteration(self, algorithm: Algorithm) -> Rollouts:
        prompts = self.prompts.of("train")
        trainer: Any = self.trainer
        first = trainer.current_epoch * self.prompts_per_iteration + trainer.global_rank
        draws = range(first, first - trainer.global_rank + self.prompts_per_iteration, trainer.world_size)
        n = len(prompts)
        orders = {epoch: self._order(epoch, n) for epoch in {draw // n for draw in draws}}
        examples = [prompts[orders[draw // n][draw % n]] for draw in draws]
        rollouts = self.sample(algorithm.behaviour, algorithm.plan, examples, [(TRAIN, draw) for draw in draws])
        if self.samples_again:
            rollouts, self._replaced = resampled(self, rollouts, [(RESAMPLE, draw) for draw in draws])
        rollouts.version = trainer.global_step
        return rollouts

    @property
    def samples_again(self) -> bool:
        """Whether rewards decide of what an iteration trains on."""
        return bool(self.resample or self.hints)

    def _order(self, epoch: int, n: int) -> list[int]:
        """The order in which the training prompts are drawn for the ``epoch``-th time."""
        return np.random.default_rng([self.seed, epoch]).permutation(n).tolist()

    def _schedule(self, algorithm: Algorithm) -> Sequence[Tensor]:
        """Numbers of trained rows, micro-batch by micro-batch: each once per pass, shuffled; pairs stay together.

        Numbers of continuations and of tokens depend on the responses; still, every rank takes the same number of
        micro-batches.
        """
        trainer: Any = self.trainer
        plan = algorithm.plan
        rng = np.random.default_rng([self.seed, self.stream, trainer.current_epoch, trainer.global_rank])
        if self.tokens_per_microbatch is not None:
            parts = pieces(self.rollouts, self.tokens_per_microbatch)
            own = fewest(parts, self.tokens_per_microbatch, trainer.accumulate_grad_batches)
            return by_tokens(parts, int(self._reduce(torch.tensor(own), "max")), algorithm.passes, rng)
        count = len(self.rollouts.examples) * plan.trained_rows if plan.pairs else int(self.rollouts.trained.sum())
        step = self.rows_per_microbatch * trainer.accumulate_grad_batches
        steps = -(-int(self._reduce(torch.tensor(count), "max")) // step)
        numbers = shuffled(count, steps, step, algorithm.passes, 2 if plan.pairs else 1, rng)
        # numbers of pairs are those of rows that are chosen later, group by group
        order = None if plan.pairs else by_length(self.rollouts)
        return list(groups_together(numbers, order).reshape(-1, self.rows_per_microbatch))

    def _window_tokens(self, schedule: Sequence[Tensor]) -> list[float]:
        """For each micro-batch: the mean number of response tokens per row, over its optimizer step and all ranks."""
        trainer: Any = self.trainer
        tokens = self.rollouts.mask[self.rollouts.trained].sum(1).double().cpu()
        sums = torch.stack([tokens[numbers[numbers >= 0]].sum() for numbers in schedule])
        steps = sums.view(-1, trainer.accumulate_grad_batches).sum(1)
        rows = self.sum_over_ranks(torch.tensor(sum(int((numbers >= 0).sum()) for numbers in schedule)).double())
        windows = self.sum_over_ranks(steps) * len(steps) / rows  # a row's tokens, as if fill-ups were spread evenly
        return windows.repeat_interleave(trainer.accumulate_grad_batches).tolist()

    # ---- evaluation ---------------------------------------------------------------------------------------------

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader("val", VAL)

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader("test", TEST)

    @never_the_end
    def _evaluation_loader(self, split: Split, stream: int) -> DataLoader:
        """Batches of (stream, index, example); each rank has its own part."""
        prompts = self.prompts.of(split)
        trainer: Any = self.trainer
        n = min(len(prompts), self.eval_prompts or len(prompts))
        if n < trainer.world_size:
            raise UsageError(f"data.eval_prompts: {n} problems for {trainer.world_size} processes; each needs one")
        items = [(stream, i, prompts[i]) for i in range(trainer.global_rank, n, trainer.world_size)]
        return DataLoader(items, batch_size=self.eval_rows, collate_fn=list, num_workers=0)  # type: ignore[arg-type]

    def evaluate(
        self, policy: CausalPolicy, plan: SamplingPlan, batch: Sequence[tuple[int, int, Example]]
    ) -> tuple[Rollouts, Tensor, Tensor]:
        """One sampled and one greedy response (the probes) to each problem, and what their strict and flexible scores
        count for in accuracies [N]."""
        plan = SamplingPlan(samples=1, greedy=True, temperature=plan.temperature, max_new_tokens=plan.max_new_tokens)
        examples = [example for _, _, example in batch]
        rollouts = self.sample(policy, plan, examples, [(stream, index) for stream, index, _ in batch])
        texts = texts_of(rollouts, policy.decode)
        strict = scores_of(self.task, rollouts, texts)
        same = type(self.task).score_flexible is Task.score_flexible
        flexible = strict if same else scores_of(self.task, rollouts, texts, flexible=True)
        return rollouts, self.task.solved(strict), self.task.solved(flexible)

    def probe(self, policy: CausalPolicy, plan: SamplingPlan, prompts: int) -> Rollouts:
        """Unscored responses to the first prompts of this rank's iteration, for observers.

        They come from random streams of their own and are counted nowhere, so that no training response changes.
        """
        return self._sample_first(policy, plan, prompts, PROBE)

    def again(self, policy: CausalPolicy, plan: SamplingPlan, prompts: int) -> Rollouts:
        """The iteration's samples of its first prompts once more, unscored, together with what else the plan asks for.

        For observers: they are counted nowhere. Where ``samples_again``, those that were replaced are not the same.
        """
        return self._sample_first(policy, plan, prompts, TRAIN)

    def _sample_first(self, policy: CausalPolicy, plan: SamplingPlan, prompts: int, stream: int) -> Rollouts:
        examples = self.rollouts.examples[:prompts]
        trainer: Any = self.trainer
        first = trainer.current_epoch * self.prompts_per_iteration + trainer.global_rank
        streams = [(stream, first + i * trainer.world_size) for i in range(len(examples))]
        return self.sample(policy, plan, examples, streams)

    # ---- shared -------------------------------------------------------------------------------------------------

    def sample(
        self, policy: CausalPolicy, plan: SamplingPlan, examples: Sequence[Example], streams: Sequence[tuple[int, int]]
    ) -> Rollouts:
        """Unscored responses to the examples' prompts by the plan, in the trainer's precision."""
        named = [(self.seed, self.stream, *stream) for stream in streams]
        environments = None
        opened = [example["prompt"] for example in examples]
        if self.task.converses():
            environments = Environments(self.stepper, self.stepper.open(examples, named))
            opened = [opening.messages for opening in environments.openings]
        prompts = [policy.encode_prompt(messages) for messages in opened]
        check_length(policy, self.sampler, prompts, plan.max_new_tokens, "model.max_new_tokens")
        trainer: Any = self.trainer
        phase = "sampling" if trainer.training else "evaluation"
        show: Callable[[int, int], None] = lambda done, total: report(trainer, phase, done, total)  # noqa: E731
        with gathered(policy), torch.no_grad(), trainer.precision_plugin.forward_context():
            if plan.demonstrations:
                rollouts = demonstrate(policy, prompts, examples, plan, environments)
            else:
                more = {} if environments is None else {"environments": environments}  # a sampler may know none
                rollouts = self.sampler.sample(policy, prompts, plan, named, show, **more)
        rollouts.examples = list(examples)
        return rollouts

    def sum_over_ranks(self, x: Tensor) -> Tensor:
        """The sum of a tensor over the ranks, on the CPU."""
        return self._reduce(x, "sum")

    def max_over_ranks(self, x: Tensor) -> Tensor:
        """The largest over the ranks, entry by entry, on the CPU."""
        return self._reduce(x, "max")

    def _reduce(self, x: Tensor, operation: Literal["sum", "max"]) -> Tensor:
        strategy: Any = self.trainer.strategy  # type: ignore[union-attr]
        return strategy.reduce(x.to(strategy.root_device), reduce_op=operation).cpu()

    @property
    def _algorithm(self) -> Algorithm:
        return self.trainer.lightning_module  # type: ignore[union-attr, return-value]

    def state_dict(self) -> dict[str, Any]:
        return {"generated": self.generated, "continued": self.continued, "prefilled": self.prefilled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generated, self.continued, self.prefilled = (
            state[name] for name in ("generated", "continued", "prefilled")
        )
