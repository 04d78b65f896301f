"""ReasoningGym against reasoning-gym itself; without it, the line that says how to get it."""

import random
import re
import sys
import time
from collections import Counter
from itertools import combinations

import pytest
import torch
from lightning import Trainer

from lit_rl.algorithms import REINFORCE
from lit_rl.callbacks import RewardCallback
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.errors import UsageError
from lit_rl.policy import TabularPolicy
from lit_rl.tasks import KeyToken, ReasoningGym, reasoning

IDS = torch.zeros(0, dtype=torch.long)
SPLITS = ("train", "val", "test")
FEW = {"train_size": 8, "val_size": 2, "test_size": 2}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def gym():
    return pytest.importorskip("reasoning_gym")


def test_a_mixture_has_its_weights_and_configurations(gym):
    parts = {"gcd": None, "lcm": {"weight": 3, "config": {"min_numbers": 4, "max_numbers": 4}}}
    rows = ReasoningGym(parts, train_size=600).prompts("train")
    counts = Counter(rows["dataset"])
    assert counts.total() == 600 and abs(counts["lcm"] - 450) < 5 * (600 * 0.75 * 0.25) ** 0.5
    for row in rows:
        numbers = re.findall(r"\d+", row["question"])
        assert len(numbers) == (4 if row["dataset"] == "lcm" else 2)
        words = "Least Common Multiple" if row["dataset"] == "lcm" else "Greatest Common Divisor"
        assert words in row["question"]


def test_splits_have_their_sizes_and_share_no_question_across_seeds_either(gym):
    sizes = {"train_size": 300, "val_size": 40, "test_size": 60}
    found = []
    for seed in (0, 1):
        task = ReasoningGym({"leg_counting": None, "gcd": None}, **sizes, seed=seed)
        for split in SPLITS:
            questions = set(task.prompts(split)["question"])
            assert len(questions) == sizes[f"{split}_size"]
            found.append((split, questions))
    assert all(split == other or not some & others for (split, some), (other, others) in combinations(found, 2))
    assert found[0][1] != found[3][1]


def test_a_split_is_the_same_whichever_was_asked_for_before(gym):
    task = ReasoningGym("gcd", **FEW)
    task.prompts("val")
    assert task.prompts("test").to_list() == ReasoningGym("gcd", **FEW).prompts("test").to_list()


@pytest.mark.parametrize("name", ["leg_counting", "prime_factorization", "graph_color", "countdown", "letter_jumble"])
def test_the_reward_is_the_data_sets_own_score_of_what_the_tags_hold(gym, name):
    task = ReasoningGym(name, **FEW)
    names, entries = task.prompts("train")["question"], {}
    data = gym.create_dataset(name, seed=0, size=1)
    for item in reasoning.different(name, {}, "0 train", "train", FEW["train_size"]):
        entries[item["question"]] = item
    assert list(entries) == names[:]
    for row, other in zip(task.prompts("train"), reversed(entries.values()), strict=True):
        item = entries[row["question"]]
        for answer in (item["answer"], other["answer"], "2", "2 × 3", "{}", ""):
            try:
                expected = data.score_answer(answer, item)
            except Exception:
                expected = 0
            text = f"I think <answer>1</answer>, no:\n<answer>\n{answer}</answer>." if answer is not None else ""
            assert task.score(row, IDS, text) == expected
            assert not answer or task.score_flexible(row, IDS, text) >= expected
        assert task.score(row, IDS, str(item["answer"])) == data.score_answer(None, item)
        assert task.unreadable(row, str(item["answer"])) and not task.unreadable(row, "<answer></answer>")


def test_the_tags_are_those_that_reasoning_gym_finds(gym):
    rng = random.Random(0)
    pieces = ["<answer>", "</answer>", " ", "\n", "a", "b", "<think>"]
    for _ in range(20_000):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 9)))
        assert reasoning.READERS["tags"](text) == gym.utils.extract_answer(text)
    started = time.perf_counter()
    reasoning.READERS["tags"]("<answer>" * 100_000)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    "answer, right", [("tags", "<answer>{}</answer>"), ("whole", "{}"), ("last_number", "It's {}.")]
)
def test_an_answer_is_read_as_set_and_the_flexible_score_reads_all_forms(gym, answer, right):
    task = ReasoningGym("leg_counting", **FEW, answer=answer)
    for row in task.prompts("train"):
        number = re.search(r"\d+", row["demonstration"])[0]
        assert task.score(row, IDS, row["demonstration"]) == task.score(row, IDS, right.format(number)) == 1
        texts = [form.format(number) for form in ("so <answer>{}</answer> it is", " {}\n", "It is {}, all in all")]
        assert [task.score_flexible(row, IDS, text) for text in texts] == [1, 1, 1]
        assert task.score_flexible(row, IDS, f"{number}1") < 1
        instruction = row["prompt"][0]["content"].removesuffix(row["question"])
        assert ("<answer>" in instruction) == (answer == "tags")


def test_no_response_breaks_or_holds_up_a_scorer(gym, monkeypatch):
    monkeypatch.setattr(reasoning, "SECONDS", 0.5)
    task = ReasoningGym({"countdown": None, "prime_factorization": None}, **FEW)
    rows = {row["dataset"]: row for row in task.prompts("train")}
    texts = [
        "",
        "abc",
        "9**9**9**9",
        "exit()",
        "input()",
        "٥ ☃ \U0001f600",
        "\ud800",
        "7 " * 10_000,
        "[" * 5000,
        "\x00",
    ]
    for row in rows.values():
        for text in texts:
            assert 0 <= task.score(row, IDS, f"<answer>{text}</answer>") <= 0.05
        assert task.score(row, IDS, row["demonstration"]) == 1


