"""Workers on many machines, without Ray: what travels, which nodes are used, and what is said of them."""

import queue
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from ablations.__main__ import main
from ablations.sweep import ray_nodes
from ablations.sweep.launchers import Death
from ablations.sweep.ray_nodes import RayNodes, connected, room
from ablations.sweep.ray_tasks import Folder, RayWorker
from lit_rl.errors import UsageError


def test_a_folder_arrives_whole_and_once(tmp_path, monkeypatch):
    for machine in ("here", "there"):
        (tmp_path / machine).mkdir()
    path = Path("stages/scores-1")
    monkeypatch.chdir(tmp_path / "here")
    (path / "deep").mkdir(parents=True)
    (path / "stage.json").write_text("{}")
    (path / "deep" / "weights").write_bytes(bytes(range(256)))
    folder = Folder.packed(path)
    monkeypatch.chdir(tmp_path / "there")
    for _ in range(2):
        folder.unpack()
        assert Folder.packed(path) == folder
        assert [each.name for each in Path("stages").iterdir()] == ["scores-1"]


@pytest.mark.parametrize(
    ("node", "share", "fits"),
    [
        ({"CPU": 8}, {"CPU": 1, "GPU": 0}, 8),
        ({"CPU": 8}, {"CPU": 1, "GPU": 1}, 0),
        ({"CPU": 8, "GPU": 2}, {"CPU": 1, "GPU": 0.25}, 8),
        ({"CPU": 8, "GPU": 1}, {"CPU": 2, "GPU": 0.1}, 4),
        ({"CPU": 64, "GPU": 1}, {"CPU": 0.5, "GPU": 0.1}, 10),
    ],
)
def test_a_node_has_room_for_what_fits(node, share, fits):
    assert room(node, share) == fits


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "MLFLOW_TRACKING_URI"),
        (["--address", "127.0.0.1:9"], "--address: no Ray cluster at 127.0.0.1:9"),
        (["--address", "head"], "--address: no Ray cluster at head"),
    ],
)
def test_what_ray_cannot_do_is_one_line(monkeypatch, capsys, args, named):
    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
    if args:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    _is_one_line(capsys, named, "--launcher", "ray", *args)


def test_without_ray_a_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    _is_one_line(capsys, "pip install 'lit-rl[ray]'", "--launcher", "ray")


OWN = """
from ablations.study import Arm, Study
STUDY = Study("own_study", "?", arms=(Arm("a", {"model": "RLOO"}),), cpus_per_cell=2, gpus_per_cell=0.5)
"""


