"""Turn by turn: the environments of a batch of rows, and what they say as tokens."""

import sys
from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy
from lit_rl.sampling.responses import Responses
from lit_rl.tasks.stepping import Conversation, Stepper, Stream


class Turns:
    """The conversations of some rows that are written together.

    Args:
        policy: that decodes turns and encodes what is said.
        stepper: of the environments.
        conversations: [n] of the rows.
        names: [n] their streams.
        out: the rows; their uniforms are those of the policy's own tokens, in order.
        most: own tokens that a row may have, in all its turns.
        room: [n] tokens behind the prompt that the model has positions for.
        keep: the rows may be forked.
        begins: [n] where in the row its turns begin; by default there is one.

    Attributes:
        heard: tokens that have been said to the rows.
    """

    def __init__(
        self,
        policy: CausalPolicy,
        stepper: Stepper,
        conversations: Sequence[Conversation],
        names: Sequence[Stream],
        out: Responses,
        most: int,
        room: Tensor,
        keep: bool,
        begins: Sequence[list[int]] | None = None,
    ) -> None:
        self.policy, self.stepper, self.conversations, self.names = policy, stepper, conversations, names
        self.most, self.room, self.keep = most, room, keep
        self.begins = [[0] for _ in names] if begins is None else begins
        self.speaking = list(range(len(names)))
        self.heard = 0
        self._numbers = out.uniforms[:, :most]
        self._make_room(out)

    def answer(self, out: Responses) -> tuple[Tensor, list[int]]:
        """Lets the environments answer the rows that have spoken, and writes what they say behind these rows' tokens.

        A row ends with a turn that met the limit of tokens; that its environment calls done; that is its last one; or
        behind which there is no room for the answer and a token more. It is truncated, unless the environment is done
        and the turn met no limit.

        Returns:
            The rows [F] that go on, and how many tokens were said to each.
        """
        rows, lengths = self.speaking, out.lengths.tolist()
        ids, ended = out.ids.cpu(), out.finished.tolist()
        texts = [self.policy.decode(ids[row, self.begins[row][-1] : lengths[row]]) for row in rows]
        conversations = [self.conversations[row] for row in rows]
        turns = self.stepper.step(conversations, texts, [self.names[row] for row in rows], self.keep)
        replies: dict[int, list[int]] = {}
        spoken, room = out.spoken.sum(1).tolist(), self.room.tolist()
        which, device = torch.tensor(rows, device=out.ids.device), out.ids.device
        out.turn_rewards[which, out.lengths[which] - 1] = torch.tensor([turn.reward for turn in turns], device=device)
        out.finished[which] &= torch.tensor([turn.done for turn in turns], device=device)
        for row, conversation, turn in zip(rows, conversations, turns, strict=True):
            if turn.done or not ended[row]:
                continue
            if conversation.turns == self.stepper.turns or lengths[row] - spoken[row] == self.most:
                continue
            said = list(turn.messages)
            reply = self.policy.encode_reply(conversation.messages[: -len(said)], said)
            if not reply:
                raise UsageError("data.task: what its environment says has no token; say something, or be done")
            if lengths[row] + len(reply) < room[row]:
                replies[row] = reply
        self._write(out, replies, lengths)
        self.speaking = list(replies)
        counts = [len(reply) for reply in replies.values()]
        self.heard += sum(counts)
        return torch.tensor(self.speaking, dtype=torch.long, device=out.ids.device), counts

    def fork(self, out: Responses, names: Sequence[Stream]) -> "Turns":
        """The conversations of continuations ``out``, each in the turn in which its origin is cut; names are theirs."""
        origins, cuts = out.origin.tolist(), out.cut.tolist()
        turns = [bisect_right(self.begins[row], cut) - 1 for row, cut in zip(origins, cuts, strict=True)]
        conversations = self.stepper.fork([self.conversations[row] for row in origins], turns)
        begins = [self.begins[row][: turn + 1] for row, turn in zip(origins, turns, strict=True)]
        room = self.room[out.origin]
        return Turns(self.policy, self.stepper, conversations, names, out, self.most, room, False, begins)

    def _write(self, out: Responses, replies: dict[int, list[int]], lengths: list[int]) -> None:
        """What is said goes behind the rows' tokens, which have been counted."""
        if not replies:
            return
        device = out.ids.device
        out.widen(max(lengths[row] + len(reply) for row, reply in replies.items()), self.policy.pad_id)
        where = [(row, lengths[row] + i) for row, reply in replies.items() for i in range(len(reply))]
        at = tuple(torch.tensor(where, device=device).T)
        out.ids[at] = torch.tensor([token for reply in replies.values() for token in reply], device=device)
        out.spoken[at] = True
        for row, reply in replies.items():
            self.begins[row].append(lengths[row] + len(reply))
        rows = torch.tensor(list(replies), device=device)
        out.lengths[rows] += torch.tensor([len(reply) for reply in replies.values()], device=device)
        self._make_room(out)

    def _make_room(self, out: Responses) -> None:
        """Limits, columns and numbers for the turns that begin now, whatever has been spoken in between."""
        spoken = out.spoken.sum(1)
        out.limits = torch.minimum(self.most + spoken, self.room)
        width = max(int(out.limits.max()), out.ids.shape[1])
        out.widen(width, self.policy.pad_id)
        own = torch.arange(width, device=spoken.device) - spoken[:, None]
        out.uniforms = self._numbers.gather(1, own.clamp(0, self.most - 1))


def room_behind(most: int | None, prompt: Tensor) -> Tensor:
    """Tokens behind prompts of so many tokens [n] that a model has positions for; ``most`` None is no limit."""
    return (sys.maxsize if most is None else most) - prompt
