"""The examples run, and do what they say; the notebooks' outputs are those of their code."""

import ast
import base64
import csv
import io
import re
import shlex
from importlib import import_module
from pathlib import Path

import notebooks
import numpy as np
import pytest
from matplotlib import pyplot as plt

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SCRIPTS = [path for path in sorted(EXAMPLES.glob("*.py")) if "def main(" in path.read_text()]  # own_study.py is data
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
QUICK = {  # of the fits that docstrings show
    **{
        "trainer.max_epochs": 1,
        "trainer.accelerator": "cpu",
        "trainer.limit_val_batches": 0,
        "trainer.logger": "false",
    },
    **{"data.prompts_per_iteration": 2, "data.rows_per_microbatch": 4, "checkpoint.every_n_epochs": 0},
}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    """The examples are found as from the repository's root."""
    monkeypatch.syspath_prepend(str(EXAMPLES.parent))


def docstring(path):
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def commands(path):
    """The command lines of a script's docstring, without what they say of themselves."""
    return [
        line.partition("    #")[0].strip()
        for line in docstring(path).splitlines()
        if line.lstrip().startswith("python ")
    ]


def test_each_is_named_and_says_how_it_is_run():
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"]({path.name})" in readme for path in [*EXAMPLES.glob("*.py"), *NOTEBOOKS])
    assert all(f"python examples/{path.name}" in commands(path) for path in SCRIPTS)


def test_training_without_the_command_line():
    import_module("examples.train").main(iterations=1)
    with open("logs/train/version_0/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["train/reward"]] == ["1"]
    assert any(row["test/accuracy"] for row in rows)


def test_a_task_of_ones_own(capsys):
    module = import_module("examples.own_task")
    task = module.Losses()
    splits = [task.prompts(split) for split in ("train", "val", "test")]
    questions = [{row["prompt"][0]["content"] for row in split} for split in splits]
    assert len(set.union(*questions)) == sum(map(len, splits)) and min(map(len, splits)) > 32
    example = splits[0][0]
    right, hidden, wrong = (f"text\n#### {example['answer']}", f"it is {example['answer']}.", "#### 99")
    assert [task.score(example, None, text) for text in (right, hidden, wrong)] == [1, 0, 0]
    assert [task.score_flexible(example, None, text) for text in (right, hidden, wrong)] == [1, 1, 0]
    module.main(iterations=1)
    assert re.search(r"accuracy 0\.\d+ before, 0\.\d+ after 1 iterations", capsys.readouterr().out)


def test_an_algorithm_of_ones_own(capsys):
    import_module("examples.own_algorithm").main()
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.startswith("MedianOfOthers ") and first.endswith("ok")
    assert second.startswith("MedianOfAll ") and second.endswith("FAILS")


SHOWN = [line for path in SCRIPTS for line in commands(path) if line.startswith("python -m lit_rl ")]


@pytest.mark.parametrize("line", SHOWN)
def test_commands_of_docstrings(lit_rl, line):
    args = shlex.split(line)[3:]
    quick = [f"--{name}={value}" for name, value in QUICK.items()] if args[0] == "fit" else []
    code, out, err = lit_rl(*args, *quick)
    assert code == 0, out + err


def differences(committed, again) -> list[str]:
    """Where the outputs of a notebook differ from others."""
    (text, images), (other, drawn) = map(notebooks.outputs, (committed, again))
    found = []
    if NUMBER.sub("#", text) != NUMBER.sub("#", other):
        found.append(f"printed is:\n{other}")
    numbers = [[float(x) for x in NUMBER.findall(each)] for each in (text, other)]
    if not found and not np.allclose(*numbers, rtol=0.02, atol=0.011):  # of the last digit
        found.append(f"numbers are:\n{other}")
    pixels = [[plt.imread(io.BytesIO(image))[..., :3] for image in each] for each in (images, drawn)]
    if len(images) != len(drawn):
        found.append(f"there are {len(drawn)} figures")
    for number, (a, b) in enumerate(zip(*pixels, strict=False), 1):
        if a.shape != b.shape or np.abs(a - b).mean() > 0.003:
            found.append(f"figure {number} is another")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_of_a_notebook_are_those_of_its_code(path):
    """``make notebooks`` writes them."""
    committed, again = notebooks.read(path), notebooks.executed(path)
    text, images = notebooks.outputs(committed)
    assert text and images and all(len(image) < 60_000 for image in images)
    assert differences(committed, again) == []


def test_outputs_of_other_code_are_found():
    path = NOTEBOOKS[0]
    committed, other = notebooks.read(path), notebooks.read(path)
    text, images = notebooks.outputs(committed)
    number = next(x for x in NUMBER.findall(text) if float(x) > 1)
    for output in (output for cell in other["cells"] for output in cell.get("outputs", [])):
        if "text" in output:
            output["text"] = [line.replace(number, f"{1.1 * float(number):.3f}") for line in output["text"]]
        else:
            pixels = plt.imread(io.BytesIO(images[0]))
            pixels[100:110] = 0  # a black line
            plt.imsave(file := io.BytesIO(), pixels, format="png")
            output["data"]["image/png"] = base64.b64encode(file.getvalue()).decode()
    assert differences(committed, committed) == []
    assert len(differences(committed, other)) == 1 + len(images)
