"""The tasks of several turns: values against enumeration and play, calls against Python."""

import random
import re
from itertools import product

import pytest

from lit_rl.tasks import AskForMissing, Calculator, GSM8KStyle, GuessNumber
from lit_rl.tasks.answers import hash_answer
from lit_rl.tasks.asking import evaluate


def played(task, number, strategy):
    """Whether a strategy of low, high and the guesses left finds the number, by hints alone, in the task's words."""
    example = {"prompt": [], "number": number}
    game = task.environment(example)
    game.reset(example)
    low, high = 1, task.largest
    for left in range(task.guesses, 0, -1):
        text = strategy(low, high, left)
        turn = game.step(text)
        if turn.done:
            return turn.reward
        (message,) = turn.messages
        assert message["role"] == "user"
        if message["content"] == "higher":
            low = int(text.split()[-1]) + 1
        elif message["content"] == "lower":
            high = int(text.split()[-1]) - 1


@pytest.mark.parametrize(("largest", "guesses"), [(8, 3), (7, 3), (5, 2), (20, 4), (2, 5)])
def test_halving_earns_the_best_value(largest, guesses):
    task = GuessNumber(largest, guesses)

    def halving(low, high, left):  # as long as a half is not too small for what is left, the other end is of no use
        size, reach = high - low + 1, 2 ** (left - 1)
        return f"I say {low + min(reach, (size + 1) // 2) - 1}"

    wins = sum(played(task, number, halving) for number in range(1, largest + 1))
    assert wins / largest == pytest.approx(task.value(1, largest, guesses))


@pytest.mark.parametrize("largest", [2, 3, 4, 5])
def test_no_strategy_is_better_than_the_best_value(largest):
    """All guesses that two turns can have, written out: a first one, and one behind each hint."""
    best = 0
    for first, low, high in product(range(1, largest + 1), repeat=3):
        found = sum(n == first or n == (high if n > first else low) for n in range(1, largest + 1))
        best = max(best, found / largest)
    assert GuessNumber.value(1, largest, 2) == pytest.approx(best)


def test_the_value_of_a_strategy_is_its_share_of_wins():
    """20,000 games of one that guesses at random where the number may be, and says nonsense one time in five."""
    task, rng = GuessNumber(8, 3), random.Random(0)

    def wild(low, high, left):
        return str(rng.randint(low, high)) if rng.random() < 0.8 else "hm"

    wins = [played(task, rng.randint(1, 8), wild) for _ in range(20_000)]
    value = task.value(1, 8, 3, lambda low, high, left: [0.8 / (high - low + 1)] * (high - low + 1))
    assert abs(sum(wins) / len(wins) - value) < 4 * (value * (1 - value) / len(wins)) ** 0.5
    assert value < task.value(1, 8, 3)


def test_hints_tell_what_they_tell_and_no_more():
    task = GuessNumber(8, 9)
    game = task.environment({})
    game.reset({"prompt": [], "number": 5})
    said = [game.step(text).messages[0]["content"] for text in ("7.5", "2, no: 3", "", "9", "1")]
    assert said == ["lower", "higher", "a number from 1 to 8", "lower", "higher"]
    assert game.left == 4 and game.step("5").reward == 1


def test_numbers_are_drawn_alike_in_every_split():
    task = GuessNumber(4, train_size=4000)
    assert task.prompts("train")["number"] == GuessNumber(4, train_size=4000).prompts("train")["number"]
    counts = [task.prompts("train")["number"].count(number) for number in range(1, 5)]
    assert all(abs(count - 1000) < 4 * (4000 * 3 / 16) ** 0.5 for count in counts)
    assert task.prompts("val")["number"][:50] != task.prompts("test")["number"][:50]


def test_a_call_is_answered_and_the_rest_is_the_answer():
    task = Calculator(calls=2, train_size=20)
    for example in task.prompts("train"):
        tool = task.environment(example)
        assert tool.reset(example) == example["prompt"] and "calc: " in example["prompt"][0]["content"]
        expression = example["question"].removeprefix("What is ").removesuffix("?")
        value = int(hash_answer(example["answer"]))
        turn = tool.step(f"Let me see.\ncalc: {expression}")
        assert turn.messages[0]["content"] == f"= {value}" and not turn.done and turn.reward == 0
        state = tool.state()
        assert tool.step(f"It is {value}").reward == 1 and tool.step("It is 10000.").reward == 0
        assert not tool.step("calc: 1").done
        assert tool.step("calc: 1").done  # the third call
        tool.restore(state)
        assert not tool.step("calc: 1").done


def test_calls_are_python_arithmetic_and_nothing_else():
    rng = random.Random(0)
    for _ in range(200):
        text = str(rng.randint(0, 99))
        for _ in range(rng.randint(0, 5)):
            text = rng.choice(["({0}) {1} {2}", "{2} {1} ({0})", "-{0} {1} {2}"]).format(
                text, rng.choice("+-*"), rng.randint(0, 99)
            )
        assert evaluate(text) == (eval(text) if len(text) <= 100 else None)
    for text in ("", "1 / 2", "2 ** 9", "x", "__import__('os')", "1 if 1 else 2", "1.5", "True", "(" * 90, "1" * 101):
        assert evaluate(text) is None


def test_what_is_missing_is_told_to_those_who_ask():
    task = AskForMissing(3, questions=2, train_size=60)
    whole = GSM8KStyle(3, train_size=60).prompts("train")
    seen = set()
    for example, row in zip(task.prompts("train"), whole, strict=True):
        person, value = task.environment(example), int(hash_answer(example["answer"]))
        assert person.reset(example) == [{"role": "user", "content": example["question"]}]
        assert len(re.findall(r"\d+", example["question"])) == 3 and "demonstration" not in example
        told = person.step("How many?")
        assert not told.done and told.reward == 0
        sentence = told.messages[0]["content"]
        gap = re.sub(r"\d+", "several" if "times" in sentence else "some", sentence)
        assert example["question"].replace(gap, sentence) == row["question"]
        seen.add(row["question"].index(sentence) == 0)
        assert person.step(f"#### {value}").reward == 1 and person.step(f"#### {value + 1}").reward == 0
        assert not person.step("What?").done and person.step("Again?").done
    assert seen == {True, False}
