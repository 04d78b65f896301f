"""Configurations of fit against each other: a study from files."""

import json

import pytest
import yaml

from ablations.__main__ import main
from ablations.grid import cells
from ablations.metric_names import MEMORY
from ablations.studies.from_files import DEFAULT, check_same_problems, compared
from ablations.study import Arm, Study
from lit_rl.errors import UsageError

SIZES = {"vocabulary": 3, "length": 2}
SMALL = {
    "seed_everything": 7,
    "model": {"class_path": "RLOO", "init_args": {"samples": 2}},
    "data": {
        "task": {"class_path": "KeyToken", "init_args": SIZES},
        "prompts_per_iteration": 4,
        "rows_per_microbatch": 4,
    },
    "trainer": {"max_epochs": 2, "check_val_every_n_epoch": 1, "accelerator": "cpu"},
    "gradient_variance": {"every_n_iterations": 0},
}


def write(path, config=SMALL, **changes):
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({**config, **changes}))
    return str(path)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_files_are_arms_and_a_study_has_its_own_seeds_loggers_and_folders(here):
    of_a_run = {
        **SMALL,
        "ckpt_path": None,
        "weights_only": None,
        "trainer": {**SMALL["trainer"], "logger": {"class_path": "x.Logger"}, "callbacks": [{"class_path": "x.Mine"}]},
        "checkpoint": {"dirpath": "somewhere", "every_n_epochs": 5},
    }
    study = compared([write(here / "one.yaml"), write(here / "b" / "two.yaml", of_a_run)], None, DEFAULT, ())
    assert (study.name, study.baseline, study.arm_names) == ("compare-one-two", "one", ("one", "two"))
    assert [(each.arms, each.against) for each in study.comparisons] == [(("two",), ("one",))]
    one, two = cells(study, [3])
    assert one.config == {**SMALL, "seed_everything": 3}
    trainer = {**SMALL["trainer"], "callbacks": [{"class_path": "x.Mine"}]}
    assert two.config == {**one.config, "trainer": trainer, "checkpoint": {"every_n_epochs": 5}}
    same = compared([write(here / "a" / "x.yaml"), write(here / "b" / "x.yaml")], "named", "test/accuracy", ())
    assert same.name == "named" and same.arm_names == (str(here / "a/x"), str(here / "b/x"))
    assert same.how == f"compare {here}/a/x.yaml {here}/b/x.yaml --name named --metric test/accuracy"
    files = [write(here / "a" / "x.yaml"), write(here / "y.yaml")]
    assert compared(files, None, MEMORY, (), 10).how == f"compare {' '.join(files)} --metric {MEMORY} --matters 10"
    assert [each.matters for each in compared(files, None, DEFAULT, (), 0.5).comparisons] == [0.5]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["a.yaml"], "two to 7 files"),
        ([f"{i}.yaml" for i in range(8)], "given: 8"),
        (["a.yaml", "a.yaml"], "a.yaml is given twice"),
        (["a.yaml", "none.yaml"], "none.yaml cannot be read (No such file"),
        (["a.yaml", "."], ". cannot be read"),
        (["a.yaml", "broken.yaml"], "broken.yaml is no YAML"),
        (["a.yaml", "list.yaml"], "list.yaml holds no settings"),
        (["a.yaml", "resumed.yaml"], "resumed.yaml: ckpt_path is last.ckpt"),
        (["a.yaml", "b.yaml", "--name", "quickstart"], "is a study of the package"),
        (["a.yaml", "b.yaml", "--name", "../x"], "is no name of a folder"),
        (["a.yaml", "b.yaml", "--metric", "test/acuracy"], "--metric"),
        (
            ["a.yaml", "b.yaml", "--matters", "0"],
            "difference that matters is more than 0 points, not 0",
        ),
        (["a.yaml", "b.yaml", "--matters", "two"], "--matters"),
        (["a.yaml", "b.yaml", "--seeds", "0"], "--seeds"),
        (["a.yaml", "--jobs", "0", "b.yaml"], "--jobs"),
    ],
)
def test_a_mistake_is_one_line(here, capsys, args, said):
    for name in ("a.yaml", "b.yaml"):
        write(here / name)
    write(here / "resumed.yaml", ckpt_path="last.ckpt")
    (here / "broken.yaml").write_text("a: [")
    (here / "list.yaml").write_text("- a\n")
    before = set(here.iterdir())
    assert main(["compare", *args]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("ablations: ") and said in line and set(here.iterdir()) == before


def test_accuracies_on_different_problems_are_not_compared():
    study = Study("s", "?", arms=(Arm("a", {}), Arm("b", {})))
    task = {"class_path": "lit_rl.tasks.GSM8KStyle", "init_args": {"steps": 2}}

    def settings(eval_prompts=8, **changes):
        return {"data": {"task": {**task, **changes}, "eval_prompts": eval_prompts}}

    check_same_problems(study, {"a": settings(), "b": settings()})
    for other, said in (
        (settings(init_args={"steps": 3}), "data.task.steps is 2 in a and 3 in b"),
        (settings(class_path="lit_rl.tasks.Custom"), "data.task is .*GSM8KStyle in a"),
        (settings(9), "data.eval_prompts is 8 in a and 9 in b"),
    ):
        with pytest.raises(UsageError, match=said):
            check_same_problems(study, {"a": settings(), "b": other})


def test_two_files_are_run_compared_and_not_run_again(here, capsys, monkeypatch):
    """One is of a class of the working directory, which the workers find."""
    monkeypatch.syspath_prepend(here)
    (here / "mine.py").write_text("from lit_rl.algorithms import RLOO\n\nclass Mine(RLOO):\n    pass\n")
    files = [write(here / "rloo.yaml"), write(here / "mine.yaml", model={"class_path": "mine.Mine"})]
    command = ["compare", "rloo.yaml", "mine.yaml", "--name", "try", "--jobs", "2", "--seeds", "2"]
    assert files and main(command) == 0, capsys.readouterr().err
    text = (here / "results/try/report.md").read_text()
    assert "python -m ablations compare rloo.yaml mine.yaml --name try --seeds 2" in text and "pilot" in text
    summary = json.loads((here / "results/try/summary.json").read_text())
    assert [row["comparison"] for row in summary["comparisons"]] == ["mine against rloo"]
    assert summary["comparisons"][0]["seeds"] == 2
    page = (here / "results/README.md").read_text()
    assert summary["question"] in page and "(try/report.md)" in page and "(certificate/" not in page
    capsys.readouterr()
    assert main(command) == 0
    assert "4 of 4 cells already finished" in capsys.readouterr().err
