"""MLflow away for a moment, or longer: what is logged is written once and in order, and refusals are told at once."""

import json
import random
import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
import torch
from mlflow.artifacts import load_dict
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.tracking import MlflowClient

from ablations.sweep.display import SweepDisplay
from ablations.sweep.status import Status
from lit_rl.callbacks import Memory
from lit_rl.errors import UsageError
from lit_rl.tracking import patience
from lit_rl.tracking.address import Client, experiment, has_run, tracking_uri
from lit_rl.tracking.database import make_tables
from lit_rl.tracking.patience import SETTING, Away
from lit_rl.tracking.run_logger import RunLogger


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    make_tables(f"sqlite:///{path}")
    return path


@pytest.fixture(autouse=True)
def made_already(tables, tmp_path):
    """Making MLflow's tables takes seconds."""
    (tmp_path / "mlruns").mkdir()
    shutil.copy(tables, tmp_path / "mlruns" / "mlflow.db")


class Unreliable:
    """A client whose calls fail, before they arrive or behind that, as often as is asked for."""

    def __init__(self, client, seed=0, share=0.0):
        self.client, self.random, self.share = client, random.Random(seed), share

    def __getattr__(self, name):
        method = getattr(self.client, name)

        def call(*args, **kwargs):
            for part in (lambda: None, lambda: method(*args, **kwargs)):
                result = part()
                if self.random.random() < self.share:
                    raise MlflowException("no answer", TEMPORARILY_UNAVAILABLE)
            return result

        return call


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(patience, "PAUSES", (0.0, 0.0))


def history(run_id, name):
    points = MlflowClient(tracking_uri()).get_metric_history(run_id, name)
    return [(point.step, point.value) for point in points]


def steps(logger, numbers):
    for step in numbers:
        logger.log_metrics({"a": step / 3, "time/b": time.time(), "c": float("nan")}, step)
        logger.log_metrics({"a": step / 3, "d": 1.0}, step)  # as after a checkpoint, where Lightning logs once more
        logger.log_table({"iteration": [step] * 2, "text": [f"{step} x", f"{step} y"]}, "t.json")


