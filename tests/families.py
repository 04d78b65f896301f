"""Tiny random models of the families of causal language models, with the embedded tokenizer."""

from functools import partial
from pathlib import Path

import torch
from transformers import GemmaConfig, GPT2Config, LlamaConfig, Qwen2Config, Qwen3Config

from lit_rl.policy import CausalPolicy

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SMALL, "num_key_value_heads": 2}
CONFIGS = {
    "llama": partial(LlamaConfig, **SMALL),
    "qwen2": partial(Qwen2Config, **GROUPED),
    "qwen3": partial(Qwen3Config, **GROUPED, head_dim=8),
    "gemma": partial(GemmaConfig, **GROUPED, head_dim=8),
    "gpt2": partial(GPT2Config, n_embd=32, n_layer=2, n_head=4, attn_pdrop=0.1),
}
PROMPTS = ["How many?", "Ann has 12 pens. Ann buys 3 more. How many pens does Ann have now?", "12+3="]


def write(name: str, folder: Path) -> str:
    """The family's config and the tokenizer, for ``CausalPolicy(..., weights="random")``."""
    shared = {"vocab_size": 400, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None, "initializer_range": 0.2}
    CONFIGS[name](**shared).save_pretrained(folder)
    CausalPolicy().tokenizer.save_pretrained(folder)
    return str(folder)


def family(name: str, folder: Path, **settings) -> CausalPolicy:
    """A tiny random model of the family, sharp enough to have a clear favourite."""
    path = write(name, folder)
    torch.manual_seed(0)
    return CausalPolicy(path, weights="random", **settings)


def encode(policy: CausalPolicy, texts: list[str] = PROMPTS) -> list[list[int]]:
    return [policy.encode_prompt([{"role": "user", "content": text}]) for text in texts]
