"""A model that can't be sampled from is a line when it is loaded."""

import pytest
from transformers import LlamaConfig, Mamba2Config

from lit_rl.errors import UsageError
from lit_rl.policy import CausalPolicy

SHARED = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None, "hidden_size": 32, "num_hidden_layers": 2}
LLAMA = {**SHARED, "intermediate_size": 64, "num_attention_heads": 4}


def load(config, tokenizer, folder):
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return CausalPolicy(str(folder), weights="random")


def test_a_tokenizer_with_more_tokens_than_embeddings(policy, tmp_path):
    tokens = len(policy.tokenizer)
    with pytest.raises(UsageError, match=f"model.policy.path: .* {tokens} tokens .* embeddings of {tokens - 1};"):
        load(LlamaConfig(vocab_size=tokens - 1, **LLAMA), policy.tokenizer, tmp_path)
    for size in (tokens, tokens + 64):
        assert load(LlamaConfig(vocab_size=size, **LLAMA), policy.tokenizer, tmp_path).vocabulary == size


@pytest.mark.parametrize(
    "template, said",
    [
        ("{% if false %}x{% endif %}", "renders to no token"),
        ("{{ raise_exception('no system') }}", "fails .no system"),
        ("{% if %}", "fails"),
        (None, "has no chat template"),
    ],
)
def test_a_template_that_renders_nothing(template, said, tmp_path):
    tokenizer = CausalPolicy(weights="random").tokenizer
    tokenizer.chat_template = template
    with pytest.raises(UsageError, match=f"model.policy.path: .*{said}"):
        load(LlamaConfig(vocab_size=400, **LLAMA), tokenizer, tmp_path)


def test_a_model_with_another_memory_than_keys_and_values(policy, tmp_path):
    config = Mamba2Config(vocab_size=400, **SHARED, num_heads=4, head_dim=16, state_size=8, n_groups=1)
    with pytest.raises(UsageError, match="model.policy.path: Mamba2ForCausalLM remembers more than keys and values"):
        load(config, policy.tokenizer, tmp_path)
