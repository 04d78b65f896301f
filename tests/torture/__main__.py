"""``python tests/torture [TOPIC ...]``: tries to break each promise of docs/reliability.md; exit code 1 if one breaks.

A topic is a module beside this one with a list ``TRIALS``. ``AT_ONCE`` of them run side by side, one by default: more
only where a trial changes nothing of its own process.
"""

import importlib
import logging
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]  # the package, and what the tests share

from trials import run  # noqa: E402


def main(names: list[str]) -> int:
    topics = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("__main__", "trials"))
    unknown = [name for name in names if name not in topics]
    if unknown:
        print(f"torture: no topic '{unknown[0]}'; choose of {', '.join(topics)}", file=sys.stderr)
        return 2
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    broken, started = 0, time.perf_counter()
    print("| promise | tried | held | seconds |\n| --- | --- | --- | --- |", flush=True)
    for topic in names or topics:
        os.chdir(HERE)  # a trial may have left for its folder, which is gone
        module = importlib.import_module(topic)
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        for promise, tally in run(module.TRIALS, getattr(module, "AT_ONCE", 1)).items():
            print(f"| {promise} | {tally.tried} | {tally.held} | {tally.seconds:.0f} |", flush=True)
            broken += tally.tried - tally.held
    print(f"\n{time.perf_counter() - started:.0f} s; {broken} did not hold")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
