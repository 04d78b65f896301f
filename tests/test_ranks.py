"""Two processes do together what one does alone."""

import json
import subprocess
import sys

import pytest
import torch

RUN = """
import json, sys
from pathlib import Path
import torch
from lightning import Callback, Trainer
from lit_rl.algorithms import OnlineDPO, PPO, ReMax, TRePO
from lit_rl.callbacks import Diagnostics, GradientVariance, RewardCallback
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.functional.cuts import Stride
from lit_rl.tasks import GSM8KStyle

torch.set_num_threads(1)
ranks, out, name = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
algorithm = {
    "ReMax": lambda: ReMax(max_new_tokens=48, normalizer="token_mean"),
    "PPO": lambda: PPO(max_new_tokens=48, samples=4),
    "OnlineDPO": lambda: OnlineDPO(max_new_tokens=48),
    "reuse": lambda: TRePO(max_new_tokens=48, samples=2, cuts=Stride(8), reuse=True, normalizer="token_mean"),
}[name]()
if name == "PPO":  # at 0 it would hide the critic's trunk
    torch.nn.init.normal_(algorithm.critic.head.weight, generator=torch.Generator().manual_seed(0))
rows = {"ReMax": 8, "PPO": 32, "OnlineDPO": 16, "reuse": 176}[name]  # of one optimizer step

class Keep(Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.is_global_zero:
            torch.save([p.grad for p in pl_module.parameters() if p.grad is not None], out / "gradient.pt")

data = RolloutDataModule(
    GSM8KStyle(train_size=64, val_size=9), prompts_per_iteration=8, rows_per_microbatch=rows // ranks, seed=0
)
options = {**TRAINER_DEFAULTS, "max_epochs": 1, "check_val_every_n_epoch": 1, "gradient_clip_val": None}
trainer = Trainer(
    **options, accelerator="cpu", devices=ranks, strategy="ddp",
    logger=False, enable_checkpointing=False, enable_progress_bar=False,
    callbacks=[
        RewardCallback(lambda e, ids, t: float(ids.sum() % 7)), GradientVariance(1), Keep(),
        Diagnostics(probe_every_n_iterations=1, probe_prompts=8 // ranks, probe_samples=4),
    ],
)
trainer.fit(algorithm, datamodule=data)
assert trainer.global_step == 1
if trainer.is_global_zero:
    (out / "metrics.json").write_text(json.dumps({k: float(v) for k, v in trainer.callback_metrics.items()}))
"""


@pytest.fixture(scope="module", params=["ReMax", "PPO", "OnlineDPO", "reuse"])
def results(request, tmp_path_factory):
    """Metrics and gradient of one rank and of two; with reuse their numbers of rows differ, and are filled up."""
    found = []
    for ranks in (1, 2):
        folder = tmp_path_factory.mktemp(f"ranks{ranks}")
        (folder / "run.py").write_text(RUN)  # Lightning starts the other rank with the same file
        run = subprocess.run(
            [sys.executable, folder / "run.py", str(ranks), folder, request.param],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        gradient = torch.cat([g.reshape(-1) for g in torch.load(folder / "gradient.pt")])
        found.append((json.loads((folder / "metrics.json").read_text()), gradient))
    return found


def test_metrics_of_two_ranks_are_those_of_one(results):
    """Nine validation problems, so that the ranks' shares differ; rewards, tokens and gradient statistics as well."""
    (one, _), (two, _) = results
    same = [name for name in one if not name.startswith("time/")]
    assert {
        "val/accuracy",
        "gradient/trace_cov",
        "diagnostic/entropy_ratio",
        "tokens/generated",
        "train/reward",
    } <= set(same)
    assert {name: two[name] for name in same} == pytest.approx({name: one[name] for name in same}, rel=1e-3, abs=1e-9)


def test_gradient_of_two_ranks_is_that_of_one(results):
    (_, one), (_, two) = results
    assert float((one - two).norm()) < 1e-5 * float(one.norm())
