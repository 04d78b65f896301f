"""Sampling on a GPU: SmolLM2-135M in bf16, beside ``generate``, with less of what makes it fast, and memory's limit."""

from collections import defaultdict
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.growth import EARLY, LATE, MAKE
from benchmarks.measure import SMOLLM2, Line, fetched, limit, process, rate, seconds
from benchmarks.sampling import ROWS, Sampling
from lit_rl.policy import CausalPolicy
from lit_rl.rollouts import Rollouts
from lit_rl.sampling import LocalSampler
from lit_rl.sampling.cache import bytes_a_slot

MOST, ROUNDS = 256, 2
PROFILED = 48  # tokens: a profiler's events are many
AS_THEY_ARE, COMPILED = "as they are", "compiled"
KINDS = {
    "matrix products": ("nvjet", "gemm", "cutlass", "cublas"),
    "softmax, sums, scans": ("softmax", "reduce", "scan"),
    "elementwise and copies": ("",),
}


def ready() -> bool:
    return torch.cuda.is_available() and fetched()


def gpu() -> list[Line]:
    policy = CausalPolicy(str(SMOLLM2), dtype="bfloat16").to("cuda")
    label = f"sampling, {ROWS} rows, SmolLM2-135M in bf16 on one {torch.cuda.get_device_name()}"
    samplers = LocalSampler(), LocalSampler(compile=True), LocalSampler(cuda_graphs=False)
    ours, compiled, plain = (Sampling(policy, ROWS, MOST, sampler) for sampler in samplers)
    lines = [
        rate(f"{label}: transformers.generate", 2.0, ours.ours, ours.generate, ROUNDS),
        rate(f"{label}: without CUDA graphs", 1.0, ours.ours, plain.ours, 1),
        rate(f"{label}, {COMPILED}: not {COMPILED}", 1.0, compiled.ours, ours.ours, ROUNDS),
    ]
    speed = bandwidth()
    for name, work in ((label, ours), (f"{label}, {COMPILED}", compiled)):
        found = median(work.ours() for _ in range(ROUNDS))
        most = int(work.rollouts.mask.sum()) / (bytes_read(policy, work.rollouts) / speed)
        lines.append(
            Line(f"{name}: the memory bandwidth's limit (roofline)", found, most, "tokens/s", found / most, 0.3)
        )
    return [*lines, *growth()]


def growth() -> list[Line]:
    """What PyTorch holds of the GPU's memory after many iterations, beside a twentieth more than after a few."""
    lines = []
    for name in MAKE:
        reserved = process("benchmarks.growth", name, "bf16-mixed")["reserved"]
        label = f"memory reserved after {LATE} iterations of {name}, SmolLM2-135M in bf16-mixed"
        label += f" on one {torch.cuda.get_device_name()}: after {EARLY}, and 5 %"
        lines.append(limit(label, "MiB", reserved[LATE - 1], 1.05 * reserved[EARLY - 1]))
    return lines


def kernels() -> list[dict[str, Any]]:
    """What the GPU did in each step of decoding, by kind of kernel; the rest of the time it waited."""
    policy = CausalPolicy(str(SMOLLM2), dtype="bfloat16").to("cuda")
    return [
        {"steps": steps, **row}
        for steps in (AS_THEY_ARE, COMPILED)
        for row in _kernels(Sampling(policy, ROWS, PROFILED, LocalSampler(compile=steps == COMPILED)))
    ]


def _kernels(work: Sampling) -> list[dict[str, Any]]:
    work.ours()
    alone = seconds(lambda: work.ours())
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work.ours()
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for event in profiler.key_averages():
        kind = next(kind for kind, parts in KINDS.items() if any(part in event.key.lower() for part in parts))
        found[kind][0] += event.self_device_time_total / 1e6
        found[kind][1] += event.count
    found["waiting"] = [max(0.0, alone - sum(spent for spent, _ in found.values())), 0]
    return [
        {"kind": kind, "ms_a_step": 1000 * spent / PROFILED, "kernels_a_step": count / PROFILED}
        for kind, (spent, count) in found.items()
    ]


def bandwidth() -> float:
    """Bytes a second that a copy within the GPU's memory reads and writes."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = [seconds(lambda: [target.copy_(source) for _ in range(20)]) for _ in range(ROUNDS + 1)]
    return 20 * 2 * 2**30 / median(times[1:])


def bytes_read(policy: CausalPolicy, rollouts: Rollouts) -> float:
    """What decoding has to read at least: each step the weights, and keys and values of each row that goes on."""
    size = next(policy.parameters()).element_size()
    slot = bytes_a_slot(policy.model.config, size)
    prompts, lengths = rollouts.prompt_mask.sum(1), rollouts.lengths
    steps = lengths - 1  # the first token comes from the prompt's pass
    slots = steps * prompts + steps * (steps + 1) // 2
    weights = sum(p.numel() for p in policy.parameters()) * size
    return float(int(steps.max()) * weights + int(slots.sum()) * slot)
