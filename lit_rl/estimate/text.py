"""The words and the table of ``python -m lit_rl estimate``."""

from dataclasses import dataclass

from lit_rl.estimate.memory import KEPT, SCATTERED, Strategy, held, phases, total
from lit_rl.estimate.mends import Mends
from lit_rl.estimate.run import Run, chances, count

GIB, MIB = 2**30, 2**20
ERROR = 1.15  # how far an estimate was off, at most, where it was measured


@dataclass(frozen=True)
class Estimate:
    """A run, where it is to run, and what is told of it."""

    run: Run
    name: str
    strategy: Strategy
    ranks: int
    base: float  # bytes of a process without models
    before: float  # bytes that this process took before it built their shapes
    memory: float  # bytes of a device
    iterations: int | None
    parameters: dict[str, int]  # numbers, by model
    optional: tuple[str, ...]  # settings that may be turned off to lower the memory
    notes: tuple[str, ...]

    def total(self) -> float:
        """Bytes of a device, at the peak."""
        return self.base + total(self.run, self.strategy, self.ranks)


def text(found: Estimate, mends: Mends | None) -> list[str]:
    """The lines that are printed.

    Args:
        mends: of :func:`lit_rl.estimate.mends.mended`, if it does not fit.
    """
    return [*_counts(found), "", *_table(found), "", *_verdict(found, mends)]


def _counts(found: Estimate) -> list[str]:
    run, plan = found.run, found.run.plan
    counts = count(run, found.ranks)
    numbers = found.parameters
    beside = [f"{name} {numbers[name]:,}" for name in ("critic", "frozen beside") if numbers[name]]
    responses = "demonstrations" if plan.demonstrations else f"{plan.rows} responses"
    tokens = [f"{counts.sampled:,} sampled"]
    if counts.continued:
        cuts = sum(chances(plan)[0])
        how = f"{plan.continuations} from each of {cuts:.3g} cuts a response{', assumed' if counts.assumed else ''}"
        tokens.append(f"{counts.continued:,} of continuations ({how})")
    tokens.append(f"{counts.prefilled:,} prefilled")
    by = f"{run.rows} rows" if run.tokens is None else f"{run.tokens} tokens"
    devices = f" x {found.ranks} devices" if found.ranks > 1 else ""
    steps = f"{counts.steps:,} an iteration, each of {run.accumulate} x {by}{devices}"
    whole = []
    if found.iterations and found.iterations > 0:
        all_tokens = (counts.sampled + counts.continued) * found.iterations
        whole = [f"run         {found.iterations:,} iterations: {all_tokens:,} tokens, "]
        whole[0] += f"{counts.steps * found.iterations:,} optimizer steps"
    beside.append(f"trained {numbers['trained']:,}")
    return [
        f"{found.name}, all responses of full length:",
        f"parameters  policy {numbers['policy']:,}, {', '.join(beside)}",
        f"tokens      an iteration of {run.prompts} prompts x {responses} of {run.length} tokens: {', '.join(tokens)}",
        f"steps       {steps}",
        *whole,
        *(f"note        {note}" for note in found.notes),
    ]


def columns(ranks: int) -> list[tuple[str, Strategy, int]]:
    """The ways to run it: their names, strategies and numbers of processes."""
    several: list[tuple[str, Strategy, int]] = [(f"{ranks} x ddp", "ddp", ranks), (f"{ranks} x fsdp2", "fsdp2", ranks)]
    return [("one process", "one", 1), *(several if ranks > 1 else [])]


def _table(found: Estimate) -> list[str]:
    """Memory by part, a column for each way to run it; the one that is chosen has a star."""
    ways = columns(found.ranks)
    totals = [found.base + total(found.run, strategy, ranks) for _, strategy, ranks in ways]
    unit, name = (GIB, "GiB") if min(totals) > 4 * GIB else (MIB, "MiB")
    kept = [held(found.run, *way[1:]) for way in ways]
    besides = [phases(found.run, *way[1:]) for way in ways]
    rows: list[tuple[str, list[float]]] = [("process", [found.base] * len(ways))]
    rows += [(part, [each[part] for each in kept]) for part in kept[0]]
    peaks = [max(each, key=lambda phase: sum(each[phase].values())) for each in besides]
    lines = [_row(f"{name} a device", [f"{way[0]}{'*' * (way[1] == found.strategy)}" for way in ways])]
    lines += [_row(part, _sizes(values, unit)) for part, values in rows if any(values)]
    for phase in dict.fromkeys(phase for each in besides for phase in each):
        parts = [each.get(phase, {}) for each in besides]
        marks = ["+" if peak == phase else "" for peak in peaks]
        lines.append(_row(f"while {phase}", _sizes([sum(each.values()) for each in parts], unit, marks)))
        for part in dict.fromkeys(part for each in parts for part in each):
            values = [each.get(part, 0.0) for each in parts]
            if any(values):
                lines.append(_row(f"  {part}", [size if size == "-" else f"({size})" for size in _sizes(values, unit)]))
    peak = "peak" if found.run.gpu else f"peak: {SCATTERED:.0%} of +, {KEPT:.0%} of the next phase"
    lines.append(_row(peak, _sizes(totals, unit)))
    return [*lines, _row(f"fits into {found.memory / unit:,.1f}", [_fits(each, found.memory) for each in totals])]


def _sizes(values: list[float], unit: int, marks: list[str] | None = None) -> list[str]:
    pairs = zip(values, marks or [""] * len(values), strict=True)
    return [f"{mark}{value / unit:,.1f}" if value else "-" for value, mark in pairs]


def _row(name: str, cells: list[str]) -> str:
    return f"{name:<40}" + "".join(f"{cell:>14}" for cell in cells)


def _fits(size: float, memory: float) -> str:
    return "no" if size > memory else "yes" if size * ERROR <= memory else "just"


def _verdict(found: Estimate, mends: Mends | None) -> list[str]:
    size, memory = found.total(), found.memory
    unit, name = (GIB, "GiB") if size > 4 * GIB else (MIB, "MiB")
    sizes = f"{size / unit:,.1f} of {memory / unit:,.1f} {name} a device"
    if size * ERROR <= memory:
        return [f"It fits: {sizes}."]
    if size <= memory:
        return [f"It may fit: {sizes}, and estimates were up to {ERROR - 1:.0%} off where they were measured."]
    if mends is None:
        return [
            f"It does not fit: {sizes}, and no setting of this run mends that; take more devices with "
            "--trainer.strategy fsdp2, train adapters (--model.policy.lora_rank 32), or take a smaller model."
        ]
    return [
        f"It does not fit: {sizes}. With these settings it takes {(found.base + mends.size) / unit:,.1f}:",
        *(f"    --{name} {value}" for name, value in mends.settings.items()),
    ]
