"""A sweep's cells on one core and on two, and what a cell costs beside its training."""

import contextlib
import io
import os
import tempfile
from functools import partial

from ablations.runner import run
from ablations.study import Arm, Study
from ablations.tracking import Tracking
from benchmarks.measure import Line, limit, seconds

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
    spent, beside = {}, []
    for jobs in (1, 2):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
            spent[jobs] = seconds(partial(run, STUDY, None, jobs, False))
            cells = Tracking(STUDY.name).runs("cell")
        times = sorted((each.info.start_time, each.info.end_time, each.data.metrics["time/fit"]) for each in cells)
        if jobs == 1:  # from one cell's start to the next's
            starts = [start for start, _, _ in times]
            beside = [
                (after - start) / 1000 - fit
                for start, after, (_, _, fit) in zip(starts, starts[1:], times, strict=False)
            ]
    ratio = spent[1] / spent[2]
    return [
        Line(f"a sweep of {CELLS} cells, two jobs: one job", spent[2], spent[1], "s", ratio, 1.7),
        limit("a cell beside its training, evaluation included: 3 s", "s", sum(beside) / len(beside), 3),
    ]
