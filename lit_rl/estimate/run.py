"""A run by its sizes, and what it samples and trains on in an iteration: tokens, rows, optimizer steps.

All responses are taken to be as long as they may be. Notation, beside that of :mod:`lit_rl.rollouts`: H hidden size, I
inner size of a layer's feed-forward part, A numbers of a token's queries, R rows of a micro-batch, S tokens that it
reads, e bytes of a parameter, c bytes of a number that the model computes with.
"""

from dataclasses import dataclass
from math import ceil

import torch

from lit_rl.estimate.engine import Engine
from lit_rl.sampling import SamplingPlan


@dataclass(frozen=True)
class Model:
    """A dense causal model of transformers; numbers are those of one layer where there are several."""

    layers: int
    hidden: int  # H
    inner: int  # I
    queries: int  # A
    keys: int  # numbers of a token's keys
    heads: int
    vocabulary: int  # V
    element: int  # e
    linear: int  # numbers in the weights of all linear layers
    block: int  # bytes of a layer's parameters
    largest: int  # numbers of the largest parameter
    head: int  # numbers of the head's gradient, 0 where it has none
    tied: bool  # the head is the embedding
    trees: bool  # what rows share is read once


@dataclass(frozen=True)
class Run:
    """What the tokens and the memory of a run depend on; sizes are those of whole models, in bytes."""

    model: Model
    plan: SamplingPlan
    weights: int  # of the policy
    critic: int
    frozen: int  # the reference and other models that are only used
    trained: int  # parameters that have a gradient
    optimizer: int  # states
    own_trunk: bool  # the critic reads rows with a model of its own
    autocast: bool
    checkpointing: bool  # activations are computed again
    gpu: bool
    prompts: int  # of an iteration, over all processes
    prompt: float  # tokens of a prompt, on average
    longest: int  # tokens of the longest one
    rows: int  # of a micro-batch (R)
    tokens: int | None  # of a micro-batch, where it is not made of so many rows
    accumulate: int  # micro-batches of an optimizer step
    passes: int
    batch_rows: int  # decoded at once; 0 for a sampler that is not ours
    evaluated: int  # prompts that are evaluated at once, over all processes
    noise: bool  # the gradient noise is measured
    engine: Engine | None  # that samples, where one does

    @property
    def number(self) -> int:
        """Bytes of a number that the model computes with."""
        return 2 if self.autocast else self.model.element

    @property
    def length(self) -> int:
        return self.plan.max_new_tokens


@dataclass(frozen=True)
class Counts:
    """Of an iteration, over all processes."""

    sampled: int  # tokens of responses
    continued: int  # tokens of continuations
    prefilled: int  # tokens of prompts, and one for each prefix that is continued
    trained: int  # rows
    steps: int  # of the optimizer
    assumed: bool  # the number of cuts depends on the text, and is that of the default rule


def chances(plan: SamplingPlan) -> tuple[list[float], bool]:
    """How likely a response of full length is cut before each token, and whether that is assumed: seven even cuts."""
    if not plan.continuations or plan.cuts is None:
        return [], False
    length = plan.max_new_tokens
    ids = torch.full((1, length), -1)
    found = plan.cuts.chances(ids, torch.tensor([length]), torch.zeros(1, length))[0].tolist()
    assumed = not any(found[1:])
    if assumed:
        found = [float(t % max(2, length // 8) == 0) for t in range(length)]
    return [float(plan.fork_root), *found[1:]], assumed


def count(run: Run, ranks: int = 1) -> Counts:
    """Tokens, rows and optimizer steps of an iteration."""
    plan, (cuts, assumed) = run.plan, chances(run.plan)
    responses, forks = run.prompts * plan.samples, sum(cuts)
    left = sum(chance * (run.length - t) for t, chance in enumerate(cuts))
    demonstrated = plan.demonstrations
    trained = run.prompts * trained_rows(plan)
    batch = microbatch(run, ranks)
    batches = ceil(trained / ranks / batch.rows)
    return Counts(
        sampled=0 if demonstrated else run.prompts * plan.rows * run.length,
        continued=round(responses * plan.continuations * left),
        prefilled=0 if demonstrated else round(run.prompts * run.prompt + responses * forks),
        trained=round(trained),
        steps=run.passes * ceil(batches / run.accumulate),
        assumed=assumed,
    )


def trained_rows(plan: SamplingPlan) -> float:
    """Rows a prompt that are trained on."""
    return plan.trained_rows + (plan.samples * plan.continuations * sum(chances(plan)[0]) if plan.reuse else 0)


@dataclass(frozen=True)
class MicroBatch:
    """Rows that are trained on together, of how many prompts, and tokens that are read of each (R, P', T')."""

    rows: float
    prompts: float
    prompt: float
    longest: float  # tokens of the longest prompt, to which the others are padded in attention alone
    own: float
    shared: bool  # a prompt is read once

    @property
    def tokens(self) -> float:
        """S = P' L + R T', and where prompts are not shared R (L + T')."""
        return (self.prompts if self.shared else self.rows) * self.prompt + self.rows * self.own

    @property
    def seen(self) -> float:
        """Keys that are copied to where rows see them: R (L + T')."""
        return self.rows * (self.longest + self.own)


def microbatch(run: Run, ranks: int) -> MicroBatch:
    """The largest one. The rows of an optimizer step are drawn at random and sorted by prompts
    (:mod:`lit_rl.data.microbatches`); a response's last token is not read."""
    plan, group = run.plan, trained_rows(run.plan)
    own = run.length - 1.0 if run.model.trees else float(run.length)
    if plan.reuse:
        left = sum(chance * (own - t) for t, chance in enumerate(chances(plan)[0]))
        own = plan.samples * (own + plan.continuations * left) / group
    prompts, prompt = run.prompts / ranks, (run.prompt, run.longest)
    local = prompts * group
    if run.tokens is not None:
        rows = min(local, max(1.0, run.tokens / (own + run.prompt / group)))
        return MicroBatch(rows, rows / group, *prompt, own, run.model.trees)
    rows = min(run.rows, local)
    step = min(rows * run.accumulate, local)
    several = prompts * (1 - (1 - step / local) ** group)  # prompts of which a step has rows
    apart = 0 if step == local and rows % group == 0 else 1  # a prompt whose rows are in two micro-batches
    return MicroBatch(rows, min(rows, several * rows / step + apart), *prompt, own, run.model.trees)
