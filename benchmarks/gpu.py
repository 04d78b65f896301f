"""Sampling on a GPU: SmolLM2-135M in bf16, beside ``generate``, its steps one by one, and what memory allows."""

from statistics import median

import torch

from benchmarks.measure import Line, rate, seconds
from benchmarks.sampling import ROWS, Sampling
from lit_rl.policy import CausalPolicy
from lit_rl.policy.causal import DATA
from lit_rl.rollouts import Rollouts
from lit_rl.sampling import LocalSampler

FOLDER, MOST, ROUNDS = DATA / "smollm2", 256, 3


def ready() -> bool:
    return torch.cuda.is_available() and (FOLDER / "model.safetensors").exists()


def gpu() -> list[Line]:
    policy = CausalPolicy(str(FOLDER), dtype="bfloat16").to("cuda")
    label = f"{ROWS} rows, SmolLM2-135M, bf16"
    ways = {
        "steps one by one": LocalSampler(cuda_graphs=False),
        "CUDA graphs": LocalSampler(),
        "CUDA graphs, compiled": LocalSampler(compile=True),
    }
    works = {name: Sampling(policy, ROWS, MOST, sampler) for name, sampler in ways.items()}
    plain, ours, compiled = works.values()
    lines = [
        rate(f"sampling, {label}, CUDA graphs: transformers.generate", 2.0, ours.ours, ours.generate, ROUNDS),
        rate(f"sampling, {label}, CUDA graphs: steps one by one", 1.0, ours.ours, plain.ours, ROUNDS),
        rate(f"sampling, {label}, compiled: CUDA graphs alone", 1.0, compiled.ours, ours.ours, ROUNDS),
    ]
    speed = bandwidth()
    for name, work in list(works.items())[1:]:
        most = int(work.rollouts.mask.sum()) / (bytes_read(policy, work.rollouts) / speed)
        found = median(work.ours() for _ in range(ROUNDS))
        lines.append(Line(f"sampling, {label}, {name}: decode roofline", found, most, "tokens/s", found / most, 0.3))
    return lines


def bandwidth() -> float:
    """Bytes a second that a copy within the GPU's memory reads and writes."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = [seconds(lambda: [target.copy_(source) for _ in range(20)]) for _ in range(ROUNDS + 1)]
    return 20 * 2 * 2**30 / median(times[1:])


def bytes_read(policy: CausalPolicy, rollouts: Rollouts) -> float:
    """What decoding has to read at least: each step the weights, and keys and values of each row that goes on."""
    config, size = policy.model.config, next(policy.parameters()).element_size()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    slot = 2 * config.num_hidden_layers * config.num_key_value_heads * head * size
    prompts, lengths = rollouts.prompt_mask.sum(1), rollouts.lengths
    steps = lengths - 1  # the first token comes from the prompt's pass
    slots = steps * prompts + steps * (steps + 1) // 2
    weights = sum(p.numel() for p in policy.parameters()) * size
    return float(int(steps.max()) * weights + int(slots.sum()) * slot)
