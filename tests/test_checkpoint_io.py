"""A checkpoint file is whole at any time, and a broken one is never used."""

import os
import resource
import signal

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from lit_rl.algorithms import RLOO
from lit_rl.callbacks import IterationCheckpoint
from lit_rl.checkpoint_io import WholeCheckpointIO, check_whole, is_whole, newest_whole
from lit_rl.errors import UsageError
from lit_rl.strategy import FSDP2


def checkpoint(number):
    return {"state_dict": {"a": torch.full((20,), float(number)), "b": torch.arange(3)}, "epoch": number}


def content(path):
    saved = torch.load(path, weights_only=True)
    return {**saved, "state_dict": {name: value.tolist() for name, value in saved["state_dict"].items()}}


@pytest.mark.parametrize("strategy", [SingleDeviceStrategy, DDPStrategy, FSDP2])
def test_a_process_killed_while_it_saves_leaves_the_earlier_checkpoint_and_the_next_save_tidies_up(tmp_path, strategy):
    path = tmp_path / "last.ckpt"
    writer = strategy()
    writer.checkpoint_io = WholeCheckpointIO()
    writer.save_checkpoint(checkpoint(1), path)
    child = os.fork()
    if not child:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # all is written, nothing renamed
        writer.save_checkpoint(checkpoint(2), path)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2 and is_whole(path) and content(path)["epoch"] == 1
    writer.save_checkpoint(checkpoint(3), path)
    assert list(tmp_path.iterdir()) == [path] and content(path)["epoch"] == 3


def test_each_byte_that_is_flipped_is_noticed(tmp_path):
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint(checkpoint(1), path)
    with open(path, "r+b", buffering=0) as file:
        for place, byte in enumerate(path.read_bytes()):
            for flip in (0x01, 0x80, 0x55, byte or 0xFF):  # the last makes it 0
                os.pwrite(file.fileno(), bytes([byte ^ flip]), place)
                assert not is_whole(path), (place, flip)
            os.pwrite(file.fileno(), bytes([byte]), place)
    assert is_whole(path)


def test_a_checkpoint_that_lightning_or_torch_wrote_is_read_and_its_weights_are_checked(tmp_path):
    path = tmp_path / "older.ckpt"
    for save in (TorchCheckpointIO().save_checkpoint, torch.save):
        save(checkpoint(7), path)
        assert is_whole(path) and WholeCheckpointIO().load_checkpoint(path)["epoch"] == 7
        whole = path.read_bytes()
        place = whole.index(torch.full((20,), 7.0).numpy().tobytes())
        path.write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
        assert not is_whole(path)


@pytest.mark.parametrize("kept", [0, 1, 100, -100, -1])
def test_a_cut_or_empty_checkpoint_names_the_newest_whole_one_beside_it(tmp_path, lit_rl, kept):
    for number, name in enumerate(["older", "newer", "last"]):
        WholeCheckpointIO().save_checkpoint(checkpoint(number), tmp_path / f"{name}.ckpt")
        os.utime(tmp_path / f"{name}.ckpt", (number, number))
    last = tmp_path / "last.ckpt"
    last.write_bytes(last.read_bytes()[:kept])
    with pytest.raises(UsageError, match="newer.ckpt beside it is whole"):
        check_whole(last)
    for load in (WholeCheckpointIO().load_checkpoint, FSDP2().load_checkpoint):
        with pytest.raises(UsageError, match="newer.ckpt beside it is whole"):
            load(last)
    if kept == 100:
        code, _, err = lit_rl("fit", "--ckpt_path", str(last))
        assert code == 2 and err.count("\n") == 1 and f"ckpt_path: {last} is no checkpoint" in err
        assert f"{tmp_path / 'newer.ckpt'} beside it is whole" in err


def test_a_full_disk_is_one_line_and_the_earlier_checkpoint_stays_whole(fit, tmp_path):
    class Full(IterationCheckpoint):
        def on_train_epoch_end(self, trainer, pl_module):
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            if trainer.current_epoch == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
            try:
                super().on_train_epoch_end(trainer, pl_module)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    saved = Full(dirpath=tmp_path, save_on_train_epoch_end=True, every_n_epochs=1, save_last=True)
    with pytest.raises(UsageError) as error:
        fit(RLOO, iterations=3, callbacks=(saved,), trainer={"enable_checkpointing": True})
    assert "checkpoint.dirpath: can't write" in str(error.value) and "File too large" in str(error.value)
    left = list(tmp_path.iterdir())
    assert len(left) == 2 and all(is_whole(path) for path in left)  # last and the iteration's own
    assert str(newest_whole(tmp_path)) in str(error.value)
