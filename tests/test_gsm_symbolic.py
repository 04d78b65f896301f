"""GSM-Symbolic's splits and scores; without reasoning-gym, the line that says how to get it."""

import sys
from itertools import pairwise

import pytest
import torch

from lit_rl.errors import UsageError
from lit_rl.tasks import GSMSymbolic
from lit_rl.tasks.answers import hash_answer, last_number

IDS = torch.zeros(0, dtype=torch.long)
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def rows():
    """Every split of two seeds."""
    pytest.importorskip("reasoning_gym")
    sizes = {"train_size": 600, "val_size": 60, "test_size": 90}
    return {
        (seed, split): GSMSymbolic(**sizes, seed=seed).prompts(split).to_list() for seed in (0, 1) for split in SPLITS
    }


def test_splits_have_their_sizes_and_share_no_question(rows):
    questions = {key: {row["question"] for row in part} for key, part in rows.items()}
    assert [len(questions[0, split]) for split in SPLITS] == [600, 60, 90]
    for (_, split), some in questions.items():
        assert all(split == other or not some & others for (_, other), others in questions.items())
    assert questions[0, "train"] != questions[1, "train"]


def test_a_split_is_the_same_whichever_was_asked_for_before(rows):
    task = GSMSymbolic(test_size=90)
    task.prompts("val")
    assert task.prompts("test").to_list() == rows[0, "test"]


def test_each_answer_solves_its_own_problem_alone(rows):
    task = GSMSymbolic()
    problems = rows[0, "train"]
    for row, other in pairwise(problems):
        assert row["prompt"] == [{"role": "user", "content": task.instruction + row["question"]}]
        assert "final answer" not in row["question"]  # the instruction says what to end with
        assert task.score(row, IDS, row["answer"]) == task.score_flexible(row, IDS, row["demonstration"]) == 1
        same = hash_answer(row["answer"]) == hash_answer(other["answer"])
        assert task.score(row, IDS, other["answer"]) == task.score_flexible(row, IDS, other["answer"]) == same


def test_the_format_counts_for_the_strict_score_alone_and_wrong_answers_earn_nothing(rows):
    task = GSMSymbolic()
    row = next(row for row in rows[0, "train"] if last_number(row["answer"]) >= 1000)
    n = int(last_number(row["answer"]))
    both = [f"#### {n}", f"#### {n:,}", f"so\n#### ${n:,}.", f"#### {n}.00", f"#### 1\nno:\n#### {n} pens"]
    loose = [f"{n}", f"5 and 6 are 11, no, {n:,}.", f"\\boxed{{{n}}}"]
    wrong = [f"#### {n + 1}", f"{n} is not the answer, {n + 1} is", f"#### -{n}", "####", ""]
    for texts, strict, flexible in ((both, 1, 1), (loose, 0, 1), (wrong, 0, 0)):
        assert {(task.score(row, IDS, text), task.score_flexible(row, IDS, text)) for text in texts} == {
            (strict, flexible)
        }


def test_without_reasoning_gym_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(
        UsageError, match=r"^data\.task: .*GSMSymbolic take reasoning-gym; pip install 'lit-rl\[symbolic\]'$"
    ):
        GSMSymbolic().prompts("val")


@pytest.mark.parametrize("split", SPLITS)
def test_an_empty_split_is_refused(split):
    with pytest.raises(UsageError, match=rf"data\.task\.{split}_size is 0"):
        GSMSymbolic(**{f"{split}_size": 0})
