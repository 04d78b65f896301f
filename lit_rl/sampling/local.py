"""Sampling in the training process, from the training weights: any causal LM of transformers, on CPU or CUDA."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy
from lit_rl.ranges import Count
from lit_rl.rollouts import Rollouts, pad_left
from lit_rl.sampling.ahead import decode_ahead
from lit_rl.sampling.attention import one_token_attention
from lit_rl.sampling.base import Progress, Sampler, SamplingPlan, positions
from lit_rl.sampling.compiled import compiled_layers
from lit_rl.sampling.decoding import Batch, decode, fork, hear, prefill
from lit_rl.sampling.graphs import Replay, replayable
from lit_rl.sampling.responses import (
    Responses,
    Stream,
    blank,
    continued,
    cuts_of,
    cuts_of_continued,
    table,
    uniforms_of,
)
from lit_rl.sampling.turns import Turns, room_behind
from lit_rl.tasks.stepping import Environments


class LocalSampler(Sampler):
    """Samples token by token with a KV cache, many rows at once.

    Each prompt is read once, and its cache is copied to its rows. Finished rows leave the batch at once. A token is
    drawn by inverting the cumulative distribution at a uniform number from the row's own random stream. There is no
    top-p or top-k, because they would bias the importance ratio. Continuations start from the caches that the samples
    leave behind; only the last token of a prefix is read again.

    Environments answer the rows of a batch together, when the last of these has ended its turn. What they say is read
    behind the caches that the rows have left.

    Args:
        batch_rows: rows decoded together, which bounds the memory. The caches take that many rows, and up to twice that
            with continuations.
        cuda_graphs: on a GPU, launch 32 steps of decoding at once. It applies to models with PyTorch's attention (sdpa)
            over all tokens that are not sharded by FSDP2; others decode step by step.
        compile: compile the model's layers for these steps with ``torch.compile``: faster, after a wait before the
            first.
    """

    def __init__(self, batch_rows: Count = 512, cuda_graphs: bool = True, compile: bool = False) -> None:
        if compile and not cuda_graphs:
            raise UsageError("data.sampler.compile is true and data.sampler.cuda_graphs false; it compiles their steps")
        self.batch_rows, self.cuda_graphs, self.compile = batch_rows, cuda_graphs, compile
        self._replay = Replay()

    @torch.no_grad()
    def sample(
        self,
        policy: CausalPolicy,
        prompts: Sequence[Sequence[int]],
        plan: SamplingPlan,
        streams: Sequence[Stream],
        progress: Progress | None = None,
        environments: Environments | None = None,
    ) -> Rollouts:
        mode = policy.training
        policy.eval()  # no dropout either way, but a model that checkpoints activations takes no cache in training
        try:
            with one_token_attention(policy.model):
                return self._sample(policy, prompts, plan, streams, progress, environments)
        finally:
            policy.train(mode)

    def _sample(
        self,
        policy: CausalPolicy,
        prompts: Sequence[Sequence[int]],
        plan: SamplingPlan,
        streams: Sequence[Stream],
        progress: Progress | None,
        environments: Environments | None,
    ) -> Rollouts:
        rows, steps = plan.rows, plan.max_new_tokens
        batch = max(1, self.batch_rows // rows)  # whole prompts
        starts = range(0, len(prompts), batch)
        phases = 2 if plan.continuations else 1
        samples: list[Responses] = []
        continuations: list[Responses] = []
        prefilled = sum(map(len, prompts))
        for i, start in enumerate(starts):
            some = prompts[start : start + batch]
            names = [(*stream, g) for stream in streams[start : start + batch] for g in range(rows)]

            def advance(phase: int, i: int = i) -> Callable[[int], None]:
                done, total = (i * phases + phase) * steps, len(starts) * phases * steps
                return lambda step: progress(done + step, total) if progress is not None else None

            out = blank(uniforms_of(names, steps, policy.device), policy.pad_id)
            out.greedy = torch.tensor([g >= plan.samples for g in range(rows)], device=policy.device).repeat(len(some))
            turns = None
            if environments is not None:
                openings = [each for each in environments.openings[start : start + batch] for _ in range(rows)]
                conversations = environments.stepper.begin(openings)
                lengths = torch.tensor([len(ids) for ids in some for _ in range(rows)], device=policy.device)
                room = room_behind(positions(policy, self), lengths)
                keep = plan.continuations > 0
                turns = Turns(policy, environments.stepper, conversations, names, out, steps, room, keep)
            decoded = prefill(policy, some, rows, keep=plan.continuations > 0 or turns is not None)
            decoded = self._write(policy, decoded, out, plan, advance(0), turns)
            out.cuts = cuts_of(plan, out, names)
            samples.append(out)
            if plan.continuations:
                prompt_ids = pad_left(some, policy.pad_id)[0].to(out.ids).repeat_interleave(rows, 0)
                for continued, heard in self._continue(
                    policy, plan, decoded, out, names, prompt_ids, advance(1), turns
                ):
                    prefilled += len(continued.ids) // plan.continuations + heard
                    continued.origin += start * rows
                    continuations.append(continued)
            prefilled += turns.heard if turns is not None else 0
            del decoded  # its cache, before there is the next one
            advance(phases - 1)(steps)
        rollouts = table(policy, prompts, plan, [*samples, *continuations], environments is not None)
        rollouts.prefilled, rollouts.sampler_logprobs = prefilled, None  # the weights in training are what sampled
        return rollouts

    def _write(
        self,
        policy: CausalPolicy,
        batch: Batch,
        out: Responses,
        plan: SamplingPlan,
        progress: Callable[[int], None],
        turns: Turns | None,
    ) -> Batch:
        """Writes the batch's rows to their ends, turn by turn; returns it, with all slots in its mask."""
        done = 0
        while True:
            before = out.lengths
            out.lengths = before.clone()

            def show(step: int, begun: int = done) -> None:
                progress(min(begun + step, plan.max_new_tokens))

            self._decode(policy, batch, out, plan, show)
            batch.fill(out.lengths - before)
            if turns is None:
                return batch
            done += int((out.lengths - before).max())
            rows, heard = turns.answer(out)
            if not heard:
                return batch
            batch = hear(policy, batch, out, rows, heard, int((out.limits - out.lengths)[rows].max()))

    def _decode(
        self, policy: CausalPolicy, batch: Batch, out: Responses, plan: SamplingPlan, progress: Callable[[int], None]
    ) -> None:
        if self.cuda_graphs and replayable(policy, batch.cache):
            with compiled_layers(policy.model) if self.compile else nullcontext():
                decode_ahead(policy, batch, out, plan, progress, self._replay)
        else:
            decode(policy, batch, out, plan, progress)

    def _continue(
        self,
        policy: CausalPolicy,
        plan: SamplingPlan,
        decoded: Batch,
        samples: Responses,
        names: Sequence[Stream],
        prompt_ids: Tensor,
        progress: Callable[[int], None],
        turns: Turns | None,
    ) -> Iterator[tuple[Responses, int]]:
        """K continuations of each sample from each of its cuts, and how many tokens environments have said to them.

        ``prompt_ids`` [n, L] are padded on the left. Prefixes of about one length share a batch: they take as many
        slots, and leave as many tokens to write.
        """
        copies, steps = plan.continuations, plan.max_new_tokens
        tokens = torch.cat([prompt_ids, samples.ids], 1)
        known = decoded.mask.sum(1) - (samples.lengths - 1)[decoded.row]  # tokens of the prompts
        forks = samples.cuts[decoded.row].nonzero()
        forks = forks[forks[:, 1].argsort(stable=True)]
        jobs = [some for some in forks.split(max(1, self.batch_rows // copies)) if len(some)]
        for i, some in enumerate(jobs):
            which, cut = some.T
            origin = decoded.row[which]
            last = tokens[origin].gather(1, (prompt_ids.shape[1] + cut - 1)[:, None]).squeeze(1)
            parent, at = origin.repeat_interleave(copies), cut.repeat_interleave(copies)
            pairs = list(zip(origin.tolist(), cut.tolist(), strict=True))
            own = [(*names[o], c, k) for o, c in pairs for k in range(1, copies + 1)]  # no stream ends in 0
            out = continued(samples, parent, at, uniforms_of(own, steps, policy.device), policy.pad_id)
            forked = turns.fork(out, own) if turns is not None else None
            most = int((out.limits - out.lengths).max())
            start = fork(policy, decoded, which, known[which] + cut - 1, last, copies, most, turns is not None)

            def advance(step: int, i: int = i) -> None:
                progress((i * steps + step) // len(jobs))

            self._write(policy, start, out, plan, advance, forked)
            del start  # its cache, before there is the next one
            out.cuts = cuts_of_continued(plan, out, own, samples)
            yield out, forked.heard if forked is not None else 0