def test_accuracies_count_what_is_solved_alone():
    class Half(KeyToken):
        def score(self, example, ids, text):
            return 0.5 + super().score(example, ids, text) / 2

        def solved(self, scores):
            return (scores == 1).float()

    def accuracy(task):
        trainer = Trainer(**{**TRAINER_DEFAULTS, "max_epochs": 1, **QUIET})
        data = RolloutDataModule(task, prompts_per_iteration=2, rows_per_microbatch=2)
        [found] = trainer.validate(REINFORCE(TabularPolicy(4, 2), max_new_tokens=2), datamodule=data, verbose=False)
        return {name: found[f"val/{name}"] for name in ("accuracy", "accuracy_flexible", "accuracy_sampled")}

    assert accuracy(Half(4, 2)) == accuracy(KeyToken(4, 2))


def test_wrong_answers_that_are_paid_for_are_in_the_reward_and_in_no_accuracy(gym, policy):
    task = ReasoningGym("fraction_simplification", **FEW)
    trainer = Trainer(
        **{**TRAINER_DEFAULTS, "max_epochs": 1, "check_val_every_n_epoch": 1, **QUIET}, callbacks=[RewardCallback()]
    )
    data = RolloutDataModule(task, prompts_per_iteration=4, rows_per_microbatch=4)
    trainer.fit(REINFORCE(policy, max_new_tokens=4, learning_rate=0.0), datamodule=data)
    assert trainer.callback_metrics["train/reward"].item() == pytest.approx(0.01)
    assert trainer.callback_metrics["val/accuracy"] == trainer.callback_metrics["val/accuracy_flexible"] == 0
    assert trainer.callback_metrics["reward/unreadable"] == 1


def test_a_mixture_with_a_data_set_without_answers_has_no_demonstrations(gym):
    assert "demonstration" in ReasoningGym("gcd", **FEW).prompts("val").column_names
    assert "demonstration" not in ReasoningGym({"gcd": None, "graph_color": None}, **FEW).prompts("train").column_names


@pytest.mark.parametrize(
    "datasets, named",
    [
        ({}, "data.task.datasets is empty"),
        ("gdc", r"data.task.datasets: reasoning-gym has no data set 'gdc' \(did you mean gcd\?\)"),
        ("composite", "data.task.datasets: reasoning-gym has no data set 'composite'"),
        ({"gcd": 2}, "data.task.datasets.gcd is 2; give weight and config"),
        ({"gcd": {"wight": 2}}, "data.task.datasets.gcd.wight is no setting"),
        ({"gcd": {"weight": 0}}, "data.task.datasets.gcd.weight is 0; it must be above 0"),
        ({"gcd": {"weight": "x"}}, "data.task.datasets.gcd.weight is x; it must be a number"),
        ({"gcd": {"config": [1]}}, r"data.task.datasets.gcd.config is \[1\]; give the settings of gcd by name"),
        ({"gcd": {"config": {"max_number": 3}}}, r"gcd.config: gcd has no setting 'max_number' \(did you mean max_num"),
        ({"gcd": {"config": {"seed": 3}}}, "gcd.config.seed is not set here; set data.task.seed"),
        ({"gcd": {"config": {"max_numbers": 1}}}, "data.task.datasets.gcd.config: max_numbers must be"),
        ({"gcd": {"config": {"max_numbers": "x"}}}, "data.task.datasets.gcd.config: .*not supported"),
    ],
)
def test_other_data_sets_are_refused_in_one_line(gym, datasets, named):
    with pytest.raises(UsageError, match=named) as caught:
        ReasoningGym(datasets)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings, named",
    [
        (
            {"datasets": {"gcd": {"config": {"min_value": 1, "max_value": 3}}}},
            r"^data.task.train_size: gcd has \d+ diff",
        ),
        ({"datasets": "game_of_life_halting", **FEW}, "the score of game_of_life_halting is 1 for '\\?', too"),
        ({"datasets": "syllogism", **FEW, "answer": "last_number"}, "data.task.answer: 'last_number' does not read"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_before_it_is_sampled(gym, settings, named):
    with pytest.raises(UsageError, match=named) as caught:
        ReasoningGym(**settings).prompts("train")
    assert "\n" not in str(caught.value)


def test_a_generator_that_fails_is_named(gym, monkeypatch):
    kind = type(gym.create_dataset("gcd", seed=0, size=1))
    monkeypatch.setattr(kind, "__getitem__", lambda self, i: 1 // 0)
    with pytest.raises(UsageError, match=r"data\.task\.datasets\.gcd\.config: its generator raised ZeroDivisionError"):
        ReasoningGym("gcd").prompts("val")


def test_a_split_that_takes_long_to_make_is_told(gym, monkeypatch, capsys):
    monkeypatch.setattr(reasoning, "SLOW", 0.0)
    ReasoningGym("gcd", train_size=32).prompts("train")
    said = capsys.readouterr().err
    assert said.startswith("lit_rl: data.task.train_size: 32 problems of gcd") and said.count("\n") == 1


def test_without_reasoning_gym_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(
        UsageError, match=r"^data\.task: ReasoningGym .* take reasoning-gym; pip install 'lit-rl\[symbolic\]'$"
    ):
        ReasoningGym("gcd")
