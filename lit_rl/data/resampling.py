"""Prompts of an iteration that are sampled again, because of what their responses have earned.

- Dynamic sampling (DAPO, 2503.14476): other prompts in place of those whose responses all earn the same.
- Hints (GHPO, 2507.10628): a part of the demonstration in prompts that no response has solved.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lit_rl.callbacks.reward import HINTED, RewardCallback, reward_callback
from lit_rl.errors import UsageError
from lit_rl.functional.advantages import has_spread
from lit_rl.policy.sharding import gathered
from lit_rl.rollouts import Rollouts
from lit_rl.sampling import Sampler, positions
from lit_rl.tasks.base import Example, Task

HINT = "The answer begins like this:"
OF_THE_TABLE = ("group", "origin", "row")  # what says where a row stands, not what it is


def check_plan(algorithm: Any, reward: RewardCallback, task: Task, resample: int, hints: int) -> None:
    """That the algorithm learns nothing from what is replaced, and that there is something to replace it by.

    Raises:
        UsageError: there are continuations, or no samples, or an algorithm that learns from rewards that are all the
            same; for hints, there is a reward model, an environment or no demonstration of two words; or both ways of
            sampling again.
    """
    plan = algorithm.plan
    name = "hints" if hints else "resample"
    if resample and hints:
        raise UsageError("data.resample and data.hints are both above 0; set one of them to 0")
    if plan.continuations or plan.demonstrations:
        raise UsageError(f"data.{name} is for algorithms that sample, without continuations; set it to 0")
    if not algorithm.needs_spread:
        when = "none is right" if hints else "all earn the same"
        raise UsageError(
            f"data.{name} replaces a prompt's responses where {when}, and {type(algorithm).__name__} learns from "
            "these; set it to 0"
        )
    if not hints:
        return
    if reward.model is not None:
        raise UsageError("data.hints asks which responses are right, and reward.model does not say it; set it to 0")
    if task.converses():
        raise UsageError("data.hints takes parts of demonstrations of one turn, and data.task has several; set it to 0")
    rows = task.prompts("train")
    told = rows["demonstration"] if "demonstration" in rows.column_names else []
    if not any(len((text or "").split()) > 1 for text in told):
        raise UsageError("data.hints takes words of demonstrations, and data.task has none of two words; set it to 0")


def resampled(data: Any, rollouts: Rollouts, streams: Sequence[tuple[int, ...]]) -> tuple[Rollouts, int]:
    """Scored rollouts, of which some groups were sampled again, and the tokens of what these replace.

    With ``data.resample`` tries, prompts without spread are replaced by others. With ``data.hints``, unsolved ones are
    asked again with a hint that grows from try to try, as long as model and sampler take it. What is no better after
    the last try stays. The seconds of all scoring are added up in ``data.score_seconds``.

    Args:
        data: the data module, in training.
        rollouts: of an iteration, without continuations.
        streams: for each prompt, integers that name what is drawn in its place.
    """
    trainer, algorithm = data.trainer, data.trainer.lightning_module
    reward = reward_callback(trainer)
    policy, tokens, asked = algorithm.behaviour, 0, rollouts.examples
    data.score_seconds = 0.0

    def score(table: Rollouts) -> None:
        started = time.perf_counter()
        table.rewards = reward.score(trainer, algorithm, table)
        data.score_seconds += time.perf_counter() - started

    score(rollouts)
    for again in range(1, data.resample + data.hints + 1):
        if data.hints:
            share = again / (data.hints + 1)
            longer = {group: hinted(asked[group], share) for group in unsolved_groups(rollouts, data.task)}
            groups = [group for group, each in longer.items() if each and _has_room(algorithm, data.sampler, each)]
        else:
            groups = flat_groups(rollouts, algorithm)
        if not int(data.max_over_ranks(torch.tensor(len(groups)))):
            continue  # a longer hint may have a word where a shorter one had none
        if not groups:
            with gathered(policy):  # by all ranks together
                continue
        named = [(*streams[group], again) for group in groups]
        examples = [longer[group] for group in groups] if data.hints else _others(data, named)
        others = data.sample(policy, algorithm.plan, examples, named)
        score(others)
        tokens += int(rollouts.mask[rows_of(rollouts, groups)].sum())
        rollouts = with_groups(rollouts, groups, others)
    return rollouts, tokens


def _others(data: Any, named: Sequence[tuple[int, ...]]) -> list[Example]:
    prompts = data.prompts.of("train")
    return [prompts[int(np.random.default_rng([data.seed, *name]).integers(len(prompts)))] for name in named]


def _has_room(algorithm: Any, sampler: Sampler, example: Example) -> bool:
    most = positions(algorithm.behaviour, sampler)
    return (
        most is None
        or len(algorithm.behaviour.encode_prompt(example["prompt"])) + algorithm.plan.max_new_tokens <= most
    )


def hinted(example: Example, share: float) -> Example | None:
    """The example with the first part of its demonstration in the prompt, and the share in ``HINTED``.

    The part is the whole words within the share, below 1; None where there is none.
    """
    *before, last = example["prompt"]
    pieces = re.findall(r"\s*\S+", example["demonstration"] or "")
    hint = "".join(pieces[: int(share * len(pieces))]).strip()
    asked = {**last, "content": f"{last['content']}\n{HINT}\n{hint}"}
    return {**example, "prompt": [*before, asked], HINTED: share} if hint else None


def unsolved_groups(rollouts: Rollouts, task: Task) -> list[int]:
    """The groups none of whose samples the task counts as solved (:meth:`Task.solved`), in ascending order."""
    own = rollouts.select(rollouts.sampled)
    assert own.rewards is not None
    return _without(own.group, task.solved(own.rewards) > 0)


def flat_groups(rollouts: Rollouts, algorithm: Any) -> list[int]:
    """The groups whose samples, or the turns of these if they are compared, all earn the same, in ascending order."""
    own = rollouts.select(rollouts.sampled)
    assert own.rewards is not None
    if algorithm.rewards == "turns":
        return _without(own.group, (algorithm.advantages(own) != 0).any(1))
    return _without(own.group, has_spread(own.rewards, own.group))


def _without(group: Tensor, found: Tensor) -> list[int]:
    return sorted({*group.tolist()} - {*group[found].tolist()})


def rows_of(rollouts: Rollouts, groups: Sequence[int]) -> Tensor:
    """The rows of the given groups, group by group."""
    return torch.cat([(rollouts.group == group).nonzero().squeeze(1) for group in groups])


def with_groups(rollouts: Rollouts, groups: Sequence[int], others: Rollouts) -> Rollouts:
    """The table with the k-th group of another one in the place of ``groups[k]``; both have groups of one size.

    Tables may be of different widths. What was fed to the model for the groups that are left out stays counted, and
    what an engine's prefix cache held of it.
    """
    rows = rows_of(rollouts, groups)
    examples = list(rollouts.examples)
    for group, example in zip(groups, others.examples, strict=True):
        examples[group] = example
    values: dict[str, Any] = {}
    for field in fields(Rollouts):
        old, new = getattr(rollouts, field.name), getattr(others, field.name)
        if old is None and isinstance(new, Tensor):
            old = new.new_zeros(len(rollouts), *new.shape[1:])
        if isinstance(old, Tensor) and field.name not in OF_THE_TABLE:
            new = old.new_zeros(len(others), *old.shape[1:]) if new is None else new
            if old.dim() == 2:
                width, left = max(old.shape[1], new.shape[1]), field.name.startswith("prompt")
                old, new = (_padded(x, width, left) for x in (old, new))
            values[field.name] = old.index_copy(0, rows, new.to(old))
    values["prefilled"] = rollouts.prefilled + others.prefilled
    if rollouts.held is not None and others.held is not None:
        values["held"] = rollouts.held + others.held
    return replace(rollouts, **values, examples=examples)


def _padded(x: Tensor, width: int, left: bool) -> Tensor:
    more = width - x.shape[1]
    return pad(x, (more, 0) if left else (0, more))
