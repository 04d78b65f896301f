"""Tasks against an independent reading of their own text."""

import json
import re
from collections import Counter

import pytest
import torch

from lit_rl.errors import UsageError
from lit_rl.tasks import GSM8K, GSM8KStyle
from lit_rl.tasks.answers import hash_answer

IDS = torch.zeros(0, dtype=torch.long)


def understand(question: str) -> int:
    """The right answer, read from the English."""
    value = int(re.search(r"has (\d+)", question)[1])
    for sentence in question.split(". ")[1:-1]:
        n = int(re.search(r"\d+", sentence)[0])
        if re.search("buys|finds", sentence):
            value += n
        elif re.search("gives away|loses", sentence):
            value -= n
        else:
            assert "times as many" in sentence
            value *= n
    return value


@pytest.mark.parametrize("steps", [2, 5, 8])
def test_style_answers_are_right_and_in_the_format(steps):
    task = GSM8KStyle(steps=steps, train_size=300, val_size=20, test_size=20)
    for row in task.prompts("train"):
        assert row["prompt"] == [{"role": "user", "content": row["question"]}]
        assert hash_answer(row["answer"]) == understand(row["question"])
        assert row["answer"].splitlines()[-1] == f"#### {understand(row['question'])}"
        assert task.score(row, IDS, row["answer"]) == task.score_flexible(row, IDS, row["answer"]) == 1
        for text in (row["answer"], row["demonstration"]):
            found = re.findall(r" (\d+)([-+*])(\d+)=<<\1\2\3=(\d+)>>\4 ", text)
            assert len(found) == steps
            for a, operator, b, result in found:
                assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[operator] == int(result)


@pytest.mark.parametrize("steps", [2, 8])
def test_style_splits_share_no_arithmetic(steps):
    seen = []
    for seed in (0, 1):
        task = GSM8KStyle(steps=steps, seed=seed, train_size=2000, val_size=200, test_size=200)
        for split in ("train", "val", "test"):
            questions = task.prompts(split)["question"]
            # names and things out, numbers and verbs in
            skeletons = {
                re.sub(r"[A-Z][a-z]+ |(?<=\d )[a-z]+(?=\.)", "", q.rsplit(". ", 1)[0] + ".") for q in questions
            }
            seen.append((split, skeletons))
    for i, (split, a) in enumerate(seen):
        for other, b in seen[:i]:
            assert split == other or not a & b


def test_style_is_the_same_every_time():
    first, again = (GSM8KStyle(train_size=50).prompts("train").to_list() for _ in range(2))
    assert first == again


def test_style_plants_errors_at_the_stated_rate():
    """A one-event view: the share of 'finds' steps demonstrated with '-' is 0.5 within 4 standard errors."""
    rows = GSM8KStyle(train_size=6000).prompts("train")
    wrong = []
    for row in rows:
        sentence = row["question"].split(". ")[1]
        if "finds" in sentence and int(re.search(r"has (\d+)", row["question"])[1]) >= 9:
            wrong.append(re.search(r"\d+([-+*])", row["demonstration"])[1] == "-")
    assert abs(sum(wrong) / len(wrong) - 0.5) < 4 * (0.25 / len(wrong)) ** 0.5


def test_style_mixes_lengths_equally_often():
    rows = GSM8KStyle(steps=4, most_steps=8, train_size=2000).prompts("train")
    counts = Counter(len(row["answer"].splitlines()) - 1 for row in rows)
    assert set(counts) == {4, 5, 6, 7, 8}
    assert all(abs(count - 400) < 4 * (2000 * 0.2 * 0.8) ** 0.5 for count in counts.values())


def test_style_scales_the_planted_errors():
    right, planted = (GSM8KStyle(error_scale=scale, train_size=500).prompts("train") for scale in (0.0, 1.0))
    assert right["demonstration"] == right["answer"] == planted["answer"] != planted["demonstration"]


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"steps": 1}, "data.task.steps is 1"),
        ({"steps": 9}, "data.task.steps is 9"),
        ({"steps": 4, "most_steps": 3}, "data.task.most_steps is 3"),
        ({"most_steps": 9}, "data.task.most_steps is 9"),
        ({"error_scale": 1.5}, "data.task.error_scale is 1.5"),
    ],
)
def test_style_refuses_other_settings(settings, named):
    with pytest.raises(UsageError, match=named):
        GSM8KStyle(**settings)


def test_verifier_compares_numbers_not_strings():
    task, example = GSM8KStyle(), {"answer": "#### 1200"}
    assert [task.score(example, IDS, f"#### {n}") for n in ("1,200", "$1200.00", "1200.", "120", "01200")] == [
        1,
        1,
        1,
        0,
        1,
    ]
    assert task.score(example, IDS, "1200") == 0 and task.score_flexible(example, IDS, "1200") == 1


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def problem(i):
    return {"question": f"What is {i}+{i}?", "answer": f"{i}+{i}=<<{i}+{i}={2 * i}>>{2 * i}\n#### {2 * i}"}


def test_gsm8k_from_a_file_in_three_disjoint_parts(tmp_path):
    task = GSM8K(path=write(tmp_path / "problems.jsonl", map(problem, range(40))))
    parts = {split: set(task.prompts(split)["question"]) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 32, "val": 4, "test": 4}
    assert len(set.union(*parts.values())) == 40
    row = task.prompts("train")[0]
    assert row["prompt"][0]["content"].endswith(row["question"]) and task.score(row, IDS, row["answer"]) == 1


@pytest.mark.parametrize(
    "rows, complaint",
    [
        ([problem(1), {"question": "And?"}, problem(2)], "line 2 has no 'answer'"),
        ([problem(1), problem(2), {"question": "And?", "answer": "seven"}], "line 3: 'answer' has no '#### number'"),
        ([problem(1), "{nonsense", problem(2)], "line 2 is not JSON"),
        ([problem(1), "[1, 2]", problem(2)], "line 2 is not a JSON object"),
        ([problem(1), problem(2)], "has 2 problems"),
    ],
)
def test_gsm8k_names_the_file_and_the_line(tmp_path, rows, complaint):
    path = write(tmp_path / "problems.jsonl", rows)
    with pytest.raises(UsageError, match=re.escape(complaint)) as caught:
        GSM8K(path=path).prompts("train")
    assert path in str(caught.value) and "\n" not in str(caught.value)


def test_gsm8k_names_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"data\.task\.path: no file nowhere\.jsonl"):
        GSM8K(path="nowhere.jsonl").prompts("val")
