"""Tokens a second of vLLM, beside our own sampling and transformers' ``generate``, on the same prompts and weights."""

from benchmarks.measure import SMOLLM2, Line, fetched, installed, rate
from benchmarks.sampling import Sampling
from lit_rl.policy import CausalPolicy
from lit_rl.sampling import VLLM

ROWS, MOST, ROUNDS = 32, 32, 3
SHARE = 0.1  # of the machine's memory


def ready() -> bool:
    return installed("vllm") and fetched()


def vllm() -> list[Line]:
    policy, label = CausalPolicy(str(SMOLLM2)), f"{ROWS} rows, SmolLM2-135M"
    own, engine = Sampling(policy, ROWS, MOST), Sampling(policy, ROWS, MOST, VLLM(memory_share=SHARE))
    return [
        rate(f"sampling beside vLLM, {label}: vLLM", 1.0, own.ours, engine.ours, ROUNDS),
        rate(f"sampling by vLLM, {label}: generate", 1.0, engine.ours, own.generate, ROUNDS),
    ]
