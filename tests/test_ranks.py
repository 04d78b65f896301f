"""Two processes do together what one does alone, with DDP and with FSDP2."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ranks
import torch

STRATEGIES = ["ddp", "fsdp2"]
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """A folder with what one process (``one``) and two by each strategy have written."""
    folder = tmp_path_factory.mktemp("ranks")
    for name in ("one", *STRATEGIES):
        (folder / name).mkdir()
    ranks.ingredients(folder)
    for name in ranks.NAMES:
        ranks.run(name, folder / "one", 1, "auto")
    for strategy in STRATEGIES:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command = [*launch, ranks.__file__, strategy, str(folder / strategy)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    return folder


def load(folder: Path, name: str, iterations: int = 1) -> dict:
    return torch.load(folder / f"{name}{iterations}.pt")


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([x.double().reshape(-1) for x in tensors.values()])


@each_strategy
@pytest.mark.parametrize("name", ranks.NAMES)
def test_loss_and_gradient_of_two_processes_are_those_of_one(results, name, strategy):
    """Every model that is trained is in the gradient; its clipped step leads to the same weights."""
    one, two = load(results / "one", name), load(results / strategy, name)
    assert one["gradient"].keys() == two["gradient"].keys() and one["weights"].keys() == two["weights"].keys()
    own = flat(one["gradient"])
    assert float(own.norm()) > 0.1
    assert float((flat(two["gradient"]) - own).norm()) < 1e-5 * float(own.norm())
    assert float((flat(two["weights"]) - flat(one["weights"])).abs().max()) < 1e-5
    losses = [name for name in one["metrics"] if name.startswith("loss/")]
    assert losses and all(two["metrics"][x] == pytest.approx(one["metrics"][x], rel=1e-5, abs=1e-6) for x in losses)


@each_strategy
@pytest.mark.parametrize("name", ranks.NAMES)
def test_metrics_of_two_processes_are_those_of_one(results, name, strategy):
    """Gradient statistics, diagnostics, tokens, and accuracy on nine problems in batches of four, so that ranks have
    different numbers of batches."""
    one, two = (load(results / folder, name)["metrics"] for folder in ("one", strategy))
    same = [name for name in one if not name.startswith(("time/", "memory/"))]
    assert {"val/accuracy", "val/accuracy_sampled", "gradient/trace_cov", "train/reward"} <= set(same)
    assert {name: two[name] for name in same} == pytest.approx({name: one[name] for name in same}, rel=1e-4, abs=1e-6)


@each_strategy
@pytest.mark.parametrize("name", ranks.NAMES)
def test_groups_stay_on_one_rank(results, name, strategy):
    """Each rank has every other prompt with all of its responses, probes and continuations, which are those of one."""
    one = torch.load(results / "one" / f"{name}1-0.pt")
    for rank in (0, 1):
        assert torch.load(results / strategy / f"{name}1-{rank}.pt") == one[rank::2]
    assert len({len(response) for group in one for response in group}) > 1


@each_strategy
def test_all_ranks_have_spent_the_same(results, strategy):
    """Though their clocks differ: their learning rates are one."""
    for name in ranks.NAMES:
        first, second = (torch.load(results / strategy / f"{name}1-{rank}-budget.pt") for rank in (0, 1))
        assert first == second and first["spent"] > 0


@each_strategy
@pytest.mark.parametrize("name", ranks.RESUMED)
def test_metrics_are_logged_against_the_iteration(results, name, strategy):
    """Those of validation too, of which one rank has twice the batches."""
    with (results / strategy / name / "version_2" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["step"] for row in rows} == {"2"} and any(row["val/accuracy"] for row in rows)


def test_sharding_halves_what_a_process_keeps(results):
    """Policy, critic, reference and optimizer states, up to what does not divide."""
    whole, part = (load(results / strategy, "PPO")["metrics"] for strategy in STRATEGIES)
    for name in ("policy", "critic", "frozen", "optimizer"):
        assert part[f"memory/{name}"] == pytest.approx(whole[f"memory/{name}"] / 2, rel=0.05), name


@pytest.fixture(scope="module", params=ranks.RESUMED)
def uninterrupted(request, results) -> tuple[str, torch.Tensor]:
    """The weights after two iterations in one process."""
    ranks.run(request.param, results / "one", 1, "auto", 2)
    return request.param, flat(load(results / "one", request.param, 2)["weights"])


@each_strategy
def test_a_checkpoint_of_one_process_goes_on_in_two(results, uninterrupted, strategy):
    name, whole = uninterrupted
    assert float((flat(load(results / strategy, name, 2)["weights"]) - whole).abs().max()) < 1e-4


@each_strategy
def test_a_checkpoint_of_two_processes_goes_on_in_one(results, uninterrupted, strategy, tmp_path):
    name, whole = uninterrupted
    (tmp_path / "one").mkdir()
    ranks.run(name, tmp_path / "one", 1, "auto", 2, results / strategy / f"{name}.ckpt")
    assert float((flat(load(tmp_path / "one", name, 2)["weights"]) - whole).abs().max()) < 1e-4


# ---- from the command line ------------------------------------------------------------------------------------------

SCORER = """
import os, pathlib, signal, time
from lit_rl.errors import UsageError
def mistaken(example, ids, text):
    if os.environ.get("LOCAL_RANK") == "1":
        raise UsageError("what one process alone has met")
    return 1.0
def reward(example, ids, text):
    if os.environ.get("LOCAL_RANK") == "1":
        pathlib.Path("died").write_text(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)
    return float(len(ids))
"""


def fit(folder: Path, *args: str) -> subprocess.CompletedProcess:
    """``python -m lit_rl fit`` on two processes."""
    (folder / "mortal.py").write_text(SCORER)
    data = ["--data.prompts_per_iteration", "2", "--data.rows_per_microbatch", "4", "--model.max_new_tokens", "8"]
    trainer = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.logger", "false"]
    command = [sys.executable, "-m", "lit_rl", "fit", "--model", "RLOO", *data, *trainer, *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_process_that_dies_ends_the_run_within_a_minute(tmp_path):
    """Whoever notices first says so: the collective that breaks, or Lightning, which watches the processes."""
    done = fit(tmp_path, "--reward.scorer", "mortal.reward", "--trainer.strategy", "ddp")
    assert time.time() - float((tmp_path / "died").read_text()) < 60
    assert done.returncode not in (0, None)
    assert "Error" in done.stderr or "terminated with code -9" in done.stderr


@pytest.mark.parametrize(
    "settings, said",
    [
        (["--data.prompts_per_iteration", "1"], "data.prompts_per_iteration is 1"),  # fewer groups than processes
        (["--reward.scorer", "mortal.mistaken"], "what one process alone has met"),
    ],
    ids=["all", "one"],
)
def test_a_mistake_gets_one_line_whichever_processes_meet_it(tmp_path, settings, said):
    done = fit(tmp_path, *settings, "--trainer.strategy", "fsdp2")
    lines = [line for line in done.stderr.splitlines() if line.startswith("lit_rl:")]
    assert done.returncode == 2 and len(lines) == 1 and said in lines[0]
    assert "Traceback" not in done.stderr
