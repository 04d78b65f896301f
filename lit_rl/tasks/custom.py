"""Prompts from any source that ``datasets`` reads, scored by a function of the user's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from torch import Tensor

from lit_rl.errors import UsageError
from lit_rl.ranges import Count
from lit_rl.tasks.base import Example, Split, Task, at_most_a_tenth
from lit_rl.tasks.data_folder import check_folder
from lit_rl.tasks.scoring import check_call

READERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
USUAL_NAMES = {"val": ("validation", "val"), "test": ("test",)}  # of splits


class Custom(Task):
    """Prompts from any source that ``datasets`` reads, scored by your own function.

    Args:
        path: a file (.json, .jsonl, .csv or .parquet), a folder of such files, a folder of ``save_to_disk``, or a name
            on the hub.
        reward: a function ``(example, ids, text) -> float`` of the row, the response's token ids and its text; on the
            command line its import path. The row has chat messages as ``prompt`` and the answer as ``answer``.
        name: which configuration of the source, if it has several.
        prompt_column: the column with the prompt, a text or chat messages.
        answer_column: the column that the reward compares with, of any type; null if the reward needs none.
        instruction: text before each prompt; with chat messages, before the first one of the user.
        train_split: the split to train on; a source without splits has one split ``train``.
        val_split: the split to validate on. null takes ``validation`` or ``val`` if the source has it, otherwise
            ``held_out`` training rows.
        test_split: the split to test on. null takes ``test`` if the source has it, otherwise ``held_out`` training
            rows.
        held_out: training rows kept for a split that the source lacks, at most a tenth of them.

    Raises:
        UsageError: the reward cannot be called like this; when prompts are asked for, the source cannot be read, lacks
            a split or a column, has too few rows, or a row without a prompt.
    """

    scored_by = "data.task.reward"

    def __init__(
        self,
        path: str,
        reward: Callable[[dict[str, Any], Tensor, str], float],
        name: str | None = None,
        prompt_column: str = "prompt",
        answer_column: str | None = "answer",
        instruction: str = "",
        train_split: str = "train",
        val_split: str | None = None,
        test_split: str | None = None,
        held_out: Count = 512,
    ) -> None:
        for key, split in (("val_split", val_split), ("test_split", test_split)):
            if split == train_split:
                raise UsageError(f"data.task.{key} is '{split}', and so is data.task.train_split; name another")
        self.path, self.name, self.reward, self.instruction = path, name, reward, instruction
        self.prompt_column, self.answer_column = prompt_column, answer_column
        self.train_split, self.named = train_split, {"val": val_split, "test": test_split}
        self.held_out = held_out
        self._splits: dict[str, Dataset] = {}
        check_call(reward, self.scored_by)

    def prompts(self, split: Split) -> Dataset:
        if not self._splits:
            self._splits = self._choose(read(self.path, self.name))
        return self._splits[split]

    def score(self, example: Example, ids: Tensor, text: str) -> float:
        return self.reward(example, ids, text)

    def _choose(self, source: DatasetDict) -> dict[str, Dataset]:
        """The three splits: the source's own, or held out from the training rows."""
        names = {"train_split": self.train_split, "val_split": self.named["val"], "test_split": self.named["test"]}
        for key, name in names.items():
            if name is not None and name not in source:
                raise UsageError(
                    f"data.task.{key}: {self.path} has no split '{name}'; choose one of {', '.join(source)}"
                )
        own = {
            split: self.named[split] or next((n for n in usual if n in source and n != self.train_split), None)
            for split, usual in USUAL_NAMES.items()
        }
        splits = {split: self._examples(source, name) for split, name in own.items() if name is not None}
        train = self._examples(source, self.train_split).shuffle(seed=0, keep_in_memory=True)
        size = at_most_a_tenth(self.held_out, len(train))
        for split in (split for split, name in own.items() if name is None):
            if len(train) <= size:
                raise UsageError(
                    f"data.task.path: {self.path} has too few rows; training, validation and test need one each"
                )
            splits[split], train = train.select(range(size)), train.select(range(size, len(train)))
        return {"train": train, **splits}

    def _examples(self, source: DatasetDict, name: str) -> Dataset:
        """A split of the source with the columns of a task."""
        data = source[name]
        if not len(data):
            raise UsageError(f"data.task.path: the split '{name}' of {self.path} has no rows; give a source with rows")
        for key, column in (("prompt_column", self.prompt_column), ("answer_column", self.answer_column)):
            if column is not None and column not in data.column_names:
                raise UsageError(
                    f"data.task.{key}: the split '{name}' has no column '{column}'; choose one of "
                    f"{', '.join(data.column_names)}"
                )
        settings = {"prompt": self.prompt_column, "answer": self.answer_column, "instruction": self.instruction}
        return data.map(
            _example,
            with_indices=True,
            fn_kwargs=settings,
            # past the cache, which knows a function by its name alone and would give what older code has made
            keep_in_memory=True,
            load_from_cache_file=False,
            desc=f"prompts of {name}",
        )


def _example(row: Example, index: int, prompt: str, answer: str | None, instruction: str) -> Example:
    """The columns that a task has, of a row with the columns ``prompt`` and ``answer``."""
    given = row[prompt]
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not _is_chat(messages):
        where = f"data.task.prompt_column: '{prompt}' of row {index + 1}"
        raise UsageError(f"{where} is {_line(repr(given))}, neither a text nor chat messages; fix or remove it")
    messages = [dict(turn) for turn in messages]
    first = next((turn for turn in messages if turn["role"] == "user"), messages[0])
    first["content"] = instruction + first["content"]
    return {"prompt": messages} | ({} if answer is None else {"answer": row[answer]})


def read(path: str, name: str | None) -> DatasetDict:
    """The splits of a file, a folder or a data set of the hub; one split ``train``, where it has none.

    Raises:
        UsageError: nothing can be read.
    """
    local = Path(path).expanduser()
    reader = READERS.get(local.suffix)
    is_saved = (local / "state.json").is_file() or (local / "dataset_dict.json").is_file()
    if not local.exists() and (reader or path.startswith((".", "/", "~"))):
        raise UsageError(f"data.task.path: no file or folder {path}; give one, or a name on the hub")
    if local.is_file() and reader is None:
        raise UsageError(f"data.task.path: {path} is none of {', '.join(READERS)}; convert it")
    if name is not None and (local.is_file() or is_saved):
        raise UsageError(f"data.task.name is {name}, but {path} has no configurations; leave it out")
    if local.is_file() and not local.stat().st_size:
        raise UsageError(f"data.task.path: {path} is empty; give a file with rows")
    if local.is_dir():
        check_folder(local)
    try:
        if local.is_file():
            found = load_dataset(reader, data_files=str(local))
        elif is_saved:
            found = load_from_disk(str(local))
        else:
            found = load_dataset(str(local.resolve()) if local.is_dir() else path, name)
    except Exception as error:  # whatever the readers of formats and the hub's client raise
        reason = _line(str(error.__cause__ or error) or type(error).__name__)
        raise UsageError(
            f"data.task.path: cannot read {path} ({reason}); give a file, a folder or a hub name"
        ) from None
    return found if isinstance(found, DatasetDict) else DatasetDict(train=found)


def _is_chat(messages: Any) -> bool:
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(isinstance(turn, dict) for turn in messages)
        and all(isinstance(turn.get(key), str) for turn in messages for key in ("role", "content"))
    )


def _line(text: str, width: int = 200) -> str:
    """The text on one line, cut at ``width``."""
    return " ".join(text.split())[:width]
