"""Studies outside the package: named by import path, listed from their source, mistakes in one line."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ablations import studies
from ablations.__main__ import main
from ablations.grid import cells
from ablations.records.trials import trials
from ablations.studies import own
from ablations.study import Arm, Comparison, Study, Tuning
from ablations.sweep import arm_check
from lit_rl.errors import UsageError

BASE = {"data.task": "KeyToken", "trainer.accelerator": "cpu"}
ROOT = Path(__file__).parents[1]
TWO = "arms=(Arm('a', {'model': 'RLOO'}), Arm('b', {'model': 'GRPO'}))"
HEAD = "from ablations.study import Arm, Comparison, Study, Tuning\n"
MINE = HEAD + f"STUDY = Study('mine', 'Is it?', {TWO})\nOTHER = Study('other', question='Or else?', {TWO})\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory that Python does not look into by itself."""
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", ".")])
    return tmp_path


@pytest.fixture
def at_once(monkeypatch):
    """Settings are read in this process, which has imported what that takes."""
    monkeypatch.setattr(arm_check, "warm_up", lambda: None)
    monkeypatch.setattr(arm_check, "aside", lambda _, configs: [arm_check._settings(*each) for each in configs])


def test_a_module_has_studies(here):
    (here / "my_study.py").write_text(MINE)
    package = here / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "deep.py").write_text(MINE)
    found = studies.find("my_study")
    assert (found.name, found.command, found.baseline) == ("mine", "run my_study", "a")
    assert studies.find("my_study.STUDY") == own.replace(found, command="run my_study.STUDY")
    assert studies.find("my_study.OTHER").question == "Or else?"
    assert studies.find("my_package.deep.OTHER").how == "run my_package.deep.OTHER"
    assert studies.find("quickstart").how == "run quickstart"
    assert [cell.trained for cell in cells(found, [0])] == [True, True]


def test_one_of_the_package_goes_before(here):
    (here / "quickstart.py").write_text(MINE)
    assert studies.find("quickstart") is studies.STUDIES["quickstart"]
    assert studies.find("quickstart.STUDY").name == "mine"


@pytest.mark.parametrize(
    ("source", "path", "said"),
    [
        ("1 / 0\n", "wrong", "wrong cannot be imported (wrong.py, line 1): ZeroDivisionError: division by zero"),
        ("import no_such_thing\n", "wrong", "wrong cannot be imported (wrong.py, line 1): ModuleNotFoundError"),
        ("def broken(:\n", "wrong", "wrong cannot be imported: SyntaxError"),
        ("raise SystemExit('enough')\n", "wrong.STUDY", "SystemExit: enough"),
        ("x = 1\n", "wrong", "wrong has no Study called STUDY; define STUDY = Study(...)"),
        (MINE.replace("STUDY", "FIRST"), "wrong", "it has wrong.FIRST, wrong.OTHER"),
        (MINE + "x = 1\n", "wrong.x", "wrong has no Study called x"),
        (
            MINE.replace("'mine'", "'quickstart'"),
            "wrong",
            "wrong: its study is called quickstart, as one of the package",
        ),
        (MINE.replace("'mine'", "'certificate'"), "wrong", "its study is called certificate"),
        (MINE.replace("'mine'", "'a/b'"), "wrong", "(wrong.py, line 2): study a/b: its name"),
        (MINE.replace("'b', {", "'a', {"), "wrong", "(wrong.py, line 2): study mine: two arms are called a"),
        (HEAD + "STUDY = Study('mine', '?')\n", "wrong", "study mine: it has no arms"),
        (
            HEAD + "Arm('a', {'model.x': 1, 'model': {'class_path': 'B'}}).but('b', {'model': 'C'})",
            "wrong",
            "wrong: model: C",
        ),
        (MINE, "wrnog", "no study 'wrnog', and no such module"),
        (MINE, "../wrong", "no study '../wrong'"),
    ],
)
@pytest.mark.parametrize("command", ["run", "report"])
def test_a_mistake_in_a_module_is_one_line(here, capsys, source, path, said, command):
    (here / "wrong.py").write_text(source)
    assert main([command, path]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("ablations: ") and said in line
    assert {each.name for each in here.iterdir()} <= {"wrong.py", "__pycache__"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model.learning_rte": 1.0}, "did you mean model.learning_rate"),
        ({"model": "RLO"}, "did you mean RLOO"),
        ({"modle.samples": 1}, "did you mean --model"),
        ({"model.samples": "four"}, "model.samples is four"),
        ({"data.rows_per_microbatch": 3}, "data.rows_per_microbatch"),
        ({"trainer.max_epochs": "many"}, "max_epochs"),
        ({"model": "TRePO", "model.cuts": "Stride", "model.cuts.every": 0}, "every"),
    ],
)
def test_a_mistake_in_an_arm_is_told_before_anything_runs(at_once, settings, said):
    arms = (Arm("fine", {"model": "RLOO"}), Arm("wrong", {"model": "RLOO", **settings}))
    study = Study("mine", "?", arms=arms, base=BASE)
    with pytest.raises(UsageError, match=rf"^mine, arm wrong: .*{said}"):
        arm_check.complete(study, smoke=False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.prompts_per_iteration": 3}, r"mine, arm RLOO, odd: data\.rows_per_microbatch .*does not divide"),
        ({"model.smaples": 2}, r"mine, arm RLOO, odd: .*did you mean model\.samples"),
        (
            {"data.prompts_per_iteration": 8, "model.samples": 4},
            "mine: RLOO, 8 x 4 and RLOO, odd have the same settings",
        ),
    ],
)
def test_a_mistake_in_an_allocation_is_told_before_anything_runs(at_once, changes, said):
    shapes = {"8 x 4": {"data.prompts_per_iteration": 8, "model.samples": 4}, "odd": changes}
    arms = (Arm("RLOO", {"model": "RLOO"}, tuned_as="RLOO", allocations=shapes),)
    study = Study("mine", "?", arms=arms, base=BASE, tuning=Tuning((1e-3, 1e-2), (100, 101)))
    with pytest.raises(UsageError, match=f"^{said}"):
        arm_check.complete(study, smoke=False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"primary_metric": "test/acuracy"},
            "primary_metric is test/acuracy, which no run has (did you mean test/accuracy?)",
        ),
        (
            {"comparisons": (Comparison.between("b", "a", metric="val/accuracy_sampled"),)},
            "the metric of b against a is val/accuracy_sampled, which no run has (did you mean "
            "end/val/accuracy_sampled?)",
        ),
    ],
)
def test_a_metric_that_no_run_has_is_told_before_anything_runs(changes, said):
    arms = (Arm("a", {"model": "RLOO"}), Arm("b", {"model": "GRPO"}))
    with pytest.raises(UsageError, match=f"^{re.escape(f'mine: {said}')}$"):
        arm_check.complete(Study("mine", "?", arms=arms, base=BASE, **changes), smoke=False)


