"""What a task is: prompts, and a score for a response."""

import hashlib
from abc import ABC, abstractmethod
from typing import Any, Literal

from datasets import Dataset
from torch import Tensor

from lit_rl.errors import UsageError
from lit_rl.ranges import Ranged
from lit_rl.tasks.environment import Environment

Split = Literal["train", "val", "test"]
Example = dict[str, Any]


class Task(Ranged, ABC, setting="data.task"):
    """A source of prompts with a reward. It knows nothing of policies, algorithms or training.

    The reward comes from :meth:`score`, or from the :meth:`environment` that answers the policy.

    Attributes:
        scored_by: the setting that scores come from, for messages.

    Raises:
        UsageError: a subclass has neither of the two.
    """

    scored_by = "data.task"

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls.score is Task.score and not cls.converses():
            raise UsageError(f"data.task: {cls.__name__} has neither score nor environment; write one of them")
        return super().__new__(cls, *args, **kwargs)

    @abstractmethod
    def prompts(self, split: Split) -> Dataset:
        """The examples of a split, ``train``, ``val`` or ``test``.

        The column ``prompt`` holds chat messages (``[{"role", "content"}, ...]``). The column ``demonstration``, if
        there is one, holds a response to imitate: a text or, where an environment answers, the texts of the policy's
        turns. The other columns are the task's own.
        """

    def environment(self, example: Example) -> Environment | None:
        """What speaks between the policy's turns, made anew for each response; its rewards take the place of scores.

        None where a response is one turn. A task has an environment for each of its examples, or for none.
        """
        return None

    @classmethod
    def converses(cls) -> bool:
        """Whether responses may have several turns."""
        return cls.environment is not Task.environment

    def score(self, example: Example, ids: Tensor, text: str) -> float:
        """The reward of a response, given as token ids ``[tokens]`` and as text without special tokens."""
        raise NotImplementedError("a task without an environment scores its responses")

    def score_flexible(self, example: Example, ids: Tensor, text: str) -> float:
        """A more lenient score. It is logged beside :meth:`score` and never trained on."""
        return self.score(example, ids, text)

    def solved(self, scores: Tensor) -> Tensor:
        """What scores [N] count for in the accuracies of validation and test: themselves.

        A task that pays for wrong answers, too, overrides it.
        """
        return scores

    def unreadable(self, example: Example, text: str) -> bool:
        """Whether no answer can be read in a response; logged by tasks that override it."""
        return False


def split_of(text: str) -> Split:
    """The split of the problem that a text describes: a function of the text alone (8 : 1 : 1)."""
    bucket = hashlib.sha256(text.encode()).digest()[0] % 10
    return "val" if bucket == 8 else "test" if bucket == 9 else "train"


def at_most_a_tenth(held_out: int, rows: int) -> int:
    """How many of so many rows are kept from training for a split: ``held_out``, at most a tenth, at least one."""
    return max(1, min(held_out, rows // 10))
