"""The tasks of several turns: values against enumeration and play, calls against Python."""

import random
import re
from itertools import product

import pytest

from lit_rl.tasks import AskForMissing, Calculator, GSM8KStyle, GuessNumber
from lit_rl.tasks.answers import hash_answer
from lit_rl.tasks.asking import evaluate
from lit_rl.tasks.gsm8k_style import FACTORS, STARTS, SUMMANDS


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
        assert len(re.findall(r"\d+", example["question"])) == 3
        told = person.step("How many?")
        assert not told.done and told.reward == 0
        sentence = told.messages[0]["content"]
        gap = re.sub(r"\d+", "several" if "times" in sentence else "some", sentence)
        assert example["question"].replace(gap, sentence) == row["question"]
        seen.add(row["question"].index(sentence) == 0)
        assert person.step(f"#### {value}").reward == 1 and person.step(f"#### {value + 1}").reward == 0
        assert not person.step("What?").done and person.step("Again?").done
    assert seen == {True, False}


def said(task, example):
    """What the demonstration's turns are answered, and what they earn in all; the environment is done with the last."""
    environment = task.environment(example)
    environment.reset(example)
    turns = [environment.step(text) for text in example["demonstration"]]
    return [turn.messages[0]["content"] for turn in turns[:-1]], turns[-1].reward if turns[-1].done else None


@pytest.mark.parametrize("steps", [2, 3])
def test_a_demonstration_asks_for_what_is_missing_or_makes_it_up(steps):
    """Those who make up the start value draw it from 26 numbers, and so on; without planted errors the others win."""
    task = AskForMissing(steps, ask_rate=0.3, error_scale=0, train_size=400)
    asked, lucky, due = 0, 0, []
    for example in task.prompts("train"):
        answers, reward = said(task, example)
        *question, solution = example["demonstration"]
        if question:
            assert answers == [example["missing"]] and reward == 1 and solution == example["answer"]
            sentence = question[0].removesuffix(": how many?")
            assert f"{sentence}." in example["question"] and ("some" in sentence or "several" in sentence)
            asked += 1
            continue
        first = " has " in example["missing"] and "times" not in example["missing"]
        low, high = STARTS if first else FACTORS if "times" in example["missing"] else SUMMANDS
        made_up, right = (
            [int(n) for step in re.findall(r"(\d+)[-+*](\d+)=<<", text) for n in step]
            for text in (solution, example["answer"])
        )
        given = list(zip([made_up[0], *made_up[1::2]], [right[0], *right[1::2]], strict=True))
        assert all(low <= mine <= high for mine, theirs in given if mine != theirs)
        assert sum(mine != theirs for mine, theirs in given) <= 1
        same = solution == example["answer"]
        assert same <= (reward == 1)
        lucky += same
        due.append(1 / (high - low + 1))
    assert abs(asked - 0.3 * 400) < 4 * (400 * 0.3 * 0.7) ** 0.5
    assert abs(lucky - sum(due)) < 4 * sum(p * (1 - p) for p in due) ** 0.5


@pytest.mark.parametrize("heed", [0, 1])
def test_guesses_of_demonstrations_heed_the_hints_as_often_as_asked(heed):
    task = GuessNumber(8, 3, heed=heed, train_size=2000)
    wins, second = 0, []
    for example in task.prompts("train"):
        answers, reward = said(task, example)
        guesses = [int(text) for text in example["demonstration"]]
        wins += reward
        assert (reward == 1) == (guesses[-1] == example["number"]) and len(guesses) <= 3
        for i, guess in enumerate(guesses):
            left = [
                n
                for n in range(1, 9)
                if all((a == "higher") == (n > g) for a, g in zip(answers[:i], guesses[:i], strict=True))
            ]
            assert not heed or guess in left
        second += guesses[1:2]
    share = GuessNumber.value(1, 8, 3, lambda low, high, left: [1 / (high - low + 1)] * (high - low + 1))
    expected = share if heed else 1 - (7 / 8) ** 3
    assert abs(wins / 2000 - expected) < 4 * (expected * (1 - expected) / 2000) ** 0.5
    assert set(second) == set(range(1, 9))


@pytest.mark.parametrize("answer", ["last_number", "boxed"])
def test_a_demonstration_calls_or_is_about_right(answer):
    task = Calculator(call_rate=0.4, answer=answer, train_size=300)
    calls = 0
    for example in task.prompts("train"):
        answers, reward = said(task, example)
        value = int(hash_answer(example["answer"]))
        off = int(re.search(r"-?\d+", example["demonstration"][-1])[0]) - value
        calls += bool(answers)
        assert answers in ([], [f"= {value}"]) and reward == (off == 0) and abs(off) <= (0 if answers else 5)
    assert abs(calls - 120) < 4 * (300 * 0.24) ** 0.5