def whole(run_id, count):
    assert history(run_id, "a") == [(step, step / 3) for step in range(count)]
    for name in ("time/b", "c", "d"):
        assert [step for step, _ in history(run_id, name)] == list(range(count))
    run = MlflowClient(tracking_uri()).get_run(run_id)
    table = load_dict(f"{run.info.artifact_uri}/t.json")
    assert table == {
        "columns": ["iteration", "text"],
        "data": [[step, f"{step} {x}"] for step in range(count) for x in "xy"],
    }
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "t.json", "type": "table"}]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_logged_while_calls_and_answers_get_lost_is_there_once(hasty, seed):
    logger = RunLogger(f"lost {seed}")
    logger._mlflow_client._client = Unreliable(logger._mlflow_client._client, seed, share=0.4)
    steps(logger, range(8))
    logger.finalize()
    client = MlflowClient(tracking_uri())
    runs = client.search_runs([logger.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"]
    whole(logger.run_id, 8)


def test_experiments_are_made_once_though_the_answer_is_lost(hasty):
    tracking_uri()
    client = Client(tracking_uri())
    client._client = Unreliable(client._client, 1, share=0.5)
    assert len({client.create_experiment("one") for _ in range(5)}) == 1


def test_what_could_not_be_written_is_taken_over_and_steps_done_again_are_not_doubled(hasty, monkeypatch, capfd):
    first = RunLogger("kept")
    first.keeps = True
    steps(first, range(4))
    monkeypatch.setenv(SETTING, "0")
    good = first._mlflow_client._client
    first._mlflow_client._client = Unreliable(good, share=1.0)
    steps(first, range(4, 6))  # nothing is raised, for a checkpoint shall have it
    assert isinstance(first.away, Away) and "no answer" in str(first.away)
    kept = json.loads(json.dumps(first.unwritten()))
    steps(first, range(6, 8))
    first.finalize("failed")
    second = RunLogger("kept", run_id=first.run_id)
    second.take_over(kept)
    steps(second, range(2, 9))
    second.finalize()
    whole(first.run_id, 9)
    assert "other values" not in capfd.readouterr().err
    third = RunLogger("kept", run_id=first.run_id)
    third.log_metrics({"a": 5.0}, 3)
    assert "has other values of iterations that are done again (a in 3: 1, now 5)" in capfd.readouterr().err
    whole(first.run_id, 9)


def test_nothing_is_kept_where_no_checkpoint_would_take_it(hasty, monkeypatch):
    logger = RunLogger()
    steps(logger, [0])
    monkeypatch.setenv(SETTING, "0")
    logger._mlflow_client._client = Unreliable(logger._mlflow_client._client, share=1.0)
    with pytest.raises(Away):
        logger.log_metrics({"a": 1.0}, 1)
    with pytest.raises(Away):
        logger.finalize()


class Answers(BaseHTTPRequestHandler):
    """Answers with the statuses in turn, and with the last one ever after."""

    statuses = (200,)

    def do_GET(self):
        if self.path == "/health":
            status, body = 200, b"OK"
        else:
            status, *others = Answers.statuses
            Answers.statuses = others or [status]
            found = {"experiment": {"experiment_id": "7", "name": "x", "lifecycle_stage": "active"}}
            body = json.dumps(found if status == 200 else {"message": "so it is"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        uri = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [503, 500, 502, 504, 429])
def test_a_busy_server_is_asked_again_and_given_up_at_the_end_of_patience(hasty, server, monkeypatch, status):
    monkeypatch.setattr(Answers, "statuses", [status, status, 200])
    assert experiment("x", server) == "7"
    monkeypatch.setattr(Answers, "statuses", [status])
    monkeypatch.setenv(SETTING, "0.1")
    with pytest.raises(Away, match=f"did not answer for 0.1 s .*{status}.* raise {SETTING}"):
        experiment("x", server)


@pytest.mark.parametrize("status", [401, 403, 400])
def test_a_refusal_is_told_at_once(server, monkeypatch, status):
    monkeypatch.setattr(Answers, "statuses", [status])
    started = time.monotonic()
    with pytest.raises(UsageError, match="can't be used") as error:
        experiment("x", server)
    assert not isinstance(error.value, Away) and time.monotonic() - started < 5


def test_one_line_says_that_something_waits(hasty, server, monkeypatch, capfd):
    monkeypatch.setattr(patience, "SILENCE", 0.0)
    monkeypatch.setattr(Answers, "statuses", [503])
    monkeypatch.setenv(SETTING, "0.3")
    with pytest.raises(Away):
        Client(server).get_experiment_by_name("x")
    said = [line for line in capfd.readouterr().err.splitlines() if "does not answer" in line]
    assert len(said) == 2 and "waiting up to 0.3 s" in said[1]  # of Client and of its call, each one
    with pytest.raises(UsageError, match=f"{SETTING} is 'long'"):
        monkeypatch.setenv(SETTING, "long")
        Client(server)


def test_what_all_cells_wait_for_is_said_once(capfd):
    with SweepDisplay(2) as display:
        for cell in ("a", "b"):
            display.show(Status(cell, "", 0, 0, None, "MLflow does not answer"))
    assert capfd.readouterr().err.splitlines() == ["MLflow does not answer"]


def test_no_server_a_run_that_is_asked_for(hasty, monkeypatch):
    """Not an answer is no "there is none": the run would be begun anew."""
    monkeypatch.setenv(SETTING, "0.1")
    with pytest.raises(Away):
        has_run("abc", "http://127.0.0.1:9")
    assert not has_run("abc", tracking_uri())


@pytest.mark.parametrize(
    "uri",
    ["postgresql://someone:secret@127.0.0.1", "mysql://127.0.0.1/x", "sqlite:///", "sqlite://", "sqlite:", "foo://x"],
)
def test_databases_that_can_not_be_used_are_one_line(monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UsageError, match="^MLFLOW_TRACKING_URI") as error:
        experiment("x", tracking_uri())
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_a_locked_database_is_waited_for(monkeypatch, tmp_path):
    client = Client(tracking_uri())
    client.get_experiment_by_name("Default")
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event

    engine = SqlAlchemyStore._engine_map[tracking_uri()]

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def hurry(connection, cursor, statement, *args):
        return statement.replace("busy_timeout = 20000", "busy_timeout = 10"), args[0]

    lock = sqlite3.connect(tmp_path / "mlruns" / "mlflow.db", isolation_level=None, check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    monkeypatch.setenv(SETTING, "0.2")
    with pytest.raises(Away, match="database is locked"):
        client.get_experiment_by_name("Default")
    monkeypatch.setenv(SETTING, "30")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get_experiment_by_name, "Default")
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        lock.rollback()
        assert waiting.result().name == "Default"
    lock.close()


def test_tables_are_made_once_and_whole(tmp_path):
    folder = tmp_path / "fresh"
    folder.mkdir()
    (folder / ".a.db.part").write_bytes(b"what a killed process has left")
    uri, gate = f"sqlite:///{folder}/a.db", threading.Barrier(3)

    def make(_):
        gate.wait()
        make_tables(uri)
        return (folder / "a.db").stat().st_ino

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(make, range(3)))) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["a.db", "a.db.lock"]
    assert MlflowClient(uri).search_experiments()[0].name == "Default"


KEY_TOKEN = [
    *("fit", "--model", "PPO", "--data.task", "KeyToken", "--data.prompts_per_iteration=4"),
    *("--data.rows_per_microbatch=4", "--data.eval_prompts=4", "--trainer.accelerator=cpu"),
    *("--trainer.enable_progress_bar=false", "--trainer.check_val_every_n_epoch=2"),
    *("--transcripts.every_n_iterations=2", "--checkpoint.every_n_epochs=4"),
]


class Watched(Memory):
    """Counts threads, and takes MLflow away in an iteration."""

    threads: ClassVar[list[int]] = []
    away_in = None

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch + 1 == self.away_in:
            logger = trainer.logger
            logger._mlflow_client._client = Unreliable(logger._mlflow_client._client, share=1.0)

    def on_train_epoch_end(self, trainer, pl_module):
        super().on_train_epoch_end(trainer, pl_module)
        self.threads.append(threading.active_count())


def histories(run):
    """Every metric's points and the transcripts, but for what the machine decides."""
    names = [name for name in run.data.metrics if not name.startswith(("time/", "memory/"))]
    table = load_dict(f"{run.info.artifact_uri}/transcripts.json")
    return {name: history(run.info.run_id, name) for name in names}, table


def test_a_run_that_lost_mlflow_is_resumed_to_the_histories_of_one_that_did_not(lit_rl, monkeypatch, tmp_path):
    monkeypatch.setattr("lit_rl.commands.cli.Memory", Watched)
    monkeypatch.setattr(Watched, "threads", [])
    monkeypatch.setenv(SETTING, "0.1")
    fit = [*KEY_TOKEN, "--trainer.max_epochs=20"]
    assert lit_rl(*fit)[0] == 0
    assert Watched.threads[4] == Watched.threads[19]
    monkeypatch.setattr(Watched, "away_in", 7)
    code, _, err = lit_rl(*fit)
    (line,) = [line for line in err.splitlines() if line.startswith("lit_rl: MLflow")]
    assert code == 2 and "did not answer for 0.1 s (no answer); start it again and resume with --ckpt_path" in line
    saved = line.split("--ckpt_path ")[1].split(",")[0]
    monkeypatch.setattr(Watched, "away_in", None)
    code, _, err = lit_rl(*fit, "--ckpt_path", saved)
    assert code == 0, err
    client = MlflowClient(tracking_uri())
    second, first = client.search_runs([client.get_experiment_by_name("lit_rl").experiment_id])
    assert (first.info.status, second.info.status) == ("FINISHED", "FINISHED")
    assert saved.split("/")[-3] == second.info.run_id and torch.load(saved, weights_only=True)["epoch"] == 19
    points, table = histories(first)
    assert "diagnostic/clip_fraction" in points and [step for step, _ in points["val/accuracy"]] == [*range(2, 21, 2)]
    assert histories(second) == (points, table)
