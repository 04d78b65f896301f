"""GSM8K (2110.14168): grade-school word problems, from the hub or from a JSONL file."""

import json
from collections.abc import Callable
from decimal import Decimal
from functools import wraps
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, load_dataset
from torch import Tensor

from lit_rl.errors import UsageError
from lit_rl.ranges import Count
from lit_rl.tasks.answers import READERS, hash_answer, last_number
from lit_rl.tasks.base import Example, Split, Task, at_most_a_tenth
from lit_rl.tasks.math_answers import check_installed, judge
from lit_rl.tasks.scoring import shown

AnswerReader = Literal["hash", "boxed", "last_number", "math"]
INSTRUCTIONS = {
    "hash": "Solve the problem step by step. End with a line '#### ' and the number.\n",
    "boxed": "Solve the problem step by step. Put the final number in \\boxed{}.\n",
    "last_number": "Solve the problem step by step. End with the number.\n",
}
INSTRUCTIONS["math"] = INSTRUCTIONS["boxed"]


class WordProblems(Task):
    r"""Problems with columns ``question`` and ``answer``, where the answer ends in ``#### n``.

    The reward is 1 if the answer of the response equals n, and 0 otherwise. The flexible score takes the last number of
    the response instead.

    Args:
        answer: where the answer of a response is read. ``hash``: behind the last ``####``. ``boxed``: in the last
            ``\boxed{}``. ``last_number``: wherever it stands. ``math``: by math-verify, which compares expressions.
            docs/answers.md lists the forms that each of them reads.

    Raises:
        UsageError: ``answer`` is ``math`` and math-verify is not installed; when prompts are asked for, a row's own
            answer has no number.
    """

    def __init__(self, answer: AnswerReader = "hash") -> None:
        if answer == "math":
            check_installed()
        self.answer = answer

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "prompts" in vars(cls):
            cls.prompts = _with_truths(cls.prompts)  # type: ignore[assignment, method-assign]

    def score(self, example: Example, ids: Tensor, text: str) -> float:
        return float(self._judge(example, text)[1])

    def score_flexible(self, example: Example, ids: Tensor, text: str) -> float:
        return float(last_number(text) == _truth(example))

    def unreadable(self, example: Example, text: str) -> bool:
        return not self._judge(example, text)[0]

    def _judge(self, example: Example, text: str) -> tuple[bool, bool]:
        """Whether an answer can be read, and whether it is right."""
        truth = _truth(example)
        if self.answer == "math":
            return judge(text, str(truth))
        number = READERS[self.answer](text)
        return number is not None, number == truth


def _truth(example: Example) -> Decimal:
    """The number of an example's own answer."""
    truth = hash_answer(example["answer"])
    if truth is None:  # no answer, too, would be equal to it
        raise ValueError(f"'answer' has no '#### number': {shown(example['answer'])}")
    return truth


def _with_truths(prompts: Callable[[Any, Split], Dataset]) -> Callable[[Any, Split], Dataset]:
    """A task's ``prompts``, refusing rows without a number to compare with; each data set is looked through once."""

    @wraps(prompts)
    def checked(self: Any, split: Split) -> Dataset:
        data = prompts(self, split)
        known = self.__dict__.setdefault("_looked_through", {})
        if known.get(split) is not data:
            for row, answer in enumerate(data["answer"], 1):
                if not isinstance(answer, str) or hash_answer(answer) is None:
                    where = f"data.task: row {row} of the split '{split}'"
                    raise UsageError(f"{where}: 'answer' has no '#### number' ({shown(answer)}); fix or remove the row")
            known[split] = data
        return data

    return checked


class GSM8K(WordProblems):
    r"""GSM8K's grade-school word problems (2110.14168), from the hub or from a file.

    Without ``path`` it is the hub's ``openai/gsm8k``, with its test split; ``held_out`` training problems are the
    validation split. With ``path``, a JSONL file of ``{"question": ..., "answer": "... #### n"}`` lines, the validation
    and the test split are ``held_out`` problems each. Either way a split takes at least one problem and at most a
    tenth.

    Args:
        path: a local JSONL file; null takes the data set on the hub.
        held_out: problems kept from training for validation (and for testing, with ``path``).
        instruction: text before each question, which says how to write the answer; null takes one that fits ``answer``.
        answer: where the answer of a response is read. ``hash``: behind the last ``####``. ``boxed``: in the last
            ``\boxed{}``. ``last_number``: wherever it stands. ``math``: by math-verify, which compares expressions.

    Raises:
        UsageError: the file is missing, has fewer than three lines, or a line that is no such problem.
    """

    def __init__(
        self,
        path: str | None = None,
        held_out: Count = 512,
        instruction: str | None = None,
        answer: AnswerReader = "hash",
    ) -> None:
        super().__init__(answer)
        self.path, self.held_out = path, held_out
        self.instruction = INSTRUCTIONS[answer] if instruction is None else instruction
        self._splits: dict[str, Dataset] = {}

    def prompts(self, split: Split) -> Dataset:
        if not self._splits:
            self._splits = self._load()
        return self._splits[split]

    def _load(self) -> dict[str, Dataset]:
        if self.path is None:
            try:
                hub = load_dataset("openai/gsm8k", "main")
            except Exception as error:  # whatever the hub's client and the readers of its files raise
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise UsageError(f"data.task: no openai/gsm8k from the hub ({reason}); give data.task.path") from None
            n = at_most_a_tenth(self.held_out, len(hub["train"]))
            rest = hub["train"].train_test_split(test_size=n, seed=0)
            splits = {"train": rest["train"], "val": rest["test"], "test": hub["test"]}
        else:
            lines = Dataset.from_list(_read_jsonl(Path(self.path))).shuffle(seed=0)
            n = at_most_a_tenth(self.held_out, len(lines))
            splits = {
                "test": lines.select(range(n)),
                "val": lines.select(range(n, 2 * n)),
                "train": lines.select(range(2 * n, len(lines))),
            }
        # past the cache, which knows a function by its name alone and would give what older code has made
        options: dict[str, Any] = {"keep_in_memory": True, "load_from_cache_file": False}
        return {name: data.map(self._example, desc=f"GSM8K {name}", **options) for name, data in splits.items()}

    def _example(self, row: dict[str, str]) -> dict[str, Any]:
        prompt = [{"role": "user", "content": self.instruction + row["question"]}]
        return {"prompt": prompt, "demonstration": row["answer"]}


def _read_jsonl(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise UsageError(f"data.task.path: no file {path}; give a JSONL file with 'question' and 'answer' in each line")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"data.task.path: {path} is not UTF-8 ({error.reason}); convert it") from None
    rows = []
    for number, line in enumerate(lines, 1):
        where = f"data.task.path: {path} line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{where} is not JSON ({error.msg}); fix or remove the line") from None
        if not isinstance(row, dict):
            raise UsageError(f"{where} is not a JSON object; fix or remove the line")
        for key in ("question", "answer"):
            if not isinstance(row.get(key), str):
                raise UsageError(f"{where} has no '{key}'; each line needs 'question' and 'answer'")
        if hash_answer(row["answer"]) is None:
            text = shown(row["answer"])
            raise UsageError(f"{where}: 'answer' has no '#### number' ({text}); fix or remove the line")
        rows.append({"question": row["question"], "answer": row["answer"]})
    if len(rows) < 3:
        raise UsageError(f"data.task.path: {path} has {len(rows)} problems; training, validation and test need 3")
    return rows
