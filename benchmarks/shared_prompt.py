"""One step's attention of decoding: over the prompt once for all its responses, beside each response's own copy of it.

The sampler copies a prompt's cache to each of its responses. It need not: the queries of all responses to a prompt can
attend to it together, and each to its own tokens, and the two are merged by their log-sum-exp. These lines say at which
lengths that would pay on a CPU.
"""

from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.measure import Line, seconds

HEADS = {"embedded": (4, 4, 24), "SmolLM2-135M": (9, 3, 64)}  # of queries, of keys, and their size
LENGTHS = ((40, 24), (100, 64), (400, 64))  # of the prompt, and of the response so far
GROUPS, SAMPLES, ROUNDS, STEPS = 16, 8, 7, 20


@torch.no_grad()
def shared_prompt() -> list[Line]:
    return [_line(name, prompt, own) for name in HEADS for prompt, own in LENGTHS]


def _line(name: str, prompt: int, own: int) -> Line:
    heads, of_keys, size = HEADS[name]
    query = torch.randn(GROUPS * SAMPLES, heads, 1, size)
    prompts = torch.randn(2, GROUPS, of_keys, prompt, size).unbind()
    written = torch.randn(2, GROUPS * SAMPLES, of_keys, own, size).unbind()
    keys, values = (torch.cat((x.repeat_interleave(SAMPLES, 0), y), 2) for x, y in zip(prompts, written, strict=True))

    def copied() -> Tensor:
        return scaled_dot_product_attention(query, keys, values, enable_gqa=heads > of_keys)

    def shared() -> Tensor:
        together = query.view(GROUPS, SAMPLES, of_keys, -1, size).transpose(1, 2).flatten(2, 3)
        first, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(together, *prompts)
        first, weight = (
            x.view(GROUPS, of_keys, SAMPLES, -1, last).transpose(1, 2).reshape(-1, of_keys, heads // of_keys, last)
            for x, last in ((first, size), (weight, 1))
        )
        apart = query.view(-1, of_keys, heads // of_keys, size)
        second, other = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(apart, *written)
        merged = second + (weight - other.view_as(weight)).sigmoid() * (first - second)
        return merged.view_as(query)

    torch.testing.assert_close(shared(), copied(), rtol=1e-4, atol=1e-5)

    def steps(work: Callable[[], Tensor]) -> float:
        return seconds(lambda: [work() for _ in range(STEPS)])

    pairs = [(steps(shared), steps(copied)) for _ in range(ROUNDS)]
    ours, peer = (1000 * median(each) / STEPS for each in zip(*pairs, strict=True))
    label = f"attention of a step, {GROUPS} x {SAMPLES} rows, prompt {prompt}, so far {own}, {name}, prompt read once"
    return Line(f"{label}: prompt copied", ours, peer, "ms", median(b / a for a, b in pairs), 0.0)
