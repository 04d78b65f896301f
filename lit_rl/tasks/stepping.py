"""Environments of many responses, stepped side by side; what goes wrong in one becomes one line."""

import copy
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from lit_rl.errors import UsageError
from lit_rl.tasks.base import Example
from lit_rl.tasks.environment import Environment, Message, Turn
from lit_rl.tasks.scoring import LARGEST, number, prompt_of, shown

In = TypeVar("In")
Out = TypeVar("Out")
Stream = tuple[int, ...]


@dataclass(frozen=True)
class Opening:
    """How the conversations of one prompt begin.

    Attributes:
        example: of the task.
        messages: that the policy answers to.
        state: of the environment that said them; a copy.
        stream: names the prompt's random numbers.
    """

    example: Example
    messages: list[Message]
    state: Any
    stream: Stream


@dataclass
class Conversation:
    """One response's environment, with what has been said.

    Attributes:
        opening: how it begins.
        environment: in the state behind the last turn.
        messages: of both sides.
        turns: of the policy that the environment has answered.
        points: a copy of the state where each turn of the policy begins, and how many messages stand before it, as far
            as kept.
    """

    opening: Opening
    environment: Environment
    messages: list[Message]
    turns: int = 0
    points: list[tuple[Any, int]] = field(default_factory=list)


class Stepper:
    """Makes environments and steps them, in threads.

    Args:
        make: gives the environment of an example, or None where it has none.
        workers: threads.
        seconds: that a call of an environment may take.
        turns: of the policy, the most that a response may have.

    Raises:
        UsageError: by all methods, where an environment raises an error, takes too long or returns what it must not. It
            names the turn, the prompt and what the policy said.
    """

    def __init__(self, make: Callable[[Example], Environment | None], workers: int, seconds: float, turns: int) -> None:
        self.make, self.workers, self.seconds, self.turns = make, workers, seconds, turns

    def open(self, examples: Sequence[Example], streams: Sequence[Stream]) -> list[Opening]:
        """The opening of each example's conversations."""

        def opened(job: tuple[Example, Stream]) -> Opening:
            example, stream = job
            environment, messages = self._reset(example, stream)
            return Opening(example, messages, _state(environment), stream)

        jobs = list(zip(examples, streams, strict=True))
        return self._map(opened, jobs, lambda job: f"at the start (prompt {prompt_of(job[0])})")

    def begin(self, openings: Sequence[Opening]) -> list[Conversation]:
        """A conversation that begins with each opening."""

        def begun(opening: Opening) -> Conversation:
            environment, _ = self._reset(opening.example, opening.stream)
            environment.restore(copy.deepcopy(opening.state))
            return Conversation(
                opening, environment, list(opening.messages), 0, [(opening.state, len(opening.messages))]
            )

        return self._map(begun, openings, _at_start)

    def fork(self, conversations: Sequence[Conversation], turns: Sequence[int]) -> list[Conversation]:
        """Conversations that go on from where turn ``turns[i]`` of each begins, counted from 0; they keep no points."""

        def forked(job: tuple[Conversation, int]) -> Conversation:
            origin, turn = job
            state, said = origin.points[turn]
            environment, _ = self._reset(origin.opening.example, origin.opening.stream)
            environment.restore(copy.deepcopy(state))
            return Conversation(origin.opening, environment, origin.messages[:said], turn)

        return self._map(forked, list(zip(conversations, turns, strict=True)), lambda job: _at_start(job[0].opening))

    def step(
        self, conversations: Sequence[Conversation], texts: Sequence[str], streams: Sequence[Stream], keep: bool
    ) -> list[Turn]:
        """What each environment does with the policy's turn.

        Args:
            conversations: that go on; a turn that isn't the last one is added to what was said.
            texts: of the policy's turns.
            streams: that name the random numbers of the responses.
            keep: the points behind the turns, so that the conversations can be forked.
        """

        def stepped(job: tuple[Conversation, str, Stream]) -> Turn:
            conversation, text, stream = job
            conversation.turns += 1
            conversation.environment.random = _generator(stream, conversation.turns)
            turn = conversation.environment.step(text)
            if not isinstance(turn, Turn):
                raise _Wrong(f"returned {shown(turn)}", "return a Turn")
            paid = number(turn.reward)
            if not abs(paid) <= LARGEST:
                raise _Wrong(f"paid {shown(turn.reward)}", f"a reward is a number of at most {LARGEST:g} in size")
            said = _checked(turn.messages, "step")
            if not said and not turn.done:
                raise _Wrong("said nothing and is not done", "return a message, or done=True")
            conversation.messages += [{"role": "assistant", "content": text}, *said]
            if keep and not turn.done:
                conversation.points.append((_state(conversation.environment), len(conversation.messages)))
            return Turn(said, paid, bool(turn.done))

        def where(job: tuple[Conversation, str, Stream]) -> str:
            conversation, text, _ = job
            said = f"prompt {prompt_of(conversation.opening.example)}, policy {shown(text)}"
            return f"in turn {max(1, conversation.turns)} ({said})"

        return self._map(stepped, list(zip(conversations, texts, streams, strict=True)), where)

    def _reset(self, example: Example, stream: Stream) -> tuple[Environment, list[Message]]:
        environment = self.make(example)
        if not isinstance(environment, Environment):
            raise _Wrong(f"is {shown(environment)}", "Task.environment has to return an Environment for each example")
        environment.random = _generator(stream, 0)
        return environment, _checked(environment.reset(example), "reset", least=1)

    def _map(self, function: Callable[[In], Out], jobs: Sequence[In], where: Callable[[In], str]) -> list[Out]:
        """The function of each job, by threads; they are daemons, so that one that hangs holds up no exit.

        Once a job has gone wrong or is late, none begins any more; those that have begun can't be ended.
        """
        todo = deque(range(len(jobs)))
        found: SimpleQueue[tuple[int, Out | None, BaseException | None, float]] = SimpleQueue()
        running: dict[int, float] = {}  # when each job began

        def work() -> None:
            while True:
                try:
                    index = todo.popleft()
                except IndexError:
                    return
                running[index] = time.monotonic()
                outcome: tuple[Out | None, BaseException | None]
                try:
                    outcome = function(jobs[index]), None
                except BaseException as error:  # told by the thread that waits
                    outcome = None, error
                    todo.clear()
                found.put((index, *outcome, time.monotonic() - running.pop(index)))

        for _ in range(min(self.workers, len(jobs))):
            threading.Thread(target=work, daemon=True).start()
        results: dict[int, Any] = {}
        try:
            while len(results) < len(jobs):
                late: list[int] = []
                with suppress(Empty):
                    index, result, error, took = found.get(timeout=min(self.seconds, 1.0))
                    if error is not None:
                        raise _told(error, where(jobs[index])) from error
                    results[index], late = result, [index] * (took > self.seconds)
                late += [i for i, begun in list(running.items()) if time.monotonic() - begun > self.seconds]
                if late:
                    raise UsageError(
                        f"data.environment_seconds is {self.seconds:g}: the environment of data.task took longer "
                        f"{where(jobs[late[0]])}; raise it, or set a time limit in the environment"
                    )
        finally:
            todo.clear()
        return [results[index] for index in range(len(jobs))]


