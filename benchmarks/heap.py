"""What glibc's heap adds to the memory of a run on a CPU.

The heap keeps holes between blocks, in longer runs more of them. Where glibc gives freed blocks of 1 MiB and more back
to the system, a run takes what it holds; each block is then mapped, and zeroed by the system, anew.
"""

from statistics import median

from benchmarks.footprint import arguments, compared, taken
from benchmarks.measure import Line

LONGER = {"embedded": 16, "embedded-mid": 8}  # iterations of GRPO
MAPPED = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}  # bytes, as glibc reads it when a process starts
ROUNDS = 3


def heap() -> list[Line]:
    """Estimated MiB beside those of longer runs; MiB and seconds of a run with and without ``MAPPED``, in turns."""
    lines = []
    for model, iterations in LONGER.items():
        said, used = compared([*arguments(model, "GRPO"), f"--trainer.max_epochs={iterations}"])
        name = f"estimated memory of {iterations} iterations, GRPO, {model}: measured"
        lines.append(Line(name, said, used, "MiB", min(said / used, used / said), 0.0))
    args = arguments("embedded-mid", "GRPO")
    mapped, default = zip(*((taken(args, MAPPED), taken(args)) for _ in range(ROUNDS)), strict=True)
    for what, unit, measure in (("memory", "MiB", _memory), ("time", "s", _time)):
        ours, peer = median(map(measure, mapped)), median(map(measure, default))
        name = f"{what}, GRPO, embedded-mid, freed blocks of 1 MiB given back: as glibc does"
        lines.append(Line(name, ours, peer, unit, peer / ours, 0.0))
    return lines


def _memory(run: dict[str, float]) -> float:
    return run["peak"] - run["before"]


def _time(run: dict[str, float]) -> float:
    return run["seconds"]
