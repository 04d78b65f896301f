"""What glibc's heap adds to the memory of a run on a CPU.

The heap keeps holes between blocks, in longer runs more of them. Where glibc gives freed blocks of 1 MiB and more back
to the system, a run takes what it holds; each block is then mapped, and zeroed by the system, anew.
"""

from statistics import median

from benchmarks.footprint import arguments, beside, taken
from benchmarks.measure import Line

LONGER = {"embedded": 16, "embedded-mid": 8}  # iterations of GRPO
MAPPED = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}  # bytes, as glibc reads it when a process starts
ROUNDS = 3


def heap() -> list[Line]:
    """Estimated MiB beside those of longer runs; MiB and seconds of a run with and without ``MAPPED``, in turns."""
    lines = []
    for model, iterations in LONGER.items():
        args = [*arguments(model, "GRPO"), f"--trainer.max_epochs={iterations}"]
        lines.append(beside(f"estimated memory of {iterations} iterations, GRPO, {model}", args, 1, 0.0))
    args = arguments("embedded-mid", "GRPO")
    pairs = [(taken(args, MAPPED), taken(args)) for _ in range(ROUNDS)]
    for what, key, unit in (("memory", "peak", "MiB"), ("time", "seconds", "s")):
        ours, peer = (median(run[key] for run in runs) for runs in zip(*pairs, strict=True))
        name = f"{what}, GRPO, embedded-mid, freed blocks of 1 MiB given back: as glibc does"
        lines.append(Line(name, ours, peer, unit, peer / ours, 0.0))
    return lines
