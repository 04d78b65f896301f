"""Settings of checkpoints that are refused before the first iteration."""

import pytest
from training import train

from lit_rl.algorithms import PPO, RLOO, OnlineDPO, TRePO
from lit_rl.callbacks import Credit, Diagnostics, GradientVariance, IterationCheckpoint, Memory, ValueAccuracy
from lit_rl.callbacks.checkpoint_settings import METRICS, check_folder, is_known
from lit_rl.errors import UsageError
from lit_rl.tasks import KeyToken

SETTINGS = [
    (PPO, {}),
    (PPO, {"critic_pretraining": 1}),
    (TRePO, {"kl_coefficient": 0.1, "kl": "k2_loss"}),
    (OnlineDPO, {}),
]


@pytest.mark.parametrize("algorithm, settings", SETTINGS, ids=lambda x: getattr(x, "__name__", ""))
def test_every_metric_that_is_logged_is_known(algorithm, settings):
    observers = [Diagnostics(), GradientVariance(1), Credit(1), Memory()]
    observers += [ValueAccuracy(1, stride=2, continuations=2)] if algorithm is not OnlineDPO else []
    logged = train(algorithm, KeyToken(3, 4), 1, observers, **{"reference": True, **settings})
    assert {name for name in logged if not is_known(name)} <= {"step"}
    assert {name.split("/")[0] for name in logged} - {"step"} <= set(METRICS)


@pytest.mark.parametrize("monitor, named", [("val/acuracy", "did you mean val/accuracy"), ("elegance", "nothing logs")])
def test_a_monitor_that_nobody_logs_is_told_before_the_first_iteration(monitor, named, tmp_path, fit):
    checkpoint = IterationCheckpoint(dirpath=tmp_path / "kept", monitor=monitor)
    with pytest.raises(UsageError, match=f"^checkpoint.monitor is {monitor}.*{named}"):
        fit(RLOO, callbacks=(checkpoint,), trainer={"enable_checkpointing": True})
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_lowest_reward_as_the_best_is_noted(mode, tmp_path, fit, capsys):
    checkpoint = IterationCheckpoint(dirpath=tmp_path, monitor="train/reward", mode=mode)
    fit(RLOO, callbacks=(checkpoint,), trainer={"enable_checkpointing": True}, max_new_tokens=4)
    said = "checkpoint.mode is min, so that the lowest train/reward counts" in capsys.readouterr().err
    assert said == (mode == "min") and list(tmp_path.glob("*.ckpt"))


def test_a_folder_that_a_file_is_in_the_way_of(tmp_path, lit_rl):
    (tmp_path / "file").write_text("")
    check_folder(str(tmp_path / "new" / "newer"), "s")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for path in ("file", "file/below"):
        code, _, err = lit_rl("fit", f"--checkpoint.dirpath={path}")
        assert code == 2 and f"lit_rl: checkpoint.dirpath: {path} can't be a folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
