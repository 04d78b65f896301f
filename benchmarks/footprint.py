"""What ``python -m lit_rl estimate`` says of a run's memory, beside what the run takes.

``python -m benchmarks.footprint ARGUMENTS`` prints MiB: the peak of that ``fit``, as estimated and as it was, and what
the process took before there was a model.
"""

import json
import sys
import tempfile
from statistics import median

from benchmarks.measure import SMOLLM2, Line, fetched, peak, process

TARGET = 1 / 1.15  # an estimate may be off by 15%
ALGORITHMS = ("GRPO", "PPO", "TRePO")
RUNS = 3  # of a small model, whose peaks differ by a tenth from run to run
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
OTHERS = {  # to which no constant was fitted: model, algorithm, tokens, prompts and rows, and samples
    ("embedded", "RLOO", 48, 32, 64): 4,
    ("embedded", "REINFORCE", 64, 256, 128): 1,
    ("embedded", "TRePO", 48, 128, 64): 2,
    ("embedded-mid", "RLOO", 64, 64, 64): 4,
    ("embedded-mid", "PPO", 64, 16, 16): 4,
    ("embedded-mid", "OnlineDPO", 48, 64, 64): 4,
    ("embedded-mid", "TRePO", 64, 16, 32): 2,
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
    """Estimated and measured MiB, medians over runs; the ratio is the smaller over the larger."""
    cases = [(model, algorithm, False) for model in MODELS for algorithm in ALGORITHMS]
    lines = []
    for model, algorithm, noise in [*cases, *((model, "GRPO", True) for model in list(MODELS)[:2])]:
        if model != str(SMOLLM2) or fetched():
            runs = 1 if model == str(SMOLLM2) else RUNS
            label = "SmolLM2-135M" if model == str(SMOLLM2) else model
            case = f"{algorithm}, {label}{', gradient noise' if noise else ''}"
            lines.append(_line(case, arguments(model, algorithm, noise), runs, TARGET))
    return [*lines, *others()]


def others() -> list[Line]:
    """The same of other sizes and algorithms, without a target."""
    lines = []
    for (model, algorithm, tokens, prompts, rows), samples in OTHERS.items():
        args = [f"--model={algorithm}", f"--model.policy.path={model}", *SMALL, QUIET]
        args += [f"--model.max_new_tokens={tokens}", f"--data.prompts_per_iteration={prompts}"]
        args += [f"--data.rows_per_microbatch={rows}", *([f"--model.samples={samples}"] if samples > 1 else [])]
        case = f"{algorithm}, {model}, {prompts} prompts of {samples} x {tokens} tokens, {rows} rows"
        lines.append(_line(case, args, 1, 0.0))
    return lines


def _line(case: str, args: list[str], runs: int, target: float) -> Line:
    found = [compared(args) for _ in range(runs)]
    said, taken = (median(numbers) for numbers in zip(*found, strict=True))
    return Line(f"estimated memory, {case}: measured", said, taken, "MiB", min(said / taken, taken / said), target)


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
