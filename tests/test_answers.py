"""Readers of answers against forms labelled by hand, and the tasks that use them."""

import json
import re
import sys
import time
from decimal import Decimal

import pytest
import torch
from answer_forms import fuzzed, generated, listed
from datasets import Dataset
from lightning import Trainer

from lit_rl.algorithms import GRPO
from lit_rl.callbacks import RewardCallback
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.errors import UsageError
from lit_rl.tasks import GSM8K, GSM8KStyle, math_answers
from lit_rl.tasks.answers import LONGEST, READERS, boxed_answer, hash_answer, last_number

IDS = torch.zeros(0, dtype=torch.long)


@pytest.mark.parametrize("form, number", listed("What `hash` and `boxed` read"))
def test_a_form_that_the_page_lists_is_read(form, number):
    assert hash_answer(f"so 3 + 4\n#### {form}\nThat was 17.") == number == hash_answer(f"#### 1\n####{form}")
    assert boxed_answer(f"first \\boxed{{9}}, then \\boxed{{{form}}} of 17") == number


@pytest.mark.parametrize("form", [form for form, _ in listed("What `hash` and `boxed` do not read")])
def test_a_form_that_the_page_excludes_is_no_answer(form):
    assert hash_answer(f"so 3 + 4\n#### {form}\n17") is None
    assert boxed_answer(f"\\boxed{{{form}}}") is None


def test_the_page_has_both_tables():
    assert len(listed("What `hash` and `boxed` read")) > 70 and len(listed("What `hash` and `boxed` do not read")) > 70


def test_generated_answers_are_read_as_they_were_made():
    rows = [(form, number, hash_answer(text)) for text, form, number in generated(3000, seed=0)]
    assert sum(number is None for _, number, _ in rows) > 500
    assert [row for row in rows if row[1] != row[2]] == []


def test_no_digit_of_an_answer_is_left_out():
    read = [(line, number) for line in fuzzed(3000, seed=0) if (number := hash_answer("####" + line)) is not None]
    assert len(read) > 100
    for line, number in read:
        assert Decimal(re.sub("[^0-9.]", "", line).removesuffix(".") or "0") == abs(number), line


@pytest.mark.parametrize("text", ["", "5", "### 5", "#### 5\n#### unknown", "####\n5", "#### " + "1" * (LONGEST + 1)])
def test_only_the_last_mark_counts_and_only_its_line(text):
    assert hash_answer(text) is None


@pytest.mark.parametrize("text", ["", "5", "\\boxed{}", "\\boxed{5", "\\boxed 5", "\\boxed{5} \\boxed{x}", "boxed{5}"])
def test_only_the_last_whole_box_counts(text):
    assert boxed_answer(text) is None


@pytest.mark.parametrize(
    "text, number",
    [
        *[("18.", 18), ("a, b: 5-8", 8), ("is -5.", -5), ("(3)-2", 2), ("7,7,9", 9), ("$1,234.50 left", 1234.5)],
        *[("\u2212$2", -2), ("x", None), ("", None), ("#### 5\nunknown", 5), ("1" * 300, None), ("12,34,567", 567)],
    ],
)
def test_the_last_number_wherever_it_stands(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_no_text_takes_long(reader):
    million = 10**6
    texts = [
        "#" * million,
        "#### " + "1" * million,
        "#### 5" * (million // 6),
        "\\boxed{" * (million // 7),
        "1," * (million // 2),
    ]
    texts += ["\\boxed{" + "{" * million, "#### " + "(" * 99 + "5" + ")" * 99, "#### " + "a " * 98 + "5", "-" * million]
    for text in texts:
        started = time.process_time()
        reader(text)
        assert time.process_time() - started < 0.05


def test_a_reader_of_boxes_asks_for_one_and_pays_for_it():
    example, boxed = {"answer": "12\n#### 1,200"}, GSM8K(answer="boxed")
    assert (
        "\\boxed{}" in boxed.instruction
        and "####" in GSM8K().instruction
        and GSM8K(instruction="x ").instruction == "x "
    )
    texts = ["#### 1200", "\\boxed{1{,}200}", "I think 1200.", "#### 1 \\boxed{2}"]
    scores = {name: [GSM8KStyle(answer=name).score(example, IDS, text) for text in texts] for name in READERS}
    assert scores == {"hash": [1, 0, 0, 0], "boxed": [0, 1, 0, 0], "last_number": [1, 0, 1, 0]}
    assert [boxed.unreadable(example, text) for text in texts] == [True, False, True, False]


class Own(GSM8KStyle):
    """A subclass whose second row's answer has no number."""

    def prompts(self, split):
        return Dataset.from_list([{"prompt": [], "answer": answer} for answer in ("#### 1", "#### 5/4")])


def test_a_truth_that_cannot_be_read_is_an_error_when_prompts_are_loaded(tmp_path):
    said = (
        r"^data\.task: row 2 of the split 'val': 'answer' has no '#### number' \('#### 5/4'\); fix or remove the row$"
    )
    with pytest.raises(UsageError, match=said):
        Own().prompts("val")
    with pytest.raises(ValueError, match="has no '#### number'"):  # of a source that nobody looked through
        GSM8KStyle().score({"answer": "none"}, IDS, "none")
    rows = [{"question": "?", "answer": f"#### {n}"} for n in ("1", "2", "unknown", "4")]
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UsageError, match=r"line 3: 'answer' has no '#### number' \('#### unknown'\)"):
        GSM8K(str(path)).prompts("train")


def test_unreadable_answers_are_counted_each_iteration(task, policy):
    trainer = Trainer(
        **{**TRAINER_DEFAULTS, "max_epochs": 1},
        **{"limit_val_batches": 0, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False},
        accelerator="cpu",
        callbacks=[RewardCallback()],
    )
    data = RolloutDataModule(task, prompts_per_iteration=4, rows_per_microbatch=4)
    trainer.fit(GRPO(samples=4, max_new_tokens=64, learning_rate=0.0, reference=False), datamodule=data)
    rows = data.rollouts
    texts = [policy.decode(ids[:n]) for ids, n in zip(rows.response_ids, rows.lengths, strict=True)]
    share = sum(hash_answer(text) is None for text in texts) / len(texts)
    assert trainer.callback_metrics["reward/unreadable"].item() == pytest.approx(share)


def test_math_verify_compares_expressions_and_is_stopped_when_it_takes_long(monkeypatch):
    pytest.importorskip("math_verify")
    task, example = GSM8KStyle(answer="math"), {"answer": "#### 0.5"}
    texts = ["so $\\frac{1}{2}$", "\\boxed{2^{-1}}", "\\boxed{0.50}", "\\boxed{2}", "no number"]
    assert [task.score(example, IDS, text) for text in texts] == [1, 1, 1, 0, 0]
    assert [task.unreadable(example, text) for text in texts] == [False] * 4 + [True]
    monkeypatch.setattr(math_answers, "SECONDS", 0.2)
    started = time.perf_counter()
    assert task.score(example, IDS, "\\boxed{9^{9^{9^{9^{9}}}}}") == 0 and time.perf_counter() - started < 2
    monkeypatch.undo()
    math_answers.VERIFIER.process.popen.kill()  # by somebody else
    assert task.score(example, IDS, "\\boxed{1/2}") == 1  # another worker


def test_without_math_verify_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(UsageError, match=r"^data\.task\.answer is math.* pip install 'lit-rl\[math\]'$"):
        GSM8K(answer="math")
