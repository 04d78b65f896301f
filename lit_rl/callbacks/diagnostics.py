"""Looks for the known ways in which fine-tuning by RL goes wrong, while it runs."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_rl.algorithms.gradients import measure_gradient
from lit_rl.callbacks.reward import reward_callback
from lit_rl.errors import UsageError
from lit_rl.functional.advantages import zero_advantage_share
from lit_rl.functional.diagnostics import (
    agreement,
    alike_probability,
    distinct_responses,
    half_means,
    pair_sums,
    solved_rows,
    spearman_brown,
    squared_errors,
    thirds,
)
from lit_rl.functional.warning_rules import LIMITS, beyond, is_raised
from lit_rl.ranges import AnyLimit, Limit, LimitOfFactor, Ranged, Several, Whole
from lit_rl.rollouts import Rollouts
from lit_rl.sampling.base import SamplingPlan

ADVICE = {
    "critic_initialisation": "set model.critic_pretraining, or raise model.critic_learning_rate",
    "insufficient_sampling": "raise model.samples, or model.continuations where values come from continuations",
    "poor_baseline": "compare with more responses, or take prompts that are neither always solved nor never",
    "kl_collapse": "lower model.learning_rate, or raise model.kl_coefficient",
}
Total = Callable[[Tensor], Tensor]  # the sum, or the largest, over ranks


class Diagnostics(Ranged, Callback, setting="diagnostics"):
    """Looks for four signatures of failure in the samples of an iteration, before its first update.

    It logs each metric as ``diagnostic/<metric>`` where it is defined, and ``diagnostic/flag/<signature>``, 0 or 1. The
    first flag of a signature is also a line on the terminal. docs/diagnostics.md defines all metrics.

    - ``critic_initialisation``: a critic that is not being pretrained explains much less of the returns than a
      constant (``explained_variance``), or is off by a constant (``value_bias``).
    - ``insufficient_sampling``: values (``cut_error``) or baselines (``group_error``) are means of too few samples.
    - ``poor_baseline``: most groups have advantages of 0 and are not solved (``stuck``), or the gradient is much
      noisier than with a baseline from probes, which are more responses to some of the prompts (``trace_ratio``).
    - ``kl_collapse``: two at once of ``entropy_ratio``, ``distinct``, ``clip_fraction``, ``kl_slope`` and
      ``length_ratio`` are beyond their limits. Not measured if another policy is sampled.

    A group is solved where all its rewards are the best that the run has seen, which has seen others, too; by a reward
    model none is. A policy that is always right has nothing to learn there and no variety left, as one that has
    collapsed; so ``stuck``, ``entropy_ratio`` and ``distinct`` count a solved group as one that learns and has lost
    nothing.

    It takes no random number from training and changes no weight. Without probes it takes no forward pass.

    Args:
        every_n_iterations: measure every so many iterations, beginning with the first; 0 never.
        probe_every_n_iterations: draw probes every so many iterations, if these are measured; 0 never. Their tokens
            count towards no budget.
        probe_prompts: draw probes for the first so many prompts of each process.
        probe_samples: probes per prompt, at least ``model.samples``.
        explained_variance: lower limit of 1 - Var(R - V) / Var(R), with V the critic's values and R its targets.
        value_bias: upper limit of the absolute mean(V - R) / sd(R).
        cut_error: upper limit of the squared standard error of a cut's mean over the variance of the returns.
        group_error: the same of a group's mean.
        trace_ratio: upper limit of the gradient's noise over that with a baseline from probes.
        stuck: upper limit of the share of groups whose advantages are all 0 and that are not solved.
        entropy_ratio: lower limit of the entropy per token over that of the first measured iteration; its inverse is
            the upper one.
        distinct: lower limit of the share of different responses in a group.
        clip_fraction: upper limit of the share of tokens whose gradient is clipped.
        kl_slope: upper limit of the rise of the KL divergence, in nats an iteration.
        length_ratio: factor by which responses may grow or shrink, relative to the first measured iteration.
        kl_window: measured iterations over which ``kl_slope`` is fitted.

    Raises:
        UsageError: ``probe_samples`` is below ``model.samples``.
    """

    def __init__(
        self,
        every_n_iterations: Whole = 1,
        probe_every_n_iterations: Whole = 0,
        probe_prompts: Several = 8,
        probe_samples: Several = 16,
        explained_variance: AnyLimit = LIMITS["explained_variance"],
        value_bias: Limit = LIMITS["value_bias"],
        cut_error: Limit = LIMITS["cut_error"],
        group_error: Limit = LIMITS["group_error"],
        trace_ratio: Limit = LIMITS["trace_ratio"],
        stuck: Limit = LIMITS["stuck"],
        entropy_ratio: Limit = LIMITS["entropy_ratio"],
        distinct: Limit = LIMITS["distinct"],
        clip_fraction: Limit = LIMITS["clip_fraction"],
        kl_slope: Limit = LIMITS["kl_slope"],
        length_ratio: LimitOfFactor = LIMITS["length_ratio"],
        kl_window: Several = 10,
    ) -> None:
        self.limits = {
            "explained_variance": explained_variance,
            "value_bias": value_bias,
            "cut_error": cut_error,
            "group_error": group_error,
            "trace_ratio": trace_ratio,
            "stuck": stuck,
            "entropy_ratio": entropy_ratio,
            "distinct": distinct,
            "clip_fraction": clip_fraction,
            "kl_slope": kl_slope,
            "length_ratio": length_ratio,
        }
        self.every_n_iterations, self.probe_every_n_iterations = every_n_iterations, probe_every_n_iterations
        self.probe_prompts, self.probe_samples, self.kl_window = probe_prompts, probe_samples, kl_window
        self.start: dict[str, float] = {}  # entropy and length of the first iteration measured; largest spreads
        self.seen = [math.inf, -math.inf]  # the lowest and the highest reward
        self.kl: list[list[float]] = []  # (iteration, KL) of the last iterations measured
        self.earlier: dict[str, float] = {}  # what is known when an iteration is over, of the one before
        self.probe_tokens = 0
        self._warned: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        algorithm: Any = pl_module
        self._warned = set()
        if stage != "fit":
            return
        if trainer.current_epoch == 0:  # of another run; a checkpoint's come after this
            self.start, self.kl, self.earlier, self.probe_tokens = {}, [], {}, 0
            self.seen = [math.inf, -math.inf]
        if self.every_n_iterations and self.probe_every_n_iterations and self.probe_samples < algorithm.plan.samples:
            raise UsageError(
                f"diagnostics.probe_samples is {self.probe_samples}; a baseline better than that of "
                f"{algorithm.plan.samples} samples takes at least as many: raise it"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx > 0 or not self.every_n_iterations or trainer.current_epoch % self.every_n_iterations:
            return
        algorithm: Any = pl_module
        if algorithm.plan.demonstrations:  # nothing was sampled
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        rollouts: Rollouts = data.rollouts
        samples, total = rollouts.select(rollouts.sampled), data.sum_over_ranks
        solved = self._solved(samples, data.max_over_ranks, reward_callback(trainer).reward_model is not None)
        values = {
            **({} if algorithm.waits else self._critic(samples, total)),
            **self._sampling(algorithm, rollouts, total),
            **self._baseline(trainer, algorithm, samples, solved),
            **(self._collapse(trainer, samples, solved, total) if algorithm.behaviour is algorithm.policy else {}),
        }
        metrics = {name: value for name, value in values.items() if math.isfinite(value)}
        for signature, signs in beyond(metrics, self.limits).items():
            flag = is_raised(signature, len(signs))
            metrics[f"flag/{signature}"] = float(flag)
            if flag and signature not in self._warned and trainer.is_global_zero:
                seen = [f"{name} {metrics[name]:.3g} (limit {self.limits[name]:g})" for name in signs]
                self._warned.add(signature)
                where = f"{signature} in iteration {trainer.current_epoch + 1}"
                # a line of its own above the progress bar, where a Python warning would drag its source line along
                print(f"lit_rl: {where}: {', '.join(seen)}. Try: {ADVICE[signature]}.", file=sys.stderr)
        logged = {f"diagnostic/{name}": value for name, value in metrics.items()}
        pl_module.log_dict(logged, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        known = trainer.callback_metrics
        self.earlier = {
            name: float(known[name]) for name in ("policy/entropy", "policy/clip_fraction") if name in known
        }

    def _solved(self, samples: Rollouts, most: Total, learned: bool) -> Tensor:
        """Whether a row's group is solved: [N] bool; ``most`` is the largest over ranks.

        Of a learned reward nobody knows whether its best is a success.
        """
        assert samples.rewards is not None
        rewards = samples.rewards.double()
        lowest, highest = most(torch.stack([-rewards.min(), rewards.max()])).tolist()
        self.seen = [min(self.seen[0], -lowest), max(self.seen[1], highest)]
        if learned or self.seen[0] == self.seen[1]:  # or nothing to tell the best from
            return torch.zeros_like(samples.trained)
        return solved_rows(rewards, samples.group, self.seen[1])

    # ---- the signatures -----------------------------------------------------------------------------------------

    def _critic(self, samples: Rollouts, total: Total) -> dict[str, float]:
        if samples.values is None or samples.value_targets is None:
            return {}
        third = thirds(samples.mask)
        parts = {"": samples.mask, **{f"_{name}": third == i for i, name in enumerate(("early", "middle", "late"))}}
        values = {}
        for name, part in parts.items():
            found = agreement(total(pair_sums(samples.values[part], samples.value_targets[part])))
            values[f"explained_variance{name}"] = found.explained_variance
            values[f"value_slope{name}"] = found.slope
            # in units of the largest sd so far: the nearer success, the smaller is that of the iteration
            widest = self.start[f"spread{name}"] = max(self.start.get(f"spread{name}", 0.0), found.spread)
            values[f"value_bias{name}"] = found.bias * found.spread / widest if widest else math.nan
        return values

    def _sampling(self, algorithm: Any, rollouts: Rollouts, total: Total) -> dict[str, float]:
        plan, returns = algorithm.plan, algorithm.returns(rollouts).double()
        own = returns[rollouts.sampled]
        mean = _mean(own, total)
        n = float(total(torch.tensor(len(own))))
        variance = _mean((own - mean).square(), total) * n / max(n - 1, 1)
        if variance <= 1e-12 * mean**2:  # rounding is no spread
            return {}
        values = {}
        if algorithm.compares_group and not plan.fork_root:
            values["group_error"] = _mean(squared_errors(own.view(-1, plan.samples)), total) / variance
        if plan.continuations:
            forked = (rollouts.origin >= 0).nonzero().squeeze(1)
            place = rollouts.origin[forked] * rollouts.mask.shape[1] + rollouts.cut[forked]
            forked = forked[place.argsort(stable=True)].view(-1, plan.continuations)
            # the response that was cut goes on from there as its continuations do
            drawn = returns[torch.cat([rollouts.origin[forked[:, :1]], forked], 1)]
            more = (plan.continuations + 1) / plan.continuations  # the value is the mean of the continuations alone
            values["cut_error"] = _mean(more * squared_errors(drawn), total) / variance
            correlation = agreement(total(pair_sums(*half_means(drawn)))).correlation
            longer = plan.continuations / (drawn.shape[1] // 2)
            values["cut_reliability"] = spearman_brown(correlation, longer)
        return values

    def _baseline(self, trainer: Trainer, algorithm: Any, samples: Rollouts, solved: Tensor) -> dict[str, float]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert samples.advantages is not None
        live = {"zero_advantage": samples.advantages, "stuck": torch.where(solved[:, None], 1.0, samples.advantages)}
        shares = {name: zero_advantage_share(each, samples.group) for name, each in live.items()}
        # the ranks have as many groups each
        values = {name: _mean(share[None], data.sum_over_ranks) for name, share in shares.items()}
        if self.probe_every_n_iterations and not trainer.current_epoch % self.probe_every_n_iterations:
            values |= self._probe(trainer, algorithm, data)
        return values

    def _probe(self, trainer: Any, algorithm: Any, data: Any) -> dict[str, float]:
        rollouts: Rollouts = data.rollouts
        plan = SamplingPlan(self.probe_samples, temperature=algorithm.plan.temperature)
        plan = replace(plan, max_new_tokens=algorithm.plan.max_new_tokens)
        probes: Rollouts = data.probe(algorithm.behaviour, plan, self.probe_prompts)
        rewards = reward_callback(trainer).rewards(trainer, algorithm, probes).view(-1, self.probe_samples)
        self.probe_tokens += int(data.sum_over_ranks(probes.mask.sum()))

        values = {"probe_tokens": float(self.probe_tokens)}
        # a pair has no advantages that another baseline could change, of probes only whole responses are compared, and
        # these in units of the reward
        whole = rollouts.token_rewards is None and algorithm.rewards == "response"
        if whole and not algorithm.plan.pairs and not algorithm.normalises:
            values["trace_ratio"] = self._trace_ratio(trainer, algorithm, rollouts, rewards)
        if algorithm.plan.samples >= 2:
            alike = alike_probability(rewards, algorithm.plan.samples)
            values["zero_advantage_expected"] = _mean(alike, data.sum_over_ranks)
        return values

    def _trace_ratio(self, trainer: Any, algorithm: Any, rollouts: Rollouts, rewards: Tensor) -> float:
        """``rewards`` [P, K] are those of the probes."""
        data: Any = trainer.datamodule
        group = rollouts.group.clamp(max=len(rewards) - 1)  # of the rows that are measured, their own
        compared = algorithm.returns(rollouts) - rewards.mean(1)[group]
        if getattr(algorithm, "scale_by_std", False):
            deviation = rewards.std(1)[group]
            compared = torch.where(deviation > 0, compared / deviation, 0.0)
        high = replace(rollouts, advantages=compared[:, None] * rollouts.mask, trained=rollouts.sampled)
        with trainer.precision_plugin.forward_context():
            options = len(rewards), data.sum_over_ranks, data.rows_per_microbatch
            traces = [measure_gradient(algorithm, each, *options) for each in (rollouts, high)]
        own, best = (float(each.trace_cov) if each is not None else math.nan for each in traces)
        # near success both are next to nothing, and their ratio means nothing
        most = self.start["trace"] = max(self.start.get("trace", 0.0), best)
        return own / most if most > 0 else math.nan

    def _collapse(self, trainer: Any, samples: Rollouts, solved: Tensor, total: Total) -> dict[str, float]:
        length = _mean(samples.mask.sum(1), total)
        values = {"length_ratio": length / self.start.setdefault("length", length)}
        values |= self._entropy(samples, solved, total)
        if len(samples) > len(samples.examples):
            for name, lost in (("distinct", samples.select(~solved)), ("distinct_all", samples)):
                same = len(lost) - distinct_responses(lost.response_ids, lost.mask, lost.group)
                values[name] = _mean(torch.tensor([1 - same / len(samples)]), total)
        if "policy/clip_fraction" in self.earlier:
            values["clip_fraction"] = self.earlier["policy/clip_fraction"]
        if samples.old_logprobs is not None and samples.reference_logprobs is not None:
            kl = _mean((samples.old_logprobs - samples.reference_logprobs).sum(1), total)
            self.kl = [*self.kl, [trainer.current_epoch, kl]][-self.kl_window :]
            if len(self.kl) == self.kl_window:
                values["kl_slope"] = agreement(pair_sums(*torch.tensor(self.kl).T)).slope
        return values

    def _entropy(self, samples: Rollouts, solved: Tensor, total: Total) -> dict[str, float]:
        """Relative to the first measured iteration; where only the loss computes it, that of the iteration before."""
        own = None if samples.entropy is None else samples.entropy[samples.mask]
        entropy = self.earlier.get("policy/entropy", math.nan) if own is None else _mean(own, total)
        if not entropy >= 0 or (start := self.start.setdefault("entropy", entropy)) <= 0:
            return {}
        kept = _mean(solved[:, None].expand_as(samples.mask)[samples.mask], total)  # share of the tokens
        left = (1 - kept) * entropy
        if samples.entropy is not None:
            left = _mean(torch.where(solved[:, None], 0.0, samples.entropy)[samples.mask], total)
        return {"entropy_ratio": kept + left / start, "entropy_ratio_all": entropy / start}

    def state_dict(self) -> dict[str, Any]:
        names = ("start", "kl", "earlier", "probe_tokens", "seen")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.start, self.kl, self.probe_tokens = (state_dict[name] for name in ("start", "kl", "probe_tokens"))
        # checkpoints of earlier versions have none of these
        self.earlier, self.seen = state_dict.get("earlier", {}), state_dict.get("seen", self.seen)


def _mean(x: Tensor, total: Total) -> float:
    """The mean of x [n] over its entries and the ranks; NaN where there is none."""
    found, n = total(torch.stack([x.double().sum(), x.new_tensor(len(x), dtype=torch.float64)])).tolist()
    return found / n if n else math.nan
