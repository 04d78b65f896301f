"""Computes a study's exact rows, before its cells run."""

import sys
from importlib import import_module
from typing import Any

from ablations.records.exact_rows import write
from ablations.records.experiment import COMMIT, KIND, SMOKE, STUDY, Tracking, commit
from ablations.records.study_results import FOLDER
from ablations.study import Study
from lit_rl.errors import UsageError


def compute(study: Study, smoke: bool) -> None:
    """Writes ``exact.csv`` of a study that has exact rows, and logs it to the study's experiment.

    Raises:
        UsageError: ``Study.exact`` is no import path of a function.
    """
    if not study.exact:
        return
    function = _function(study)
    print(f"{study.key}: exact rows first, without training", file=sys.stderr)
    path = write(function(smoke), FOLDER / study.label(smoke))
    tracking = Tracking(study.label(smoke))
    tags = {KIND: "exact", STUDY: study.key, SMOKE: str(smoke).lower(), COMMIT: commit()}
    run = tracking.client.create_run(tracking.experiment, run_name="exact", tags=tags).info.run_id
    tracking.client.log_artifact(run, str(path))
    tracking.client.set_terminated(run)


def _function(study: Study) -> Any:
    module, _, name = study.exact.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"study {study.name}: exact is '{study.exact}' ({error}); give the import path of a function of `smoke`"
        ) from error
