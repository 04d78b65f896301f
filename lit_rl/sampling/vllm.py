"""Sampling by vLLM."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy
from lit_rl.policy.shapes import without_weights
from lit_rl.ranges import Count, SomeShare
from lit_rl.rollouts import Rollouts
from lit_rl.sampling.base import Progress, Sampler, SamplingPlan, positions
from lit_rl.sampling.engine import Engine
from lit_rl.sampling.responses import Responses, Stream, blank, continued, cuts_of, cuts_of_continued, table
from lit_rl.sampling.turns import Turns, room_behind
from lit_rl.tasks.stepping import Environments

TURN = 2  # a later turn's stream is its row's, the place where the turn begins, and this twice
COLDEST = 0.01  # vLLM samples below this temperature as if it were this
READ_ROWS = 64  # of a forward pass for entropies


class VLLM(Sampler):
    """Samples by vLLM, which takes many models and keeps a GPU busy; ``make vllm`` installs it.

    Each row is a request of token ids with a seed from the row's own stream. Each later turn and each continuation is
    another request, which begins with what was written. vLLM's prefix cache holds what requests have in common, in
    whole blocks (16 tokens on a GPU, 32 on a CPU). Temperature is all that shapes the distribution. vLLM's
    probabilities are not the trainer's to the last bit: ``sampler/kl`` and ``sampler/ratio_max`` are the difference.

    The engine is made with the first responses. It gets the policy's weights, adapters merged in, whenever they differ
    from those that it has. With several training processes each has an engine.

    Args:
        batch_rows: rows decoded together.
        memory_share: of the GPU's memory that the engine takes for weights and caches; on a CPU, of the machine's, for
            caches alone.
        tensor_parallel_size: GPUs that share the engine's weights, the first ones there are; above 1 needs a single
            training process, which may have a GPU of its own (``trainer.devices``).
        dtype: that the engine computes in; null takes that of the trainer's forward pass.
        max_model_len: the longest prompt with its response, in tokens; null takes what the model has positions for.
        eager: run the model operator by operator, without compilation and CUDA graphs; null does on a CPU.
        sleep: on a GPU that the policy trains on, give the memory back between calls (level 1: weights wait in the
            machine's memory).

    Raises:
        UsageError: vLLM is not installed, and is needed: not for shapes alone.
    """

    def __init__(
        self,
        batch_rows: Count = 512,
        memory_share: SomeShare = 0.3,
        tensor_parallel_size: Count = 1,
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
        max_model_len: Count | None = None,
        eager: bool | None = None,
        sleep: bool = True,
    ) -> None:
        if find_spec("vllm") is None and not without_weights():
            raise UsageError(
                "data.sampler VLLM takes vLLM, which is not installed here; make vllm gives it an environment of its "
                "own, .venv-vllm, or take LocalSampler"
            )
        self.max_model_len = max_model_len
        self.engine = Engine(batch_rows, memory_share, tensor_parallel_size, dtype, max_model_len, eager, sleep)

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
        if plan.temperature < COLDEST:
            raise UsageError(
                f"model.temperature is {plan.temperature}, and vLLM samples at {COLDEST} or above; raise it, or take "
                "LocalSampler"
            )
        with self.engine.awake(policy):
            return self._sample(policy, prompts, plan, streams, progress, environments)

    def _sample(
        self,
        policy: CausalPolicy,
        prompts: Sequence[Sequence[int]],
        plan: SamplingPlan,
        streams: Sequence[Stream],
        progress: Progress | None,
        environments: Environments | None,
    ) -> Rollouts:
        rows, most, copies = plan.rows, plan.max_new_tokens, plan.continuations
        names = [(*stream, g) for stream in streams for g in range(rows)]
        asked = [ids for ids in prompts for _ in range(rows)]
        show = progress if progress is not None else lambda done, total: None
        phases = 2 if copies else 1
        show(0, phases * most)
        out = blank(torch.zeros(len(names), most), policy.pad_id)
        out.greedy = torch.arange(len(names)) % rows >= plan.samples
        turns = None
        if environments is not None:
            openings = [each for each in environments.openings for _ in range(rows)]
            conversations = environments.stepper.begin(openings)
            room = room_behind(positions(policy, self), torch.tensor([len(ids) for ids in asked]))
            turns = Turns(policy, environments.stepper, conversations, names, out, most, room, copies > 0)
        requested, held = self._write(policy, plan, asked, out, names, turns)
        show(most, phases * most)
        parts, undecided = [out], plan.cuts is not None and plan.cuts.needs_entropy
        if undecided:
            add_entropy(policy, prompts, plan, parts)
        out.cuts = cuts_of(plan, out, names)
        if copies and out.cuts.any():
            forks = out.cuts.nonzero().repeat_interleave(copies, 0)
            pairs = zip(forks.tolist(), [*range(1, copies + 1)] * (len(forks) // copies), strict=True)
            own = [(*names[row], at, k) for (row, at), k in pairs]  # no stream ends in 0
            parent, cut = forks.T
            forked = continued(out, parent, cut, torch.zeros(len(own), most), policy.pad_id)
            behind = [asked[row] for row in parent.tolist()]
            more = self._write(policy, plan, behind, forked, own, turns.fork(forked, own) if turns else None)
            requested, held = requested + more[0], held + more[1]
            parts.append(forked)
            if undecided:
                add_entropy(policy, prompts, plan, parts)
            forked.cuts = cuts_of_continued(plan, forked, own, out)
        show(phases * most, phases * most)
        rollouts = table(policy, prompts, plan, parts, environments is not None).to(policy.device)
        rollouts.prefilled, rollouts.held = requested - held, held
        return rollouts

    def _write(
        self,
        policy: CausalPolicy,
        plan: SamplingPlan,
        prompts: Sequence[Sequence[int]],
        out: Responses,
        names: Sequence[Stream],
        turns: Turns | None,
    ) -> tuple[int, int]:
        """Writes rows to their ends, turn by turn.

        Returns:
            The tokens of all requests, and how many of them the prefix cache held.
        """
        from vllm import SamplingParams

        stops, rows, first = policy.stop_ids.tolist(), list(range(len(names))), True
        requested = held = 0
        while rows:
            lengths, limits, greedy = out.lengths.tolist(), out.limits.tolist(), out.greedy.tolist()
            requests = [[*prompts[row], *out.ids[row, : lengths[row]].tolist()] for row in rows]
            streams = [names[row] if first else (*names[row], lengths[row], TURN, TURN) for row in rows]
            params = [
                SamplingParams(
                    temperature=0.0 if greedy[row] else plan.temperature,
                    seed=seed_of(stream),
                    max_tokens=limits[row] - lengths[row],
                    stop_token_ids=stops,
                    ignore_eos=True,  # the stop ids have it
                    logprobs=0,  # of the token itself
                    detokenize=False,
                )
                for row, stream in zip(rows, streams, strict=True)
            ]
            for row, answer in zip(rows, self.engine.generate(policy, requests, params), strict=True):
                [written] = answer.outputs
                ids, start = list(written.token_ids), lengths[row]
                end = start + len(ids)
                out.ids[row, start:end] = torch.tensor(ids)
                found = [at[token].logprob for at, token in zip(written.logprobs, ids, strict=True)]
                out.logprobs[row, start:end] = torch.tensor(found)
                out.lengths[row], out.finished[row] = end, ids[-1] in stops
                requested += len(prompts[row]) + start
                held += answer.num_cached_tokens or 0
            first, rows = False, turns.answer(out)[0].tolist() if turns is not None else []
        return requested, held


def seed_of(stream: Stream) -> int:
    """A seed for a row's requests, the same wherever and beside whatever they are made."""
    return int(np.random.SeedSequence(stream).generate_state(1, np.uint64)[0]) >> 1  # vLLM's are signed


def add_entropy(
    policy: CausalPolicy, prompts: Sequence[Sequence[int]], plan: SamplingPlan, parts: Sequence[Responses]
) -> None:
    """Fills in the last part's entropies of pi(. | s_t), behind what it inherits, by the weights in training.

    Args:
        parts: as :func:`lit_rl.sampling.responses.table` takes them.
    """
    rollouts, out = table(policy, prompts, plan, parts, True).to(policy.device), parts[-1]
    rows = torch.arange(len(rollouts) - len(out.ids), len(rollouts), device=policy.device).split(READ_ROWS)
    found = [policy.logprobs_and_entropy(rollouts.select(some), plan.temperature)[1] for some in rows]
    out.entropy[:, : rollouts.mask.shape[1]] += torch.cat(found).cpu()
