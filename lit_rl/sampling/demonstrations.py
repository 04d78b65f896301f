"""Demonstrations as rollouts, so that supervised learning runs through the same loop."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy
from lit_rl.rollouts import Rollouts, pad_left, response_mask
from lit_rl.sampling.base import SamplingPlan, positions
from lit_rl.sampling.turns import room_behind
from lit_rl.tasks.base import Example
from lit_rl.tasks.stepping import Environments


@dataclass
class _Row:
    """A response token by token: whether the environment said it, and what it paid for it."""

    ids: list[int] = field(default_factory=list)
    spoken: list[bool] = field(default_factory=list)
    paid: list[float] = field(default_factory=list)
    truncated: bool = False

    def add(self, ids: Sequence[int], spoken: bool = False) -> None:
        self.ids += ids
        self.spoken += [spoken] * len(ids)
        self.paid += [0.0] * len(ids)


def demonstrate(
    policy: CausalPolicy,
    prompts: Sequence[Sequence[int]],
    examples: Sequence[Example],
    plan: SamplingPlan,
    environments: Environments | None = None,
) -> Rollouts:
    """One row a prompt: the example's column ``demonstration`` and the token that ends a turn, cut at
    ``plan.max_new_tokens``.

    Where environments answer, the column has the texts of the policy's turns, or the text of one turn. They are written
    and given to the environment one after the other, until it is done or there is no further one. What it says in
    between, and where the limits end the row, is as in a sampled response.

    Raises:
        UsageError: the task has no demonstrations.
    """
    if any("demonstration" not in example for example in examples):
        raise UsageError("data.task has no column 'demonstration': choose another task or another algorithm")
    if environments is None:
        rows = [_spoken_once(policy, example["demonstration"], plan.max_new_tokens) for example in examples]
    else:
        rows = _conversed(policy, prompts, examples, plan.max_new_tokens, environments)
    lengths = torch.tensor([len(row.ids) for row in rows])
    prompt_ids, prompt_mask = pad_left(prompts, policy.pad_id)
    response_ids = _table([row.ids for row in rows], policy.pad_id)
    filled = response_mask(lengths, response_ids.shape[1])
    spoken = _table([row.spoken for row in rows], 0).bool()
    turns = environments is not None
    return Rollouts(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        response_ids=response_ids,
        lengths=lengths,
        mask=filled & ~spoken,
        group=torch.arange(len(rows)),
        origin=torch.full((len(rows),), -1),
        cut=torch.zeros(len(rows), dtype=torch.long),
        trained=torch.ones(len(rows), dtype=torch.bool),
        truncated=torch.tensor([row.truncated for row in rows]),
        examples=[],
        spoken=spoken if turns else None,
        turn_rewards=_paid(rows, response_ids.shape[1]) if turns else None,
    ).to(policy.device)


def _spoken_once(policy: CausalPolicy, text: str, most: int) -> _Row:
    ids = [*policy.encode_text(text), policy.end_id]
    row = _Row(truncated=len(ids) > most)
    row.add(ids[:most])
    return row


def _conversed(
    policy: CausalPolicy,
    prompts: Sequence[Sequence[int]],
    examples: Sequence[Example],
    most: int,
    environments: Environments,
) -> list[_Row]:
    """The demonstrated turns and what the environments answer; ends are those of a sampled response."""
    stepper, streams = environments.stepper, [opening.stream for opening in environments.openings]
    conversations = stepper.begin(environments.openings)
    turns = [[told] if isinstance(told := example["demonstration"], str) else [*told] or [""] for example in examples]
    room = room_behind(positions(policy), torch.tensor([len(ids) for ids in prompts])).tolist()
    end, rows = policy.end_id, [_Row() for _ in examples]
    speaking = list(range(len(rows)))
    while speaking:
        texts = []
        for number in speaking:
            row, own = rows[number], [*policy.encode_text(turns[number].pop(0)), end]
            left = min(most - row.spoken.count(False), room[number] - len(row.ids))
            row.add(own[:left])
            row.truncated = len(own) > left
            texts.append(policy.decode(torch.tensor(own[:left])))
        some = [conversations[row] for row in speaking]
        answers = stepper.step(some, texts, [streams[row] for row in speaking], keep=False)
        further = []
        for number, conversation, answer in zip(speaking, some, answers, strict=True):
            row = rows[number]
            row.paid[-1] = answer.reward
            cut, row.truncated = row.truncated, row.truncated or not answer.done
            if answer.done or cut or not turns[number] or conversation.turns == stepper.turns:
                continue
            said = list(answer.messages)
            reply = policy.encode_reply(conversation.messages[: -len(said)], said)
            if row.spoken.count(False) < most and len(row.ids) + len(reply) < room[number]:
                row.add(reply, spoken=True)
                further.append(number)
        speaking = further
    return rows


def _table(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Rows padded on the right: [N, T]."""
    return pad_left([row[::-1] for row in rows], filler)[0].flip(1)


def _paid(rows: Sequence[_Row], width: int) -> Tensor:
    return torch.tensor([[*row.paid, *[0.0] * (width - len(row.paid))] for row in rows])
