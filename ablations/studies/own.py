"""Studies of one's own: found by import path, as algorithms and tasks are, and in the working directory."""

import ast
import os
import re
import sys
import traceback
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ablations.study import Study
from lit_rl.errors import UsageError

DEFAULT = "STUDY"


def load(path: str, taken: Collection[str]) -> Study | None:
    """The study at ``module``, which has it as ``STUDY``, or at ``module.NAME``; None if there is no such module.

    Args:
        taken: names that are other studies'.

    Raises:
        UsageError: the module fails, has no such study, or one with a name that is taken.
    """
    if not all(part.isidentifier() for part in path.split(".")):
        return None
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    parent, _, name = path.rpartition(".")
    if (module := _imported(path)) is not None:
        name = DEFAULT
    elif not parent or (module := _imported(parent)) is None:
        return None
    study = getattr(module, name, None)
    if not isinstance(study, Study):
        others = [f"{module.__name__}.{each}" for each, value in vars(module).items() if isinstance(value, Study)]
        hint = f"; it has {', '.join(others)}" if others else f"; define {DEFAULT} = Study(...), of ablations.study"
        raise UsageError(f"{module.__name__} has no Study called {name}{hint}")
    if re.sub("(-smoke|-tuning)+$", "", study.key) in taken:
        raise UsageError(
            f"{path}: its study is called {study.name}, as one of the package; results and runs go by that name, so "
            "give it another one"
        )
    return replace(study, command=f"run {path}")


def listed(folder: Path) -> Iterator[tuple[str, str]]:
    """Import paths and questions of the studies in a folder's modules, and in those of packages right below it.

    The source alone is read: a study is what is assigned ``Study(...)``, or annotated as a ``Study``, at the top of a
    module. A question that is not written out there is left empty.
    """
    packages = (each.parent for each in folder.glob("*/__init__.py") if each.parent.name not in ("ablations", "lit_rl"))
    for file in sorted([*folder.glob("*.py"), *(module for package in packages for module in package.glob("*.py"))]):
        with suppress(OSError, SyntaxError, ValueError):
            text = file.read_text(encoding="utf-8")
            parts = file.relative_to(folder).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            for name, question in _assigned(ast.parse(text)) if "Study" in text else ():
                yield module if name == DEFAULT else f"{module}.{name}", question


def _imported(name: str) -> ModuleType | None:
    """The module, or None if there is none of that name."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            return None
        raise _told(name, error) from error
    except (Exception, SystemExit) as error:
        raise _told(name, error) from error


def _told(module: str, error: BaseException) -> UsageError:
    """What a module raised, in a line, with the place in a file of the user's."""
    message = " ".join(str(error).split())
    if isinstance(error, UsageError):
        return UsageError(f"{module}: {message}")
    frames = traceback.extract_tb(error.__traceback__)
    named = [frame for frame in frames if not frame.filename.startswith("<") and "importlib" not in frame.filename]
    outside = [frame for frame in named if Path(__file__).parents[1] not in Path(frame.filename).parents]
    where = f" ({Path(outside[-1].filename).name}, line {outside[-1].lineno})" if outside else ""
    kind = "" if isinstance(error, ValueError) and outside else f"{type(error).__name__}: "
    return UsageError(f"{module} cannot be imported{where}: {kind}{message}")


def _assigned(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, says = node.targets, _is_study(getattr(node.value, "func", None))
        elif isinstance(node, ast.AnnAssign):
            targets, says = [node.target], _is_study(node.annotation)
        else:
            continue
        for target in targets if says else ():
            if isinstance(target, ast.Name):
                yield target.id, _question(node.value)


def _is_study(node: Any) -> bool:
    return node is not None and ast.unparse(node).rpartition(".")[2] == "Study"


def _question(call: ast.expr | None) -> str:
    """Of a call of ``Study``: by its name, or the second argument."""
    if not isinstance(call, ast.Call):
        return ""
    given = [each.value for each in call.keywords if each.arg == "question"] + call.args[1:2]
    return given[0].value if given and isinstance(given[0], ast.Constant) and isinstance(given[0].value, str) else ""
