"""What ``python -m lit_rl estimate`` says of a run's memory, beside what the run takes.

``python -m benchmarks.footprint ARGUMENTS`` prints the peak of that ``fit``, as estimated and as it was, in MiB beside
what the process took before there was a model, and the seconds that it took.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from statistics import median

from benchmarks.measure import SMOLLM2, Line, fetched, peak, process, seconds

TARGET = 1 / 1.15  # an estimate may be off by 15%
ALGORITHMS = ("GRPO", "PPO", "TRePO")
RUNS = 3  # of a small model, whose peaks differ by a tenth from run to run
SMALL = [
    *("--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.enable_progress_bar=false"),
    *("--trainer.max_epochs=2", "--trainer.limit_val_batches=0", "--checkpoint.every_n_epochs=0"),
    *("--diagnostics.every_n_iterations=0", "--data.task=GSM8KStyle", "--data.task.steps=8"),  # no response ends early
]
QUIET = "--gradient_variance.every_n_iterations=0"
MODELS = {  # sizes that take more than libraries do: tokens of a response, prompts, and rows of a micro-batch
    "embedded": (64, 64, 128),
    "embedded-mid": (48, 32, 32),
    str(SMOLLM2): (32, 4, 8),
}
SAMPLES = 4
OTHERS = [  # chosen, and measured once, when the constants stood: model, algorithm, samples, and sizes
    ("embedded", "GRPO", 4, (56, 48, 96)),
    ("embedded", "PPO", 4, (64, 32, 64)),
    ("embedded", "RLOO", 4, (64, 128, 256)),
    ("embedded-mid", "GRPO", 8, (64, 24, 24)),
    ("embedded-mid", "REINFORCE", 1, (48, 128, 64)),
    ("embedded-mid", "TRePO", 4, (48, 24, 16)),
    ("embedded-mid", "PPO", 4, (48, 48, 48)),
]


def arguments(
    model: str, algorithm: str, noise: bool = False, samples: int = SAMPLES, sizes: tuple[int, int, int] | None = None
) -> list[str]:
    """Of ``fit``, and of its estimate. ``sizes`` are by default those of ``MODELS``."""
    tokens, prompts, rows = sizes or MODELS[model]
    return [
        *(f"--model={algorithm}", f"--model.policy.path={model}", f"--model.samples={samples}", *SMALL),
        *(
            f"--model.max_new_tokens={tokens}",
            f"--data.prompts_per_iteration={prompts}",
            f"--data.rows_per_microbatch={rows}",
        ),
        *([] if noise else [QUIET]),
    ]


def compared(args: list[str]) -> tuple[float, float]:
    """MiB of a run beside those of its process: estimated, and taken."""
    found = taken(args)
    return found["estimated"], found["peak"]


def taken(args: list[str], variables: Mapping[str, str] | None = None) -> dict[str, float]:
    """What ``python -m benchmarks.footprint`` prints, in an environment with these variables, too."""
    with tempfile.TemporaryDirectory() as folder:
        return process("benchmarks.footprint", *args, cwd=folder, variables=variables)


def estimate() -> list[Line]:
    """Estimated and measured MiB, medians over runs; the ratio is the smaller over the larger."""
    cases = [(model, algorithm, False) for model in MODELS for algorithm in ALGORITHMS]
    lines = []
    for model, algorithm, noise in [*cases, *((model, "GRPO", True) for model in list(MODELS)[:2])]:
        if model != str(SMOLLM2) or fetched():
            runs = 1 if model == str(SMOLLM2) else RUNS
            label = "SmolLM2-135M" if model == str(SMOLLM2) else model
            name = f"estimated memory, {algorithm}, {label}{', gradient noise' if noise else ''}"
            lines.append(beside(name, arguments(model, algorithm, noise), runs, TARGET))
    return [*lines, *others()]


def others() -> list[Line]:
    """The same of other sizes and algorithms, without a target."""
    lines = []
    for model, algorithm, samples, sizes in OTHERS:
        tokens, prompts, rows = sizes
        name = f"estimated memory, {algorithm}, {model}, {prompts} prompts of {samples} x {tokens} tokens, {rows} rows"
        lines.append(beside(name, arguments(model, algorithm, samples=samples, sizes=sizes), 1, 0.0))
    return lines


def beside(name: str, args: list[str], runs: int, target: float) -> Line:
    """Estimated and taken, medians over runs; the ratio is the smaller over the larger."""
    found = [compared(args) for _ in range(runs)]
    said, taken = (median(numbers) for numbers in zip(*found, strict=True))
    return Line(f"{name}: measured", said, taken, "MiB", min(said / taken, taken / said), target)


def main(args: list[str]) -> dict[str, float]:
    from lit_rl.commands.cli import CLI, quiet
    from lit_rl.commands.early import checked
    from lit_rl.commands.estimate import estimated

    quiet()
    command = checked(["fit", *args])
    found = estimated(command[1:])
    sys.argv[1:] = command
    spent = seconds(CLI)
    before = found.before / 2**20
    return {"estimated": found.total() / 2**20 - before, "peak": peak() - before, "seconds": spent}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
