"""What a folder of data says of itself: ``datasets`` reads the files that its README.md names, wherever they are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lit_rl.errors import UsageError

CARDS = ("README.md", ".huggingface.yaml")


def check_folder(folder: Path) -> None:
    """That the folder names no files outside it.

    Raises:
        UsageError: it does, or what it says of itself can't be read.
    """
    for card in (folder / name for name in CARDS):
        if not card.is_file():
            continue
        try:
            text = card.read_text(encoding="utf-8")
            head = text.split("\n---", 1)[0].removeprefix("---") if card.suffix == ".md" else text
            said = yaml.safe_load(head) if card.suffix != ".md" or text.startswith("---") else None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"data.task.path: {card} cannot be read ({reason}); fix or remove it") from None
        for place in _named(said, False):
            if "://" in place or not (folder / place).resolve().is_relative_to(folder.resolve()):
                raise UsageError(
                    f"data.task.path: {card} names {place}, which is outside the folder; give that by itself, or take "
                    "the name out"
                )


def _named(said: Any, inside: bool) -> Iterator[str]:
    """The texts below ``data_files`` and ``data_dir``; names of splits among them, which are in the folder."""
    if isinstance(said, str) and inside:
        yield said
    elif isinstance(said, dict):
        for key, each in said.items():
            yield from _named(each, inside or key in ("data_files", "data_dir"))
    elif isinstance(said, list):
        for each in said:
            yield from _named(each, inside)
