"""The procedural data sets of reasoning-gym (2505.24760): puzzles, arithmetic, algebra, logic, graphs, games."""

import base64
import difflib
import pickle
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import lru_cache
from itertools import count
from typing import Any, Literal, NamedTuple

from datasets import Dataset
from torch import Tensor

from lit_rl.errors import UsageError
from lit_rl.ranges import Count, Positive, Seed, check
from lit_rl.tasks.answers import last_number
from lit_rl.tasks.base import Example, Split, Task, split_of
from lit_rl.tasks.scoring import shown
from lit_rl.tasks.worker import Worker

ABSENT = "data.task: ReasoningGym and GSMSymbolic take reasoning-gym; pip install 'lit-rl[symbolic]'"
SCORER = Worker("reasoning_gym", ABSENT)
SECONDS = 5.0  # for the score of one response
CHUNK = 1024  # items that are made from one seed
MOST_STALE = 1024  # items in a row without a new question; behind them no more are expected
SEED_BITS = 31  # every data set takes these seeds
SLOW = 60.0  # seconds for a split, from which on they are told
NONSENSE = "?"  # no answer to anything

Answer = Literal["tags", "whole", "last_number"]
FORMS: dict[str, str] = {"tags": "<answer>{}</answer>", "whole": "{}", "last_number": "{}"}  # of a whole response


class Part(NamedTuple):
    """A data set's weight in a mixture, and its configuration."""

    weight: float
    config: dict[str, Any]


class ReasoningGym(Task):
    """Any data sets of reasoning-gym (2505.24760), alone or mixed, with their own scores.

    The reward is the data set's own score of the answer, 0 to 1. Many data sets pay for wrong answers, too: 0.01 for
    any, or a share of what is right. ``accuracy`` and its kin count a score of 1 alone. An answer on which the scorer
    raises an error, or takes longer than 5 seconds, scores 0. The flexible score is the best over all three readings of
    a response that ``answer`` has.

    No question is in two splits, and all questions of a data set in a split are different. The column ``demonstration``
    is the answer alone, in the form that ``answer`` reads; there is none where a data set gives no answers.

    Args:
        datasets: the name of one data set, or a dictionary of several. The value of a name is null, or has ``weight``
            (1: how often it is drawn, in relation to the others) and ``config`` (its own settings), or one of them.
        train_size: problems of the training split.
        val_size: problems of the validation split.
        test_size: problems of the test split.
        seed: of the generators. The splits of two seeds are disjoint as well.
        instruction: text before each question; null takes reasoning-gym's own request for ``<answer>`` tags with
            ``tags``, and nothing otherwise.
        answer: where the answer of a response is. ``tags``: between the last ``<answer>`` and ``</answer>``. ``whole``:
            the response is the answer. ``last_number``: the last number, wherever it stands.

    Raises:
        UsageError: reasoning-gym is not installed, there is no data set of a name, or its configuration is not one;
            when prompts are asked for, a data set has too few different questions, a scorer that pays for anything, or
            answers that ``answer`` cannot read.
    """

    scored_by = "data.task.datasets"

    def __init__(
        self,
        datasets: dict[str, Any] | str,
        train_size: Count = 8192,
        val_size: Count = 256,
        test_size: Count = 512,
        seed: Seed = 0,
        instruction: str | None = None,
        answer: Answer = "tags",
    ) -> None:
        self.parts = _parts({datasets: None} if isinstance(datasets, str) else datasets)
        self.seed, self.instruction, self.answer = seed, instruction, answer
        self.sizes: dict[str, int] = {"train": train_size, "val": val_size, "test": test_size}
        self._splits: dict[str, Dataset] = {}

    def prompts(self, split: Split) -> Dataset:
        if split not in self._splits:
            weights = [part.weight for part in self.parts.values()]
            rng = random.Random(f"{self.seed} {split}")
            names = rng.choices(list(self.parts), weights, k=self.sizes[split])
            items = {
                name: iter(different(name, part.config, f"{self.seed} {split}", split, names.count(name)))
                for name, part in self.parts.items()
            }
            rows = [self._row(name, next(items[name])) for name in names]
            for name in self.parts:
                self._check_scores(name, next((row for row in rows if row["dataset"] == name), None))
            if any(row["demonstration"] is None for row in rows):
                rows = [{key: value for key, value in row.items() if key != "demonstration"} for row in rows]
            self._splits[split] = Dataset.from_list(rows)
        return self._splits[split]

    def score(self, example: Example, ids: Tensor, text: str) -> float:
        return _score(example["entry"], READERS[self.answer](text))

    def score_flexible(self, example: Example, ids: Tensor, text: str) -> float:
        return max(_score(example["entry"], read(text)) for read in READERS.values())

    def solved(self, scores: Tensor) -> Tensor:
        return (scores >= 1).to(scores.dtype)

    def unreadable(self, example: Example, text: str) -> bool:
        return READERS[self.answer](text) is None

    def _row(self, name: str, item: dict[str, Any]) -> Example:
        instruction, answer = self.instruction, item["answer"]
        if instruction is None:
            instruction = _gym().utils.SYSTEM_PROMPTS["default"] if self.answer == "tags" else ""
        return {
            "prompt": [{"role": "user", "content": instruction + item["question"]}],
            "question": item["question"],
            "demonstration": None if answer is None else FORMS[self.answer].format(answer),
            "dataset": name,
            "entry": pickle.dumps((name, self.parts[name].config, item)),  # neither Arrow nor JSON keeps every item
        }

    def _check_scores(self, name: str, row: Example | None) -> None:
        """That a scorer tells right from wrong, as far as one of its problems shows it."""
        if row is None:
            return
        if _score(row["entry"], NONSENSE) >= 1:
            raise UsageError(f"data.task.datasets: the score of {name} is 1 for '{NONSENSE}', too; leave it out")
        right = row["demonstration"]
        if right is not None and self.score(row, Tensor(), right) < 1:
            said = f"'{self.answer}' does not read an answer of {name} ({shown(right)})"
            raise UsageError(f"data.task.answer: {said}; choose another of {', '.join(READERS)}")