@dataclass(frozen=True)
class Environments:
    """What speaks between the turns of the responses to some prompts.

    Attributes:
        stepper: steps them.
        openings: how the conversations of each prompt begin.
    """

    stepper: Stepper
    openings: Sequence[Opening]


class _Wrong(Exception):
    """What an environment returned that it must not, and what to do."""


def _told(error: BaseException, where: str) -> BaseException:
    """The error as the user's mistake."""
    if isinstance(error, UsageError):
        return error
    if isinstance(error, _Wrong):
        what, advice = error.args
        return UsageError(f"data.task: its environment {what} {where}; {advice}")
    return UsageError(f"data.task: its environment raised {type(error).__name__} ({shown(error, str)}) {where}; fix it")


def _state(environment: Environment) -> Any:
    """A copy of the environment's state, which may be a live object."""
    state = environment.state()
    try:
        return copy.deepcopy(state)
    except Exception as error:  # of the attributes' own types
        raise _Wrong(
            f"has a state that cannot be copied ({shown(error, str)})",
            "give it methods state() and restore() that leave out what cannot be copied, such as a lock or a client",
        ) from error


def _checked(messages: Any, method: str, least: int = 0) -> list[Message]:
    """Chat messages of an environment, as a list of their copies."""
    said = list(messages) if isinstance(messages, list | tuple) else None
    is_chat = said is not None and all(
        isinstance(each, dict) and all(isinstance(each.get(key), str) for key in ("role", "content")) for each in said
    )
    if said is None or not is_chat or len(said) < least:
        raise _Wrong(f"gave {shown(messages)} as messages of {method}", 'give a list of {"role", "content"}')
    if method == "step" and any(each["role"] == "assistant" for each in said):
        raise _Wrong("spoke as the role assistant, which is the policy's", "take another role, such as user")
    return [dict(each) for each in said]


def _at_start(opening: Opening) -> str:
    return f"at the start (prompt {prompt_of(opening.example)})"


def _generator(stream: Stream, turn: int) -> random.Random:
    return random.Random(f"{stream} turn {turn}")
