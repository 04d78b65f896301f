"""What steps add to a process's peak: ``python -m benchmarks.vocabulary ROWS [ours|whole] [TABLE]``.

A Llama of two layers over 150,000 tokens takes a table of rows in micro-batches of ROWS: 32 tokens of prompt and 96 of
response. ``whole`` keeps the logits of a micro-batch.
"""

import json
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.measure import peak
from lit_rl.algorithms import GRPO
from lit_rl.policy import pieces
from lit_rl.policy.tokens import TokenPolicy
from lit_rl.rollouts import Rollouts, response_mask

VOCABULARY, PROMPT, RESPONSE = 150_000, 32, 96


def table(rows: int) -> Rollouts:
    lengths = torch.full((rows,), RESPONSE)
    return Rollouts(
        prompt_ids=torch.randint(VOCABULARY, (rows // 4, PROMPT)).repeat_interleave(4, 0),
        prompt_mask=torch.ones(rows, PROMPT, dtype=torch.bool),
        response_ids=torch.randint(VOCABULARY, (rows, RESPONSE)),
        lengths=lengths,
        mask=response_mask(lengths, RESPONSE),
        group=torch.arange(rows) // 4,
        origin=torch.full((rows,), -1),
        cut=torch.zeros(rows, dtype=torch.long),
        trained=torch.ones(rows, dtype=torch.bool),
        truncated=torch.ones(rows, dtype=torch.bool),
        examples=[{}] * (rows // 4),
        rewards=torch.rand(rows),
    )


def main(rows: int, how: str, whole_table: int) -> float:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    algorithm = GRPO(policy=TokenPolicy(LlamaForCausalLM(config), VOCABULARY, eos=False), samples=4, reference=False)
    if how == "whole":
        pieces.MOST_LOGITS = sys.maxsize
    rollouts = table(whole_table)
    before = peak()
    algorithm.prepare(rollouts, rows)
    for part in torch.arange(whole_table).split(rows):
        minibatch = rollouts.select(part)
        sum(algorithm.loss(minibatch, *algorithm.predictions(minibatch)).values()).backward()  # type: ignore[union-attr]
    return peak() - before


if __name__ == "__main__":
    rows = int(sys.argv[1])
    how = sys.argv[2] if len(sys.argv) > 2 else "ours"
    print(json.dumps({"peak": main(rows, how, int(sys.argv[3]) if len(sys.argv) > 3 else rows)}))
