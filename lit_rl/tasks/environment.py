"""What an environment is: it speaks between the turns of the policy, and may pay for each of them."""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, str]  # {"role": ..., "content": ...}


@dataclass(frozen=True)
class Turn:
    """What an environment does with a turn of the policy.

    Attributes:
        messages: what it says, chat messages; never as the role ``assistant``. They are part of the response, and
            nothing in them is trained on. Those behind the policy's last turn are left out, for nobody reads them.
        reward: for the turn. A response's reward is the sum over its turns.
        done: whether the response ends here. Otherwise the policy speaks again, and there has to be a message.
    """

    messages: Sequence[Message] = field(default_factory=list)
    reward: float = 0.0
    done: bool = False


class Environment(ABC):
    """One conversation with the policy. A task that has environments makes one for each response.

    It may call a tool, play a game, or ask back. :meth:`reset` opens the conversation and :meth:`step` answers a turn
    of the policy, until it is done. Attributes that it changes on its way are its state. An environment that draws
    random numbers takes them from ``self.random``, so that a response is the same in each run and wherever it is
    sampled.

    The environments of a batch step in threads of one process. What they share must be safe to use from several of
    them.

    Attributes:
        random: a generator of the conversation's own, seeded anew before each call of :meth:`reset` and :meth:`step`.
            It is no part of the state.
    """

    random: random.Random

    @abstractmethod
    def reset(self, example: dict[str, Any]) -> Sequence[Message]:
        """Opens the conversation; returns the messages that the policy answers to, usually ``example["prompt"]``.

        All responses to a prompt begin with the messages and in the state of one call.
        """

    @abstractmethod
    def step(self, text: str) -> Turn:
        """Answers a turn of the policy, given as text without special tokens.

        A turn may be empty. One that meets the limit of tokens may end anywhere; it gets its reward here, and the
        response ends with it.
        """

    def state(self) -> Any:
        """All that :meth:`restore` needs: here, all attributes. Whoever keeps it copies it, by ``copy.deepcopy``.

        It is taken after the :meth:`reset` that opens a prompt's responses, and with continuations at the start of
        each turn. Override both where an attribute can't be copied, such as a connection, or where fewer are enough.
        """
        return {name: value for name, value in vars(self).items() if name != "random"}

    def restore(self, state: Any) -> None:
        """Goes on from the :meth:`state` of an environment of the same example; it comes after :meth:`reset`.

        The state is a copy for this environment alone.
        """
        for name in set(vars(self)) - {"random"}:
            delattr(self, name)
        vars(self).update(state)
