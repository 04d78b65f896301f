"""A game of several turns whose values are known exactly: a number is guessed by hints."""

import random
from collections.abc import Callable, Sequence
from functools import cache

from datasets import Dataset

from lit_rl.ranges import Count, Seed, Several, Share
from lit_rl.tasks.answers import last_number
from lit_rl.tasks.base import Example, Split, Task
from lit_rl.tasks.environment import Environment, Message, Turn

Strategy = Callable[[int, int, int], Sequence[float]]


class Hints(Environment):
    """Says whether the number is higher or lower than the guess, which is the last number of a turn.

    Attributes:
        left: guesses.
    """

    def __init__(self, largest: int, guesses: int) -> None:
        self.largest, self.left = largest, guesses
        self.number = 0

    def reset(self, example: Example) -> Sequence[Message]:
        self.number = example["number"]
        return example["prompt"]

    def step(self, text: str) -> Turn:
        guess = last_number(text)
        self.left -= 1
        if guess == self.number or not self.left:
            return Turn(reward=float(guess == self.number), done=True)
        if guess is None:
            return _said(f"a number from 1 to {self.largest}")
        return _said("higher" if guess < self.number else "lower")


class GuessNumber(Task):
    """Guess a number; after each wrong guess there is a hint, higher or lower.

    The reward is 1 for the turn that has the number, and 0 for others. A turn's guess is its last number; one without a
    number is a wrong guess. All problems have the same prompt, and all numbers are equally likely in each. The column
    ``demonstration`` has the guesses of a player who heeds the hints now and then.

    Args:
        largest: numbers are 1 to this.
        guesses: that the policy has. By halving, (2^guesses - 1) / largest of all numbers can be found.
        train_size: problems of the training split.
        val_size: problems of the validation split.
        test_size: problems of the test split.
        seed: of the numbers.
        heed: share of the guesses in demonstrations that are drawn from the numbers that the hints leave; the others
            are drawn from all numbers.
    """

    def __init__(
        self,
        largest: Several = 8,
        guesses: Count = 3,
        train_size: Count = 1024,
        val_size: Count = 256,
        test_size: Count = 512,
        seed: Seed = 0,
        heed: Share = 0.5,
    ) -> None:
        self.largest, self.guesses, self.seed, self.heed = largest, guesses, seed, heed
        self.sizes: dict[str, int] = {"train": train_size, "val": val_size, "test": test_size}
        self._splits: dict[str, Dataset] = {}

    def prompts(self, split: Split) -> Dataset:
        if split not in self._splits:
            rng = random.Random(f"{self.seed} {self.largest} {split}")
            text = (
                f"Guess my number from 1 to {self.largest}. After a wrong guess I say higher or lower. "
                f"Guesses: {self.guesses}. Give only a number."
            )
            prompt = [{"role": "user", "content": text}]
            numbers = [rng.randint(1, self.largest) for _ in range(self.sizes[split])]
            self._splits[split] = Dataset.from_list(
                [{"prompt": prompt, "number": number, "demonstration": self._play(rng, number)} for number in numbers]
            )
        return self._splits[split]

    def _play(self, rng: random.Random, number: int) -> list[str]:
        """The guesses of a demonstration."""
        told: list[str] = []
        low, high = 1, self.largest
        while len(told) < self.guesses and str(number) not in told:
            guess = rng.randint(low, high) if rng.random() < self.heed else rng.randint(1, self.largest)
            told.append(str(guess))
            low, high = max(low, guess + 1) if guess < number else low, min(high, guess - 1) if guess > number else high
        return told

    def environment(self, example: Example) -> Hints:
        return Hints(self.largest, self.guesses)

    @staticmethod
    def value(low: int, high: int, guesses: int, strategy: Strategy | None = None) -> float:
        """The exact chance to guess a number that is, for all one knows, equally likely ``low`` to ``high``.

        Args:
            guesses: that are left.
            strategy: gives the probabilities of the guesses ``low`` to ``high``, from ``low``, ``high`` and the guesses
                left. What they lack to 1 is of guesses that tell nothing. None is the best strategy.
        """

        @cache
        def chance(low: int, high: int, left: int) -> float:
            size = high - low + 1
            if size < 1 or not left:
                return 0.0
            if strategy is None:
                return min(1.0, (2**left - 1) / size)
            found = 0.0
            p = strategy(low, high, left)
            for guess, q in zip(range(low, high + 1), p, strict=True):
                below, above = guess - low, high - guess  # numbers, for each of which the hint is the same
                later = below * chance(low, guess - 1, left - 1) + above * chance(guess + 1, high, left - 1)
                found += q * (1 + later) / size
            return found + (1 - sum(p)) * chance(low, high, left - 1)

        return chance(low, high, guesses)


def _said(text: str) -> Turn:
    return Turn([{"role": "user", "content": text}])
