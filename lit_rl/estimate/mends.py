"""Settings with which a run that does not fit into a device's memory would."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from lit_rl.estimate.memory import Strategy, phases, total
from lit_rl.estimate.run import Run

NOISE, REFERENCE = "gradient_variance.every_n_iterations", "model.reference"
FEW = 4  # rows of a micro-batch, below which activations are computed again before there are fewer


@dataclass(frozen=True)
class Mends:
    """Settings by name, and the bytes that a device then takes beside those of its process."""

    settings: dict[str, Any]
    size: float


Change = tuple[dict[str, Any], Run, Strategy]


def mended(run: Run, strategy: Strategy, ranks: int, memory: float, optional: tuple[str, ...]) -> Mends | None:
    """The first settings found with which the run fits into so many bytes; None if there are none.

    What takes most is lowered, step by step: first what changes nothing but time, last the strategy.

    Args:
        optional: of ``NOISE`` and ``REFERENCE``, what the run has and does not need.
    """
    found: dict[str, Any] = {}
    while (size := total(run, strategy, ranks)) > memory:
        lower = (each for each in _changes(run, strategy, ranks, optional) if total(each[1], each[2], ranks) < size)
        change = next(lower, None)
        if change is None:
            return None
        settings, run, strategy = change
        found |= settings
        optional = tuple(name for name in optional if name not in settings)
    return Mends(found, size)


def _changes(run: Run, strategy: Strategy, ranks: int, optional: tuple[str, ...]) -> Iterator[Change]:
    besides = phases(run, strategy, ranks)
    phase = max(besides, key=lambda name: sum(besides[name].values()))
    if phase == "sampling" and run.batch_rows // 2 >= run.plan.rows:
        rows = run.batch_rows // 2
        yield {"data.sampler.batch_rows": rows}, replace(run, batch_rows=rows), strategy
    if run.engine is not None and (phase == "sampling" or run.engine.stays):
        engine = replace(run.engine, share=run.engine.share / 2)
        if engine.share * engine.memory >= engine.least:
            yield {"data.sampler.memory_share": engine.share}, replace(run, engine=engine), strategy
    if phase == "gradient noise" and NOISE in optional:
        yield {NOISE: 0}, replace(run, noise=False), strategy
    if phase in ("training", "preparing", "gradient noise"):
        if run.tokens is not None or run.rows > FEW:
            yield *_fewer(run), strategy
        if not run.checkpointing:
            yield {"model.policy.gradient_checkpointing": "true"}, replace(run, checkpointing=True), strategy
        yield *_fewer(run), strategy
    if REFERENCE in optional:
        yield {REFERENCE: "false"}, replace(run, frozen=0), strategy
    if strategy == "ddp":
        yield {"trainer.strategy": "fsdp2"}, run, "fsdp2"


def _fewer(run: Run) -> tuple[dict[str, Any], Run]:
    """Half as much in a micro-batch, and twice as many in an optimizer step, which stays what it is."""
    if run.tokens is not None:
        tokens = max(1, run.tokens // 2)
        return {"data.tokens_per_microbatch": tokens}, replace(run, tokens=tokens)
    if run.rows % 2 or (run.plan.pairs and run.rows == 2):
        return {}, run
    rows, accumulate = run.rows // 2, run.accumulate * 2
    settings = {"data.rows_per_microbatch": rows, "trainer.accumulate_grad_batches": accumulate}
    return settings, replace(run, rows=rows, accumulate=accumulate)
