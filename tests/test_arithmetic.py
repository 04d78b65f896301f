"""Arithmetic's problems, read and solved by Python's own parser."""

import ast
import re
from collections import Counter
from itertools import combinations

import pytest
import torch

from lit_rl.errors import UsageError
from lit_rl.tasks import Arithmetic

IDS = torch.zeros(0, dtype=torch.long)
SPLITS = ("train", "val", "test")
ALL = {"terms": (2, 3, 5), "largest": 12, "operators": "+-*"}


def expression(row) -> str:
    return re.fullmatch(r"What is ([\d +*-]+)\? Give only the final number\.", row["prompt"][0]["content"])[1]


def solved(text: str) -> int:
    return eval(compile(ast.parse(text, mode="eval"), "problem", "eval"))


def same_arithmetic(text: str) -> Counter:
    """The signed summands of an expression, each as its factors in any order."""

    def summands(node, sign):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            yield from summands(node.left, sign)
            yield from summands(node.right, sign if isinstance(node.op, ast.Add) else -sign)
        else:
            yield sign, tuple(sorted(each.value for each in ast.walk(node) if isinstance(each, ast.Constant)))

    return Counter(summands(ast.parse(text, mode="eval").body, 1))


@pytest.mark.parametrize("answer", ["last_number", "hash", "boxed"])
def test_the_right_number_alone_scores_in_the_form_asked_for(answer):
    task = Arithmetic(**ALL, train_size=300, answer=answer)
    plain = Arithmetic(**ALL, train_size=300).prompts("train")
    for row, same in zip(task.prompts("train"), plain, strict=True):
        right = solved(expression(same))
        assert row["question"] == f"What is {expression(same)}?" and row["answer"] == f"#### {right}"
        assert task.score(row, IDS, row["demonstration"]) == task.score_flexible(row, IDS, f"It is {right}.") == 1
        for wrong in ("", "none", row["demonstration"].replace(str(right), str(right + 1))):
            assert task.score(row, IDS, wrong) == 0
        assert same["demonstration"] == str(right)


def test_terms_numbers_and_operators_are_as_set_and_equally_frequent():
    expressions = [expression(row) for row in Arithmetic(**ALL, train_size=3000).prompts("train")]
    numbers = Counter(int(n) for text in expressions for n in re.findall(r"\d+", text))
    operators = Counter(operator for text in expressions for operator in re.findall(r"[-+*]", text))
    terms = Counter(len(text.split()) // 2 + 1 for text in expressions)
    assert set(numbers) == set(range(1, 13)) and set(operators) == set("+-*") and set(terms) == {2, 3, 5}
    for counts in (numbers, operators, terms):
        share, total = 1 / len(counts), counts.total()
        assert all(abs(count - share * total) < 5 * (total * share * (1 - share)) ** 0.5 for count in counts.values())


def test_the_default_is_two_or_three_numbers_up_to_20():
    expressions = [expression(row) for row in Arithmetic(train_size=2000).prompts("train")]
    assert {len(text.split()) // 2 + 1 for text in expressions} == {2, 3}
    assert {int(n) for text in expressions for n in re.findall(r"\d+", text)} == set(range(1, 21))
    assert {operator for text in expressions for operator in re.findall(r"[-+*]", text)} == {"+", "-"}


def test_splits_share_no_arithmetic_across_seeds_either():
    sizes = {"train_size": 1000, "val_size": 100, "test_size": 150}
    found = []
    for seed in (0, 1):
        task = Arithmetic(**ALL, **sizes, seed=seed)
        for split in SPLITS:
            rows = task.prompts(split)
            assert len(rows) == sizes[f"{split}_size"]
            found.append((split, {frozenset(same_arithmetic(expression(row)).items()) for row in rows}))
    assert all(split == other or not some & others for (split, some), (other, others) in combinations(found, 2))
    assert found[0][1] != found[3][1]


def test_a_split_is_the_same_whichever_was_asked_for_before():
    task = Arithmetic(test_size=90)
    task.prompts("val")
    assert task.prompts("test").to_list() == Arithmetic(test_size=90).prompts("test").to_list()


def test_an_instruction_of_ones_own_stands_behind_the_question():
    row = Arithmetic(instruction="Explain.", train_size=1).prompts("train")[0]
    assert row["prompt"][0]["content"] == f"{row['question']} Explain."
    assert Arithmetic(instruction="").prompts("val")[0]["prompt"][0]["content"].endswith("?")


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"terms": []}, "data.task.terms is empty"),
        ({"terms": [2, 1]}, r"data.task.terms is \[2, 1\]; each must be at least 2"),
        ({"operators": ""}, "data.task.operators is ''"),
        ({"operators": "+/"}, r"data.task.operators is '\+/'"),
        ({"operators": "++"}, r"data.task.operators is '\+\+'"),
        (
            {"terms": [2], "largest": 9, "operators": "+"},
            r"data.task.largest is 9: .* 81 different problems, .*\(8960\)",
        ),
        ({"answer": "first"}, "data.task.answer is first"),
    ],
)
def test_other_settings_are_refused_in_one_line(settings, named):
    with pytest.raises(UsageError, match=named) as caught:
        Arithmetic(**settings)
    assert "\n" not in str(caught.value)


def test_a_split_without_problems_is_an_error_and_no_endless_search():
    task = Arithmetic(terms=[2], largest=2, operators="+", train_size=1, val_size=1, test_size=1)
    errors = []
    for split in SPLITS:
        try:
            task.prompts(split)
        except UsageError as error:
            errors.append(str(error))
    assert errors and all("data.task.largest is 2: no problem of 2 numbers" in error for error in errors)
