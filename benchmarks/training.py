"""Iterations, those that measure gradient noise among them, and the memory of a step with a large vocabulary."""

from collections.abc import Callable
from statistics import median

from benchmarks.measure import SMOLLM2, Line, fit, limit, process
from lit_rl.algorithms import GRPO, REINFORCE, Algorithm
from lit_rl.callbacks import GradientVariance
from lit_rl.policy import CausalPolicy

REPEATS = 2
VOCABULARY = 150_000


def iteration() -> list[Line]:
    """GRPO beside TRL's, each in a process of its own, in turns."""
    runs = [{name: process("benchmarks.iteration", name) for name in ("ours", "trl")} for _ in range(REPEATS)]
    times = [{name: median(run[name]["seconds"]) for name in run} for run in runs]
    sizes = [{name: run[name]["peak"] for name in run} for run in runs]
    return [
        _smaller("GRPO, an iteration of 256 rows: TRL 1.16", "s", 2.0, times, "trl"),
        _smaller("GRPO, peak memory of the process: TRL 1.16", "MiB", 1.0, sizes, "trl"),
    ]


EMBEDDED: dict[str, Callable[[], Algorithm]] = {
    "GRPO, 64 x 4": lambda: GRPO(samples=4, max_new_tokens=64),
    "REINFORCE, 256 x 1": lambda: REINFORCE(max_new_tokens=64),
}
LARGER: dict[str, Callable[[], Algorithm]] = {
    "GRPO, 4 x 4, SmolLM2-135M": lambda: GRPO(policy=CausalPolicy(str(SMOLLM2)), samples=4, max_new_tokens=48),
}


def measured(arms: dict[str, Callable[[], Algorithm]] = EMBEDDED, rows: int = 256) -> list[Line]:
    """An iteration that measures gradient noise of all groups beside one that does not, in turns."""
    lines = []
    for name, build in arms.items():
        times = []
        for _ in range(REPEATS):
            algorithm = build()
            shape = rows // algorithm.plan.samples, min(64, rows), 3
            ours = median(fit(algorithm, *shape, callbacks=(GradientVariance(1),)))
            times.append({"ours": ours, "peer": median(fit(build(), *shape))})
        line = _smaller(
            f"an iteration that measures gradient noise, {name}: one that does not", "s", 1 / 1.5, times, "peer"
        )
        lines.append(line)
    return lines


def memory() -> list[Line]:
    """What a step adds to the process's peak, at a vocabulary of 150,000, beside the logits that it reads."""
    lines = []
    for rows in (4, 16):
        sizes = {how: process("benchmarks.vocabulary", str(rows), how)["peak"] for how in ("ours", "whole")}
        name = f"peak memory of a step of {rows} rows, {VOCABULARY:,} tokens: the logits of all tokens at once"
        lines.append(_smaller(name, "MiB", 1.0, [sizes], "whole"))
    table = {rows: process("benchmarks.vocabulary", "4", "ours", str(rows)) for rows in (8, 32)}
    growth = table[32]["peak"] / table[8]["peak"]
    lines.append(limit("peak memory of 32 rows in micro-batches of 4, over that of 8 rows: at most", "x", growth, 1.1))
    return lines


def _smaller(name: str, unit: str, target: float, rounds: list[dict[str, float]], peer: str) -> Line:
    ours, theirs = (median(each[key] for each in rounds) for key in ("ours", peer))
    return Line(name, ours, theirs, unit, median(each[peer] / each["ours"] for each in rounds), target)
