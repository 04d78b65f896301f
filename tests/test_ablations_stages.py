"""What cells need to have been made before: made once, named by its command, and counted."""

import json
from pathlib import Path

import pytest

from ablations.analysis import arm_table
from ablations.grid import Preparation, cells, preparation
from ablations.records.outcome import Outcome
from ablations.records.study_results import load
from ablations.report import figures
from ablations.study import Arm, Stage, Study
from ablations.sweep import runner, stages
from ablations.sweep.stages import prepare, seconds
from ablations.sweep.workers import Processes, aside
from lit_rl.errors import UsageError

TASK = {"class_path": "KeyToken", "init_args": {"vocabulary": 3, "length": 2}}
SMALL = ("--prompts", "16", "--eval_prompts", "16", "--epochs", "1", "--start", "random", "--hidden_size", "8")
SIZES = ("--layers", "1", "--heads", "1", "--data.task.vocabulary", "3", "--data.task.length", "2")
SCORES = Stage("scores", ("fit-reward", "--data.task", "KeyToken", *SIZES, *SMALL, "--output", "{folder}"))
TABLE = {"class_path": "lit_rl.policy.TabularPolicy", "init_args": {"vocabulary": 3, "length": 2}}


def study(*arms: Arm) -> Study:
    base = {
        "model": {"init_args": {"policy": TABLE, "max_new_tokens": 2}},
        "data": {"task": TASK, "prompts_per_iteration": 32, "rows_per_microbatch": 8, "eval_prompts": 4},
        "trainer": {"max_epochs": 3, "check_val_every_n_epoch": 1, "accelerator": "cpu"},
    }
    return Study("s", "?", "here", arms, arms[0].name, "test/accuracy_sampled", (), base=base, seeds=(0,))


def test_a_folder_is_named_by_its_command_and_fills_the_settings():
    seeded = Stage("dpo", ("fit", "--seed_everything", "{seed}"), smoke=("--trainer.max_epochs", "1"))
    first, second, smoked = (preparation(seeded, *each).folder for each in ((0, False), (1, False), (1, True)))
    assert first != second != smoked
    assert preparation(SCORES, 0, False) == preparation(SCORES, 1, False)
    arm = Arm(
        "a", {"model": {"class_path": "RTO", "init_args": {"dpo_checkpoint": "{dpo}/last.ckpt"}}}, None, (seeded,)
    )
    found = cells(study(arm), [0, 1])
    for cell, seed in zip(found, (0, 1), strict=True):
        [made] = cell.preparations
        assert cell.config["model"]["init_args"]["dpo_checkpoint"] == f"{made.folder}/last.ckpt"
        assert made.args == ("fit", "--seed_everything", str(seed))
    assert found[0].hash != found[1].hash


def test_a_stage_that_fails_leaves_nothing_behind(tmp_path):
    wrong = Preparation("mlruns/stages/wrong", ("fit-reward", "--prompts", "0", "--output", "{folder}"))
    with pytest.raises(UsageError, match="fit-reward --prompts 0 .* failed: prompts is 0"):
        prepare([wrong], Processes(1))
    assert not any(Path("mlruns").rglob("*wrong*"))


def test_two_tries_at_once_do_not_meet_and_what_is_made_stays(tmp_path):
    """As on a file system that machines share, where one of them was taken for dead."""
    made = preparation(SCORES, 0, False)
    task, launcher = stages._StageTask(made), Processes(2)
    works = [task.start() for _ in range(2)]
    try:
        workers = [launcher.start(work, None) for work in works]
        while left := [worker for worker in workers if not worker.is_over()]:
            launcher.wait(left, None)
            assert not [status for worker in workers for status in worker.told()]
        assert not [status for worker in workers for status in worker.told()]
    finally:
        launcher.stop()
    assert [worker.outcome for worker in workers] == [Outcome(None)] * 2
    folder = Path(made.folder)
    assert list(folder.parent.iterdir()) == [folder]
    before = (folder / stages.RECORD).stat().st_mtime_ns
    assert aside(stages._make, print, made, works[0].args[1]) is None  # for a runner that did not get it
    assert (folder / stages.RECORD).stat().st_mtime_ns == before


def test_a_sweep_makes_its_stages_once_and_reports_what_they_took(tmp_path, capfd):
    model = {"class_path": "ABC", "init_args": {"reward_model": "{scores}"}}
    waiting = {"class_path": "PPO", "init_args": {"critic_pretraining": 2}}
    arms = (
        Arm("PPO", {"model": {"class_path": "PPO"}}),
        Arm("PPO, pretrained", {"model": waiting}),
        Arm("ABC", {"model": model, "gradient_variance": {"every_n_iterations": 0}}, None, (SCORES,)),
    )
    swept = study(*arms)
    assert runner.run(swept, None, Processes(2), False) == 0, capfd.readouterr().err
    [made] = cells(swept)[2].preparations
    record = json.loads((Path(made.folder) / "stage.json").read_text())
    assert record["args"] == list(made.args) and seconds([made]) == record["seconds"] > 0
    before = (Path(made.folder) / "stage.json").stat().st_mtime_ns
    prepare([made], Processes(1))
    assert (Path(made.folder) / "stage.json").stat().st_mtime_ns == before

    results = load(swept, False)
    assert results.by_seed("ABC", "time/stages")[0] == pytest.approx(record["seconds"], rel=1e-5)
    headings, *rows = arm_table.table(results).csv()
    found = {row["arm"]: row for row in (dict(zip(headings, row, strict=True)) for row in rows)}
    assert float(found["ABC"]["time of stages (s)"]) == pytest.approx(record["seconds"], abs=0.5)
    [spent] = results.by_seed("PPO", "time/fit").values()
    assert not found["PPO"]["time of stages (s)"] and spent > 0
    assert float(found["PPO"]["time with evaluation (s)"]) == pytest.approx(spent, abs=0.5)
    assert all(float(row["peak memory (MiB)"]) > 100 for row in found.values())
    drawn = figures.draw(results, tmp_path)
    assert "critic.png" in drawn and (tmp_path / "critic.png").stat().st_size > 5000
    curves = results.of("PPO, pretrained")[0].curves
    assert list(curves["pretraining/bias"]) == [1, 2] and list(curves["critic/bias"]) == [3]