@pytest.mark.parametrize("key", studies.STUDIES)
def test_every_metric_of_the_package_is_one_that_runs_have(key):
    arm_check.check_metrics(studies.STUDIES[key])


def test_seeds_of_the_trials_are_not_those_of_the_study(here, capsys):
    arms = TWO.replace("'RLOO'}", "'RLOO'}, tuned_as='a'")
    study = f"STUDY = Study('mine', 'Is it?', {arms}, tuning=Tuning((1e-3, 1e-2), (100, 101)))\n"
    (here / "mine.py").write_text(HEAD + study)
    assert main(["run", "mine", "--seeds", "7", "101"]) == 2
    assert capsys.readouterr().err == "ablations: --seeds: 101 is a seed of the trials of mine; take others\n"


def test_the_study_of_the_docs_is_tuned(here, at_once):
    _, code = (ROOT / "docs/own_study.md").read_text().split("```python\n# tuned_study.py\n")
    (here / "tuned_study.py").write_text(code[: code.index("```")])
    study = studies.find("tuned_study")
    tried = trials(study)
    assert tried is not None and len(cells(tried)) == 72 and len(study.seeds) >= 8
    assert len(arm_check.complete(study, smoke=False)) == 6


def test_studies_are_listed_without_being_imported(here, capsys):
    (here / "my_study.py").write_text(MINE + "raise RuntimeError\n")
    (here / "half_written.py").write_text("Study(")
    (here / "annotated.py").write_text(
        "import ablations\nMADE: ablations.study.Study = make()\nOTHER = Thing('Study')\n"
    )
    (here / "pack").mkdir()
    (here / "pack/__init__.py").touch()
    (here / "pack/in_it.py").write_text(MINE)
    assert list(own.listed(here)) == [
        ("annotated.MADE", ""),
        ("my_study", "Is it?"),
        ("my_study.OTHER", "Or else?"),
        ("pack.in_it", "Is it?"),
        ("pack.in_it.OTHER", "Or else?"),
    ]
    script = "import sys\nfrom ablations.__main__ import main\nmain(['list'])\nassert 'torch' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "\nmy_study: Is it?\n" in done.stdout and done.stdout.startswith("quickstart: ")


def test_the_study_of_the_readme_is_typed_in(here, capsys):
    """As a file of the working directory, at tiny sizes: every arm is run and reported."""
    block = "```python\n# own_study.py\n" + (ROOT / "examples/own_study.py").read_text() + "```\n"
    assert all(block in (ROOT / page).read_text() for page in ("README.md", "docs/own_study.md"))
    code = block.removeprefix("```python\n").removesuffix("```\n")
    (here / "own_study.py").write_text(code)
    study = studies.find("own_study")
    assert len(code.splitlines()) <= 25 and len(study.seeds) >= 8 and study.comparisons
    assert len({arm.task for arm in study.arms}) == 2 and len(study.arms) == 6
    assert main(["run", "own_study", "--smoke", "--seeds", "1", "--jobs", "2"]) == 0, capsys.readouterr().err
    report = (here / "results/own_study-smoke/report.md").read_text()
    assert "python -m ablations run own_study --smoke" in report
    with (here / "results/own_study-smoke/cells.csv").open() as file:
        assert [row["arm"] for row in csv.DictReader(file)] == list(study.arm_names)
