"""What a trial is, and how trials are run: each in an empty folder of its own, counted by promise."""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Trial:
    """One attempt to break a promise.

    Attributes:
        promise: what must hold, as ``docs/reliability.md`` says it. Trials of one promise share a line of its table.
        case: what is tried; unique within the promise.
        run: tries it in an empty folder; raises what did not hold.
    """

    promise: str
    case: str
    run: Callable[[Path], None]


@dataclass
class Tally:
    """How often a promise was tried, and how often it held."""

    tried: int = 0
    held: int = 0
    seconds: float = 0.0


def run(trials: Sequence[Trial], at_once: int = 1) -> dict[str, Tally]:
    """Runs the trials, ``at_once`` at a time, and prints why one did not hold; returns the count of each promise."""
    tallies: dict[str, Tally] = {}
    with ThreadPoolExecutor(at_once) as pool:
        # one at a time in the main thread, where signals can be handled
        results = map(_try, trials) if at_once == 1 else pool.map(_try, trials)
        for trial, (held, seconds) in zip(trials, results, strict=True):
            tally = tallies.setdefault(trial.promise, Tally())
            tally.tried += 1
            tally.held += held
            tally.seconds += seconds
    return tallies


def _try(trial: Trial) -> tuple[bool, float]:
    """Whether the trial held, and its seconds."""
    folder, started = Path(tempfile.mkdtemp(prefix="torture-")), time.perf_counter()
    held = False
    try:
        trial.run(folder)
        held = True
    except Exception as error:
        print(f"did not hold: {trial.promise} [{trial.case}]: {type(error).__name__}: {error}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return held, time.perf_counter() - started