def different(
    name: str,
    config: dict[str, Any],
    seed: str,
    split: Split,
    n: int,
    question: Callable[[dict[str, Any]], str] = lambda item: item["question"],
    seed_bits: int = SEED_BITS,
) -> list[dict[str, Any]]:
    """The first n items of a data set, made from a seed, whose questions are of the split and new.

    Raises:
        UsageError: the generator raises an error, or gives no new questions any more.
    """
    found: dict[str, dict[str, Any]] = {}
    last = 0
    for made, item in enumerate(_items(name, config, seed, seed_bits) if n else (), 1):
        text = question(item)
        if split_of(text) == split and text not in found:
            found[text], last = item, made
        if len(found) == n:
            break
        if made - last == MOST_STALE:
            raise UsageError(
                f"data.task.{split}_size: {name} has {len(found)} different questions for the split '{split}', and not "
                f"the {n} asked for; lower it, or widen the configuration in data.task.datasets"
            )
        if made == 1:  # which took what making the generator takes
            started = time.perf_counter()
        if made == 17:
            seconds = (time.perf_counter() - started) / 16 * n / (0.8 if split == "train" else 0.1)
            if seconds > SLOW:
                said = f"{n} problems of {name} for the split '{split}' take about {seconds / 60:.0f} minutes to make"
                print(f"lit_rl: data.task.{split}_size: {said}", file=sys.stderr)
    return list(found.values())


def _items(name: str, config: dict[str, Any], seed: str, seed_bits: int) -> Iterator[dict[str, Any]]:
    """The items of a data set, without end."""
    gym = _gym()
    for chunk in count():
        # far apart: reasoning-gym draws the i-th item from the seed + i
        start = random.Random(f"{seed} {chunk}").getrandbits(seed_bits)
        data = gym.create_dataset(name, **config, seed=start, size=CHUNK)
        for i in range(CHUNK):
            try:
                yield data[i]
            except Exception as error:  # whatever the generators raise
                reason = f"{type(error).__name__} ({shown(error, str)})"
                said = f"data.task.datasets.{name}.config: its generator raised {reason}"
                raise UsageError(f"{said}; change it, or leave {name} out") from error


def _gym() -> Any:
    try:
        import reasoning_gym  # takes seconds
    except ImportError:
        raise UsageError(ABSENT) from None
    return reasoning_gym


def _parts(datasets: dict[str, Any]) -> dict[str, Part]:
    """What ``datasets`` says of each data set.

    Raises:
        UsageError: it is wrong.
    """
    known = {name: kinds for name, kinds in _gym().factory.DATASETS.items() if name != "composite"}  # a mixture
    if not datasets:
        raise UsageError("data.task.datasets is empty; name at least one data set of reasoning-gym")
    parts = {}
    for name, given in datasets.items():
        where = f"data.task.datasets.{name}"
        if name not in known:
            raise UsageError(f"data.task.datasets: reasoning-gym has no data set '{name}'{_near(name, known)}")
        if not isinstance(given, dict | None):
            raise UsageError(f"{where} is {shown(given)}; give weight and config, or null")
        spec = {"weight": 1.0, "config": None, **(given or {})}
        for key in spec:
            if key not in ("weight", "config"):
                raise UsageError(f"{where}.{key} is no setting; its settings are weight and config")
        check({"weight": Positive}, spec, f"{where}.")
        config = spec["config"] if spec["config"] is not None else {}
        _check_config(f"{where}.config", name, config, known[name][1])
        parts[name] = Part(spec["weight"], config)
    return parts


def _check_config(where: str, name: str, config: Any, cls: type) -> None:
    if not isinstance(config, dict):
        raise UsageError(f"{where} is {shown(config)}; give the settings of {name} by name")
    own = {"seed": "data.task.seed", "size": "data.task.train_size, val_size and test_size"}
    names = [field.name for field in fields(cls) if field.name not in own]
    for key in config:
        if key in own:
            raise UsageError(f"{where}.{key} is not set here; set {own[key]}")
        if key not in names:
            raise UsageError(f"{where}: {name} has no setting '{key}'{_near(key, names)}; it has {', '.join(names)}")
    try:
        _gym().create_dataset(name, **config, seed=0, size=1)
    except Exception as error:  # whatever their checks raise
        raise UsageError(f"{where}: {shown(error, str, 200) or type(error).__name__}; change it") from error


def _near(name: Any, names: Any) -> str:
    near = difflib.get_close_matches(str(name), names, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _tagged(text: str) -> str | None:
    """What reasoning-gym's own ``extract_answer`` finds, in a time linear in the text's length."""
    for piece in reversed(text.split("</answer>")[:-1]):
        _, opening, answer = piece.partition("<answer>")
        if opening:
            return answer.strip()
    return None


def _number(text: str) -> str | None:
    number = last_number(text)
    return None if number is None else f"{number:f}"


READERS: dict[str, Callable[[str], str | None]] = {"tags": _tagged, "whole": str.strip, "last_number": _number}


@lru_cache(maxsize=4096)  # the flexible score reads the same answer in several ways
def _score(entry: bytes, answer: str | None) -> float:
    """The data set's own score of an answer; 0 where it raises an error or takes longer than SECONDS."""
    question = {"entry": base64.b64encode(entry).decode(), "answer": answer}
    return SCORER.ask(question, SECONDS) or 0.0
