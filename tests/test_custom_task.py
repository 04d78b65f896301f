"""A task of the user's own data and reward, and GSM8K as the hub lays it out."""

import json
import re
from itertools import chain
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from datasets import Dataset, DatasetDict

from lit_rl.errors import UsageError
from lit_rl.tasks import GSM8K, Custom

IDS = torch.zeros(0, dtype=torch.long)
ROWS = [{"prompt": f"{i} + {i} = ?", "answer": str(2 * i), "level": i % 3} for i in range(40)]
SPLITS = ("train", "val", "test")


def says_answer(example, ids, text):
    return example["answer"] in text


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Nothing is asked of the hub, nothing left in the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def write(path, rows):
    """Rows, or lines, as the file's ending says."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if isinstance(rows, str):
        Path(path).write_text(rows)
    elif path.endswith(".json"):
        Path(path).write_text(json.dumps(rows))
    else:
        {"jsonl": Dataset.to_json, "csv": Dataset.to_csv, "parquet": Dataset.to_parquet}[path.split(".")[1]](
            Dataset.from_list(rows), path
        )
    return path


def prompts(task):
    """The texts of each split."""
    return {split: [row["prompt"][0]["content"] for row in task.prompts(split)] for split in SPLITS}


@pytest.mark.parametrize("path", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "folder/train.jsonl", "saved"])
def test_a_source_of_one_split_is_parted_in_three(path):
    if path == "saved":
        Dataset.from_list(ROWS).save_to_disk(path)
    else:
        write(path, ROWS)
    path = path.split("/")[0]
    parts, again = (prompts(Custom(path, says_answer)) for _ in range(2))
    assert parts == again and [len(parts[split]) for split in SPLITS] == [32, 4, 4]
    assert sorted(chain(*parts.values())) == sorted(row["prompt"] for row in ROWS)
    row = Custom(path, says_answer).prompts("val")[0]
    assert eval(row["prompt"][0]["content"].split("=")[0]) == int(row["answer"]) and row["level"] in (0, 1, 2)


def test_the_splits_of_the_source_are_kept_unless_others_are_named():
    parts = {"train": ROWS[:20], "validation": ROWS[20:25], "test": ROWS[25:32], "hard": ROWS[32:]}
    texts = {name: [row["prompt"] for row in rows] for name, rows in parts.items()}
    DatasetDict({name: Dataset.from_list(rows) for name, rows in parts.items()}).save_to_disk("saved")
    own = prompts(Custom("saved", says_answer))
    assert (own["val"], own["test"]) == (texts["validation"], texts["test"])
    assert set(own["train"]) == set(texts["train"])
    named = prompts(Custom("saved", says_answer, train_split="test", val_split="hard", held_out=3))
    assert named["val"] == texts["hard"] and len(named["test"]) == 1  # a tenth at most, and not what is trained on
    assert set(named["train"]) | set(named["test"]) == set(texts["test"])
    assert len(named["train"]) == len(texts["test"]) - 1


def test_columns_chats_and_the_instruction():
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    write("chats.jsonl", [{"turns": chat, "solution": i, "tests": ["a", "b"]} for i in range(5)])
    seen = []
    task = Custom(
        "chats.jsonl",
        lambda example, ids, text: seen.append((example, ids, text)) or 1,
        prompt_column="turns",
        answer_column="solution",
        instruction="Please: ",
    )
    row = task.prompts("train")[0]
    assert row["prompt"] == [chat[0], {"role": "user", "content": "Please: Hi"}] and row["turns"] == chat
    assert task.score(row, IDS, "Hello") == 1 and seen == [(row, IDS, "Hello")]
    assert row["answer"] == row["solution"] and row["tests"] == ["a", "b"]
    without = Custom("chats.jsonl", says_answer, prompt_column="turns", answer_column=None)
    assert "answer" not in without.prompts("train").column_names


@pytest.mark.parametrize(
    "rows, settings, complaint",
    [
        (ROWS, {"prompt_column": "question"}, "prompt_column: the split 'train' has no column 'question'; choose one"),
        (ROWS, {"answer_column": "solution"}, "has no column 'solution'; choose one of prompt, answer, level"),
        (ROWS, {"train_split": "all"}, "train_split: rows.jsonl has no split 'all'; choose one of train"),
        (ROWS, {"val_split": "dev"}, "val_split: rows.jsonl has no split 'dev'; choose one of train"),
        (ROWS, {"val_split": "train"}, "val_split is 'train', and so is data.task.train_split"),
        (ROWS, {"held_out": 0}, "held_out is 0"),
        (
            ROWS,
            {"reward": lambda text, answer: 1.0},
            "reward: <lambda>(text, answer) is called as (example, ids, text)",
        ),
        (ROWS, {"path": "nowhere.csv"}, "path: no file or folder nowhere.csv"),
        (ROWS, {"path": "./nowhere"}, "path: no file or folder ./nowhere"),
        (ROWS, {"path": "some/name"}, "path: cannot read some/name (Couldn't reach 'some/name' on the Hub"),
        (ROWS, {"path": ".", "name": "x"}, "path: cannot read . (BuilderConfig 'x' not found"),
        (ROWS, {"path": __file__}, "is none of .json, .jsonl, .csv, .parquet"),
        (ROWS[:2], {}, "path: rows.jsonl has too few rows"),
        ("", {}, "path: rows.jsonl is empty"),
        ('{"prompt": "?", "answer": 1}\n{nonsense', {}, "path: cannot read rows.jsonl (JSON parse error"),
        ('{"prompt": "?", "answer": 1}\n{"answer": 2}', {}, "prompt_column: 'prompt' of row 2 is None"),
        ('{"prompt": [{"role": "user"}], "answer": 1}', {}, "'prompt' of row 1 is [{'role': 'user'}], neither a text"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_mistake_in_the_data_is_one_line_that_names_the_setting(rows, settings, complaint):
    arguments = {"path": write("rows.jsonl", rows), "reward": says_answer, **settings}
    with pytest.raises(UsageError) as caught:
        Custom(**arguments).prompts("train")
    said = str(caught.value)
    assert said.startswith("data.task.") and complaint in said and "\n" not in said


REWARD = ["--data.task", "Custom", "--data.task.path", "rows.jsonl", "--data.task.reward"]


@pytest.mark.parametrize(
    "args, named",
    [
        (REWARD[:-1], "data.task.reward must be given"),
        ([*REWARD, "json.dmups"], "data.task.reward: no such function (module 'json' has no attribute 'dmups')"),
        ([*REWARD, "no_module.reward"], "data.task.reward: no such function (No module named 'no_module')"),
        ([*REWARD, "reward"], "data.task.reward: 'reward' is no import path; give one, like my_module.reward"),
        (["--reward.scorer", "no_module.reward"], "reward.scorer: no such function (No module named 'no_module')"),
    ],
)
def test_a_mistake_in_naming_the_reward_is_one_line(lit_rl, args, named):
    code, _, err = lit_rl("fit", *args)
    said = [line for line in err.splitlines() if line.startswith("lit_rl: ")]
    assert code == 2 and len(said) == 1 and named in said[0] and "Traceback" not in err


def test_fit_on_the_users_own_data_and_reward(lit_rl, tmp_path, monkeypatch):
    """The function scores two prompts' responses by their own row, and a printed configuration names it."""
    write("rows.jsonl", ROWS)
    Path("my_rewards.py").write_text(
        "def noted(example, ids, text):\n"
        "    with open('seen', 'a') as file:\n"
        "        print(example['prompt'][0]['content'], example['answer'], len(ids), file=file)\n"
        "    return len(ids)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)  # python -m does it
    small = ["--data.prompts_per_iteration=2", "--data.rows_per_microbatch=8", "--data.eval_prompts=2"]
    small += ["--model.samples=4", "--model.max_new_tokens=16", "--trainer.accelerator=cpu"]
    small += ["--trainer.max_epochs=1", "--trainer.logger=false"]
    code, _, err = lit_rl("fit", *REWARD, "my_rewards.noted", *small)
    assert code == 0, err
    seen = [line.rsplit(" ", 2) for line in Path("seen").read_text().splitlines()]
    assert len(seen) == 8 and all(0 < int(length) <= 16 for _, _, length in seen)
    assert {(prompt, answer) for prompt, answer, _ in seen} <= {(row["prompt"], row["answer"]) for row in ROWS}
    _, printed, _ = lit_rl("fit", *REWARD, "my_rewards.noted", "--print_config")
    assert yaml.safe_load(printed)["data"]["task"]["init_args"]["reward"] == "my_rewards.noted"


def test_the_hubs_gsm8k_keeps_its_test_split_and_parts_its_training_rows():
    """A folder of the hub's name and layout is read by the code that reads the hub."""
    rows = [{"question": f"What is {i}+{i}?", "answer": f"{i}+{i}={2 * i}\n#### {2 * i}"} for i in range(60)]
    write("openai/gsm8k/main/train-00000-of-00001.parquet", rows[:50])
    write("openai/gsm8k/main/test-00000-of-00001.parquet", rows[50:])
    write("openai/gsm8k/socratic/train-00000-of-00001.parquet", rows[:1])
    layout = [
        {"config_name": name, "data_files": [{"split": s, "path": f"{name}/{s}-*"} for s in splits]}
        for name, splits in (("main", ["train", "test"]), ("socratic", ["train"]))
    ]
    write("openai/gsm8k/README.md", f"---\n{yaml.safe_dump({'configs': layout})}---\n")
    task = GSM8K(held_out=8000)
    parts = {split: task.prompts(split)["question"] for split in SPLITS}
    assert list(parts["test"]) == [row["question"] for row in rows[50:]] and len(parts["val"]) == 5
    assert set(parts["train"]) | set(parts["val"]) == {row["question"] for row in rows[:50]}
    row = task.prompts("test")[3]
    assert task.score(row, IDS, row["demonstration"]) == 1 and row["prompt"][0]["content"].endswith(row["question"])
    same = Custom("openai/gsm8k", says_answer, name="main", prompt_column="question", instruction=task.instruction)
    assert same.prompts("test")[3]["prompt"] == row["prompt"] and same.prompts("test")[3]["answer"] == row["answer"]


def test_a_row_of_the_hub_without_a_number_is_named():
    rows = [{"question": f"What is {i}?", "answer": f"#### {i}" if i != 7 else "#### 7/2"} for i in range(20)]
    for split in ("train", "test"):
        write(f"openai/gsm8k/main/{split}-00000-of-00001.parquet", rows)
    files = [{"split": split, "path": f"main/{split}-*"} for split in ("train", "test")]
    write(
        "openai/gsm8k/README.md",
        f"---\n{yaml.safe_dump({'configs': [{'config_name': 'main', 'data_files': files}]})}---\n",
    )
    task = GSM8K()
    with pytest.raises(UsageError, match=r"^data\.task: row 8 of the split 'test': .* \('#### 7/2'\); fix or remove"):
        task.prompts("test")


def test_gsm8k_without_the_hub_is_one_line():
    with pytest.raises(UsageError, match=r"^data\.task: no openai/gsm8k .*give data\.task\.path$") as caught:
        GSM8K().prompts("train")
    assert not re.search("\n", str(caught.value))
