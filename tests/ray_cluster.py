"""Studies on a Ray cluster of two nodes with one CPU each, all on this machine: ``make ray``."""

import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import sweeping
import visible_gpus
from mlflow.tracking import MlflowClient
from mlflow_server import Server, served
from ray.cluster_utils import Cluster
from waiting import PATIENCE, until

from ablations.records.experiment import ARM, FAILURE, KIND, SEED
from ablations.sweep.launchers import Work
from ablations.sweep.ray_nodes import connected

TESTS = Path(__file__).parent
SEEDS = 4
SWEPT = "swept", "--seeds", str(SEEDS)  # twelve cells


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", f"{TESTS.parent}:{TESTS}")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_worker_niceness", "0")  # by default workers give way to whatever else this machine does
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        yield made
        made.shutdown()


@pytest.fixture
def node(cluster):
    """A second node."""
    added = cluster.add_node(num_cpus=1)
    yield added
    if added in cluster.worker_nodes:
        cluster.remove_node(added)


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    with served(folder) as started:
        started.start()
        until(started.answers)
        yield started


@pytest.fixture
def here(tmp_path) -> Path:
    """The runner's folder."""
    folder = tmp_path / "runner"
    folder.mkdir()
    return folder


@pytest.fixture
def start(here, cluster, server) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    runners = []

    def run(*args: str) -> "subprocess.Popen[str]":
        options = "--launcher", "ray", "--address", str(cluster.address)
        runners.append(sweeping.start(here, "run", *args, *options, MLFLOW_TRACKING_URI=server.uri))
        return runners[-1]

    yield run
    for runner in runners:
        runner.kill()


def test_when_a_node_dies_each_cell_finishes_once_and_the_report_is_the_local_one(
    start, here, cluster, node, server, tmp_path
):
    runner = start(*SWEPT)
    until(lambda: _states(server, "swept")["FINISHED"] >= 3 and bool(_cells(node)), runner)
    cluster.remove_node(node, allow_graceful=False)
    errors = _ends(runner, 0)
    assert "Ray: 2 cells at a time now; each takes 1 CPU and 0 GPU" in errors
    assert any("its node died" in line and "tried once more" in line for line in errors), errors
    finished = Counter(
        (run.data.tags[ARM], run.data.tags[SEED])
        for run in _runs(server, "swept", "cell")
        if run.info.status == "FINISHED"
    )
    arms = sweeping.STUDIES["swept"].arm_names
    assert finished == {(arm, str(seed)): 1 for arm in arms for seed in range(SEEDS)}
    assert set(_states(server, "swept")) == {"FINISHED", "KILLED"}
    assert Counter(run.info.status for run in _runs(server, "swept", "arm")) == {"FINISHED": 3}

    local = tmp_path / "local"
    local.mkdir()
    _ends(sweeping.start(local, "run", *SWEPT, "--jobs", "2"), 0)
    assert _report(here, MLFLOW_TRACKING_URI=server.uri) == _report(local)


def test_a_cell_that_finished_before_its_node_died_is_not_run_again(start, cluster, node, server):
    """The Ray worker is stopped, so that its cell's end reaches MLflow, but not the runner."""
    runner = start("swept", "--seeds", "1")
    until(lambda: bool(_cells(node, threads=2)), runner)
    stopped = psutil.Process(_cells(node)[0]).parent().parent()
    stopped.suspend()
    try:
        until(lambda: not _cells(node), runner)
        cluster.remove_node(node, allow_graceful=False)
    finally:
        stopped.kill()
    _ends(runner, 0)
    assert _states(server, "swept") == {"FINISHED": 3}


def test_a_node_where_no_cell_can_begin_is_left_out(start, cluster, server, tmp_path):
    package = tmp_path / "broken" / "ablations"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('half a package')")
    address, environment = "127.0.0.2", {"PYTHONPATH": str(package.parent)}
    node = cluster.add_node(num_cpus=1, node_ip_address=address, env_vars=environment)
    try:
        errors = _ends(start("swept", "--seeds", "1"), 0)
    finally:
        cluster.remove_node(node)
    assert f"Ray: node {address} gets no more cells: ImportError: half a package" in errors
    runs = _runs(server, "swept", "cell")
    lost = [run.data.tags[FAILURE] for run in runs if run.info.status == "KILLED"]
    assert 1 <= len(lost) <= 2 and all(reason.endswith(f"half a package, on {address}") for reason in lost)
    assert len(runs) == 3 + len(lost) and _states(server, "swept")["FINISHED"] == 3


