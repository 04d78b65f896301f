"""What a class's constructor takes, read off the source: nothing is imported."""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

EMPTY = ("object", "ABC", "Callback", "Ranged", "LightningDataModule")  # bases without a setting; ABC is Python's


def parameters(name: str) -> frozenset[str] | None:
    """The names of the parameters of a class's constructor, and of those that it passes on to its bases.

    Args:
        name: of a class of this package, or of Lightning's Trainer or checkpoints.

    Returns:
        None if the source does not say.
    """
    node = _definition(name)
    if node is None or node.decorator_list:  # a dataclass's constructor is written by Python
        return None
    init = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    own = (
        [] if init is None else [each.arg for each in (*init.args.posonlyargs, *init.args.args, *init.args.kwonlyargs)]
    )
    names = frozenset(own[1:])
    if init is not None and init.args.kwarg is None:
        return names
    for base in (ast.unparse(each).rpartition(".")[2] for each in node.bases):
        passed = frozenset() if base in EMPTY else parameters(base)
        if passed is None:
            return None
        names |= passed
    return names


@cache
def _definition(name: str) -> ast.ClassDef | None:
    for text in _sources():
        if re.search(rf"^class {name}\b", text, re.MULTILINE):
            found = (each for each in ast.parse(text).body if isinstance(each, ast.ClassDef) and each.name == name)
            return next(found)
    return None


@cache
def _sources() -> tuple[str, ...]:
    files = [*Path(__file__).parents[1].rglob("*.py")]
    lightning = find_spec("lightning")  # does not import it
    if lightning is not None and lightning.origin is not None:
        pytorch = Path(lightning.origin).parent / "pytorch"
        files += [pytorch / "trainer" / "trainer.py", pytorch / "callbacks" / "model_checkpoint.py"]
    return tuple(file.read_text(encoding="utf-8") for file in files if file.is_file())
