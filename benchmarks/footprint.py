"""What ``python -m lit_rl estimate`` says of a run's memory, beside what the run takes.

``python -m benchmarks.footprint ARGUMENTS`` prints MiB: the peak of that ``fit``, as estimated and as it was, and what
the process took before there was a model.
"""

import json
import sys
import tempfile
from collections.abc import Iterator

from benchmarks.measure import SMOLLM2, Line, fetched, limit, peak, process

TARGET = 1.15  # how far off an estimate may be
ALGORITHMS = ("GRPO", "PPO", "TRePO")
SMALL = [
    *("--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.enable_progress_bar=false"),
    *("--trainer.max_epochs=2", "--trainer.limit_val_batches=0", "--checkpoint.every_n_epochs=0"),
    *("--diagnostics.every_n_iterations=0", "--data.task=GSM8KStyle", "--data.task.steps=8"),  # no response ends early
]
QUIET = "--gradient_variance.every_n_iterations=0"
MODELS = {  # sizes that take more than libraries do; four responses to a prompt
    "embedded": [
        *SMALL,
        "--model.max_new_tokens=64",
        "--data.prompts_per_iteration=64",
        "--data.rows_per_microbatch=128",
    ],
    "embedded-mid": [*SMALL, "--model.max_new_tokens=48", "--data.prompts_per_iteration=32"],
    str(SMOLLM2): [
        *SMALL,
        "--model.max_new_tokens=32",
        "--data.prompts_per_iteration=4",
        "--data.rows_per_microbatch=8",
    ],
}


def arguments(model: str, algorithm: str, noise: bool = False) -> list[str]:
    """Of ``fit``, and of its estimate."""
    samples = [f"--model={algorithm}", f"--model.policy.path={model}", "--model.samples=4"]
    return [*samples, *MODELS[model], *([] if noise else [QUIET])]


def compared(args: list[str]) -> tuple[float, float]:
    """MiB of a run beside those of its process: estimated, and taken."""
    with tempfile.TemporaryDirectory() as folder:
        found = process("benchmarks.footprint", *args, cwd=folder)
    return found["estimated"] - found["before"], found["peak"] - found["before"]


def estimate() -> list[Line]:
    """The factor by which estimates are off, at most the target."""
    return [limit(f"estimated memory, {name}: off by at most", "x", factor, TARGET) for name, factor in _factors()]


def _factors() -> Iterator[tuple[str, float]]:
    cases = [(model, algorithm, False) for model in MODELS for algorithm in ALGORITHMS]
    for model, algorithm, noise in [*cases, *((model, "GRPO", True) for model in list(MODELS)[:2])]:
        if model != str(SMOLLM2) or fetched():
            said, taken = compared(arguments(model, algorithm, noise))
            name = "SmolLM2-135M" if model == str(SMOLLM2) else model
            label = f"{algorithm}, {name}{', gradient noise' if noise else ''}"
            yield f"{label} ({taken:,.0f} MiB)", max(said / taken, taken / said)


def main(args: list[str]) -> dict[str, float]:
    from lit_rl.commands.cli import CLI, quiet
    from lit_rl.commands.early import checked
    from lit_rl.commands.estimate import estimated

    quiet()
    command = checked(["fit", *args])
    found = estimated(command[1:])
    sys.argv[1:] = command
    CLI()
    return {"before": found.before / 2**20, "estimated": found.total() / 2**20, "peak": peak()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
