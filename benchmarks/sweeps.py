"""A sweep's cells on one core and on two, and what a cell costs beside its training.

Each sweep is in a process of its own, ``python -m benchmarks.sweeps JOBS``, for the second would find modules imported.
"""

import contextlib
import io
import itertools
import json
import os
import sys
import tempfile
from functools import partial

from ablations.records.experiment import Tracking
from ablations.study import Arm, Study
from ablations.sweep.runner import run
from ablations.sweep.workers import Processes
from benchmarks.measure import Line, limit, process, seconds

CELLS = 8
STUDY = Study(
    name="benchmark",
    question="How long does a sweep take?",
    source="benchmarks",
    baseline="RLOO",
    primary_metric="test/accuracy",
    comparisons=(),
    arms=(
        Arm("RLOO", {"model": {"class_path": "RLOO", "init_args": {"samples": 4, "max_new_tokens": 64}}}),
        Arm("GRPO", {"model": {"class_path": "GRPO", "init_args": {"samples": 4, "max_new_tokens": 64}}}),
    ),
    seeds=tuple(range(CELLS // 2)),
    base={
        "data": {
            "task": {"class_path": "GSM8KStyle", "init_args": {"steps": 2}},
            "prompts_per_iteration": 16,
            "rows_per_microbatch": 16,
            "eval_prompts": 8,
        },
        "trainer": {"max_epochs": 12, "check_val_every_n_epoch": 100, "accelerator": "cpu"},
    },
)


def sweeps() -> list[Line]:
    runs = {jobs: process("benchmarks.sweeps", str(jobs)) for jobs in (1, 2)}
    spent = {jobs: run["seconds"] for jobs, run in runs.items()}
    return [
        Line(
            f"a study of {CELLS} runs, two at a time: one at a time", spent[2], spent[1], "s", spent[1] / spent[2], 1.7
        ),
        limit("what a run of a study takes beside training, evaluation included: at most", "s", runs[1]["beside"], 3),
    ]


def main(jobs: int) -> dict[str, float]:
    """Seconds of the sweep, and of a cell from its start to the next's beside its training."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        spent = seconds(partial(run, STUDY, None, Processes(jobs), False))
        cells = Tracking(STUDY.name).runs("cell")
    times = sorted((each.info.start_time, each.data.metrics["time/fit"]) for each in cells)
    gaps = [(after - before) / 1000 for (before, _), (after, _) in itertools.pairwise(times)]
    beside = [gap - fit for gap, (_, fit) in zip(gaps, times, strict=False)]
    return {"seconds": spent, "beside": sum(beside) / len(beside)}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