def test_a_stage_is_made_before_the_cell_that_needs_it(start, here, server):
    _ends(start("staged"), 0)
    [made] = (here / "mlruns" / "stages").iterdir()
    assert made.name.startswith("scores-") and (made / "stage.json").exists()
    assert _states(server, "staged") == {"FINISHED": 1}
    assert len(_runs(server, "reward_models")) == 1


def test_a_process_that_dies_on_a_node_is_told_as_on_this_machine(start, server):
    errors = _ends(start("deadly"), 1)
    failed = [line for line in errors if line.startswith("failed: ")]
    assert failed == ["failed: segmentation fault, seed 0: its process died twice, of SIGSEGV"]
    assert _states(server, "deadly") == {"FINISHED": 2, "KILLED": 2, "FAILED": 1}


def test_a_signal_ends_the_sweep_and_its_cells(start, cluster, server):
    runner = start(*SWEPT)
    until(lambda: bool(_cells(cluster.head_node)), runner)
    runner.send_signal(signal.SIGTERM)
    errors = _ends(runner, 143)
    assert errors[-1] == "ablations: terminated; the same command goes on from here"
    assert "RUNNING" not in {run.info.status for run in _runs(server, "swept")}
    until(lambda: not _cells(cluster.head_node))


@pytest.mark.parametrize(("share", "gpus"), [(1, {"0": 1, "1": 1}), (0, {"": 2})])
def test_workers_have_their_part_of_a_gpu(cluster, monkeypatch, share, gpus):
    node = cluster.add_node(num_cpus=1, num_gpus=2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    try:
        with connected(cluster.address, 0.5, share, 2) as nodes:
            assert nodes.room == 2
            workers = [nodes.start(Work(visible_gpus.tell, ()), None) for _ in range(2)]
            told: dict = {}
            while len(told) < 2:
                for worker in nodes.wait(workers, None):
                    told.update((worker, status.cell) for status in worker.told())
                    assert not worker.is_over(), worker.death()
            nodes.stop()
        assert Counter(told.values()) == gpus
    finally:
        cluster.remove_node(node)


def test_a_cell_that_fits_nowhere_is_one_line(start, here):
    [line] = _ends(start("swept", "--gpus-per-cell", "1"), 2)
    assert "a cell takes 1 CPU and 1 GPU, which no node of the cluster has" in line
    assert not list(here.iterdir())


def _ends(runner: "subprocess.Popen[str]", code: int) -> list[str]:
    """Waits for the end; returns the lines of standard error."""
    errors = runner.communicate(timeout=PATIENCE)[1].splitlines()
    assert runner.returncode == code, errors
    return errors


def _cells(node, threads: int = 1) -> list[int]:
    """The processes at work on a node: children of what they are forked from. They begin with one thread."""
    [raylet] = node.all_processes["raylet"]
    found = []
    for process in psutil.Process(raylet.process.pid).children(recursive=True):
        try:
            forked = "multiprocessing.forkserver" in " ".join(process.parent().cmdline())
            if forked and process.num_threads() >= threads:
                found.append(process.pid)
        except (psutil.Error, AttributeError):  # it has ended
            pass
    return found


def _runs(server: Server, study: str, kind: str = "") -> list:
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name(study)
    query = f"tags.`{KIND}` = '{kind}'" if kind else ""
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id], query))


def _states(server: Server, study: str) -> Counter[str]:
    """How many cells are in which state."""
    return Counter(run.info.status for run in _runs(server, study, "cell"))


def _report(folder: Path, **environment: str) -> dict[str, bytes]:
    """All files of the report, without times and names of runs."""
    shutil.rmtree(folder / "results", ignore_errors=True)
    _ends(sweeping.start(folder, "plain", "swept", **environment), 0)
    return {path.name: path.read_bytes() for path in (folder / "results").rglob("*") if path.is_file()}
