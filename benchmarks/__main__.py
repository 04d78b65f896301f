"""``python -m benchmarks [NAME ...] [--json] [--report FOLDER | --rewrite FOLDER]``."""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.exact import exact
from benchmarks.footprint import estimate
from benchmarks.gpu import gpu, ready
from benchmarks.heap import heap
from benchmarks.measure import SMOLLM2, Line, device, fetched, installed
from benchmarks.reading import reading
from benchmarks.report import add, rewrite, write
from benchmarks.sampling import sampling
from benchmarks.shared_prompt import shared_prompt
from benchmarks.sweeps import sweeps
from benchmarks.training import LARGER, iteration, measured, memory
from benchmarks.uneven import uneven
from benchmarks.vllm import ready as served
from benchmarks.vllm import vllm
from lit_rl.commands.cli import quiet
from lit_rl.errors import UsageError
from lit_rl.policy import CausalPolicy

ALL: dict[str, Callable[[], list[Line]]] = {
    "sampling": lambda: sampling(CausalPolicy(), "512 rows, embedded", 2.0),
    "smollm2": lambda: [
        *sampling(CausalPolicy(str(SMOLLM2)), "64 rows, SmolLM2-135M", 1.0, rows=64, most=48, rounds=3),
        *measured(LARGER, 16),
    ],
    "iteration": iteration,
    "reading": reading,
    "shared_prompt": shared_prompt,
    "measured": measured,
    "memory": memory,
    "uneven": uneven,
    "estimate": estimate,
    "heap": heap,
    "exact": exact,
    "sweeps": sweeps,
    "gpu": gpu,
    "vllm": vllm,
}
NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "iteration": (lambda: installed("trl"), "TRL: pip install -e '.[peers]'"),
    "smollm2": (fetched, "data/smollm2: make smollm2"),
    "gpu": (ready, "a GPU, and data/smollm2: make smollm2"),
    "vllm": (served, "vLLM, and data/smollm2: make vllm, make smollm2"),
}


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compares speed and memory with other libraries, as ratios; above 1 is better.",
    )
    parser.add_argument("names", nargs="*", help=f"what to measure: {', '.join(ALL)} (default: all)")
    parser.add_argument(
        "--json", action="store_true", help="print a list of JSON objects, one per comparison; the table goes to stderr"
    )
    parser.add_argument(
        "--report",
        metavar="FOLDER",
        help="also write a report: with names, their lines go into the one that is there; without, scaling, profiles "
        "and kappa are measured as well",
    )
    parser.add_argument("--rewrite", metavar="FOLDER", help="write its report anew from its files; measures nothing")
    options = parser.parse_args(args)
    if options.rewrite:
        return _written(rewrite, Path(options.rewrite))
    unknown = [name for name in options.names if name not in ALL]
    if unknown:
        print(f"benchmarks: no benchmark '{unknown[0]}'; choose one of {', '.join(ALL)}", file=sys.stderr)
        return 2
    lacking = {name: what for name, (there, what) in NEEDS.items() if not there()}
    missing = [name for name in options.names if name in lacking]
    if missing:
        print(f"benchmarks: {missing[0]} needs {lacking[missing[0]]}", file=sys.stderr)
        return 2
    if options.report and options.names and _written(add, Path(options.report), []):  # before anything is measured
        return 2
    quiet()
    warnings.simplefilter("ignore")
    lines: list[Line] = []
    table = sys.stderr if options.json else sys.stdout
    print(device(), file=table)
    for name in options.names or ALL:
        if name in lacking:
            print(f"{name}: left out; it needs {lacking[name]}", file=sys.stderr)
            continue
        for line in ALL[name]():
            lines.append(line)
            met = "" if line.ratio >= line.target else f"   (below its target, {line.target:.3g})"
            sizes = f"{line.ours:>10,.4g} {line.peer:>10,.4g} {line.unit:<8}"
            print(f"{line.name:<86} {sizes} x {line.ratio:.3g}{met}", file=table, flush=True)
    if options.json:
        print(json.dumps([asdict(line) for line in lines], indent=1))
    return _written(add if options.names else write, Path(options.report), lines) if options.report else 0


def _written(how: Callable[..., None], folder: Path, *lines: list[Line]) -> int:
    try:
        how(folder, *lines)
    except UsageError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