@pytest.mark.parametrize(
    ("flags", "share"),
    [
        ((), "2 CPU and 0.5 GPU"),
        (("--gpus-per-cell", "0.25"), "2 CPU and 0.25 GPU"),
        (("--cpus-per-cell", "3", "--gpus-per-cell", "0"), "3 CPU and 0 GPU"),
        (("--cpus-per-cell", "3", "--smoke"), "3 CPU and 0 GPU"),
        (("--gpus-per-cell", "1", "--smoke"), "1 CPU and 1 GPU"),
    ],
)
def test_a_cell_takes_what_its_study_says_unless_a_flag_does(monkeypatch, capsys, flags, share):
    """The node has one CPU."""
    FakeRay(monkeypatch, "10.0.0.1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://10.0.0.1:5000")
    Path("own_study.py").write_text(OWN)
    assert main(["run", "own_study", "--launcher", "ray", *flags]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"--cpus-per-cell, --gpus-per-cell: a cell takes {share}, which no node of the cluster has" in line


def test_a_setting_of_ray_is_not_taken_for_one_of_processes(capsys):
    _is_one_line(capsys, "--gpus-per-cell", "--gpus-per-cell", "0.5")


class FakeRay:
    """As much of Ray as finding nodes takes: each has one CPU."""

    def __init__(self, monkeypatch, *addresses: str) -> None:
        self.addresses = list(addresses)
        module, exceptions = types.ModuleType("ray"), types.ModuleType("ray.exceptions")
        module.util = types.SimpleNamespace(get_node_ip_address=lambda: "10.0.0.1")
        module.init = module.shutdown = lambda **_: None
        module.remote = lambda **_: lambda function: None
        module.nodes = lambda: [
            {"NodeID": f"id of {each}", "NodeManagerAddress": each, "Alive": True, "Resources": {"CPU": 1}}
            for each in self.addresses
        ]
        module.get = lambda reference: reference
        exceptions.NodeDiedError = exceptions.RayTaskError = type("RayError", (Exception,), {})
        monkeypatch.setitem(sys.modules, "ray", module)
        monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
        monkeypatch.setattr(ray_nodes, "SECONDS_BETWEEN_LOOKS", 0.0)
        self.errors = exceptions

    def follow(self, stream, nodes: "RayNodes | None" = None) -> RayWorker:
        """A worker whose stream has been read to its end."""
        worker = RayWorker(stream, queue.SimpleQueue(), nodes._exclude if nodes else print)
        worker.thread.join()
        assert not list(worker.told()) and worker.is_over()
        return worker


@pytest.mark.parametrize(
    ("server", "nodes", "refused"),
    [
        ("http://127.0.0.1:5000", ["10.0.0.1", "10.0.0.2"], True),
        ("http://localhost:5000", ["10.0.0.2"], True),
        ("http://[::1]:5000", ["10.0.0.1", "127.0.0.1", "10.0.0.2"], True),
        ("http://127.0.0.1:5000", ["10.0.0.1", "127.0.0.2"], False),
        ("http://10.0.0.1:5000", ["10.0.0.1", "10.0.0.2"], False),
    ],
)
def test_a_server_that_other_machines_cannot_reach_is_refused(monkeypatch, server, nodes, refused):
    FakeRay(monkeypatch, *nodes)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    try:
        with connected("auto", 1, 0, None) as connection:
            assert connection.room == len(nodes) and not refused
    except UsageError as error:
        assert refused and server in str(error) and "http://10.0.0.1:5000" in str(error)


def test_a_line_says_that_no_node_is_left_and_one_that_there_is_again(monkeypatch, capsys):
    ray = FakeRay(monkeypatch, "10.0.0.1", "10.0.0.2")
    nodes = RayNodes(1, 0, None)
    for addresses in (["10.0.0.1", "10.0.0.2"], ["10.0.0.2"], [], [], ["10.0.0.3"], ["10.0.0.3"]):
        ray.addresses = addresses
        for _ in range(2):
            assert nodes.room == len(addresses)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(";")[0] for line in lines] == [
        "Ray: 2 cells at a time now",
        "Ray: no node has room for a cell now",
        "Ray: 1 cell at a time now",
    ]


def test_a_node_where_work_cannot_begin_is_tried_no_more(monkeypatch, capsys):
    """Ray's error is that of a task, and says where it was."""
    ray = FakeRay(monkeypatch, "10.0.0.1", "10.0.0.2")
    nodes = RayNodes(1, 0, None)
    assert nodes.room == 2

    def denied(address):
        raise ray.errors.RayTaskError(f"ray::on_node() (pid=1, ip={address})\n  File ...\nPermissionError: '/a'")
        yield

    death = ray.follow(denied("10.0.0.2"), nodes).death()
    assert death.cause == "of PermissionError: '/a', on 10.0.0.2" and death.tries > 2
    assert nodes.room == 1
    assert "Ray: node 10.0.0.2 gets no more cells: PermissionError: '/a'" in capsys.readouterr().err.splitlines()
    ray.follow(denied("10.0.0.1"), nodes)
    with pytest.raises(UsageError, match="10.0.0.1: PermissionError: '/a'; 10.0.0.2: "):
        nodes.room  # noqa: B018
    ray.addresses = ["10.0.0.3"]
    assert nodes.room == 1


def test_a_worker_whose_stream_cannot_be_read_is_over(monkeypatch):
    ray = FakeRay(monkeypatch)
    assert ray.follow(1 / each for each in [0]).death() == Death("its Ray worker", "division by zero")


def test_all_workers_have_one_deadline(monkeypatch):
    monkeypatch.setattr(ray_nodes, "SECONDS_TO_STOP", 0.2)
    FakeRay(monkeypatch)
    never, nodes = threading.Event(), RayNodes(1, 0, None)
    for _ in range(20):
        stuck = types.SimpleNamespace(is_over=lambda: False, cancel=lambda: None)
        stuck.thread = threading.Thread(target=never.wait, daemon=True)
        stuck.thread.start()
        nodes._started.append(stuck)
    started = time.monotonic()
    nodes.stop()
    assert time.monotonic() - started < 20 * 0.2 / 2
    never.set()


def _is_one_line(capsys, named: str, *args: str) -> None:
    assert main(["run", "quickstart", *args]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("ablations: ") and named in line
    assert not list(Path().iterdir())
