"""A prompt that is read once for all its responses, against each row read for itself."""

import pytest
import torch
from families import CONFIGS, encode, family
from transformers import LlamaConfig, MistralConfig

from lit_rl.policy import CausalPolicy, TabularPolicy, TokenTransformer
from lit_rl.policy.reading import read, takes_cache, whole_inputs
from lit_rl.sampling import LocalSampler, SamplingPlan

PLAN = SamplingPlan(samples=3, max_new_tokens=9)


def build(name, folder):
    if name == "tokens":
        return TokenTransformer(5, length=24), [[0], [1, 2, 3, 0], [3, 2]]
    if name == "tabular":
        return TabularPolicy(4, 9, spread=1.0), [[0]] * 3
    policy = family(name, folder)
    return policy, encode(policy)


@pytest.mark.parametrize("name", [*CONFIGS, "tokens", "tabular"])
def test_numbers_and_gradients_are_those_of_whole_rows(name, tmp_path):
    policy, prompts = build(name, tmp_path)
    rollouts = LocalSampler().sample(policy, prompts, PLAN, [(i,) for i in range(3)])
    rollouts = rollouts.select(torch.tensor([7, 0, 4, 1, 8]))
    width = rollouts.response_ids.shape[1]
    fed = []

    def watch(module, args, kwargs):
        fed.append(kwargs["input_ids"].numel())

    handle = policy.model.register_forward_pre_hook(watch, with_kwargs=True)
    ours = read(policy.model, rollouts, lambda out: (out.logits,))[0]
    handle.remove()
    length = rollouts.prompt_ids.shape[1]
    assert sum(fed) == (3 * (length - 1) + 5 * (width + 1))  # of three prompts, and of five rows
    theirs = policy.model(**whole_inputs(rollouts)).logits[:, -width - 1 : -1]
    mask = rollouts.mask[..., None]
    torch.testing.assert_close(ours * mask, theirs * mask, rtol=0, atol=2e-5)
    weights = torch.linspace(-1, 1, ours[0].numel()).view_as(ours[0]) * mask
    parameters = list(policy.model.parameters())
    pairs = zip(*(torch.autograd.grad((x * weights).sum(), parameters) for x in (ours, theirs)), strict=True)
    for mine, other in pairs:
        assert torch.linalg.norm(mine - other) <= 1e-5 * torch.linalg.norm(other)


def test_a_model_that_forgets_or_computes_again_is_read_whole(tmp_path, policy):
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    MistralConfig(vocab_size=420, num_key_value_heads=2, sliding_window=8, **small).save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    assert takes_cache(policy.model)
    assert not takes_cache(CausalPolicy(str(tmp_path), weights="random").model)
    assert not takes_cache(CausalPolicy(gradient_checkpointing=True).model)


def test_gradients_of_padded_prompts_are_numbers_at_every_length(tmp_path, policy):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wide = {"hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaConfig(vocab_size=400, **wide).save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    policy = CausalPolicy(str(tmp_path), weights="random").to(device)
    for length in (63, 64, 65, 66, 129):  # 65 is 64 and the last one: there those of cuDNN's attention are not
        prompts = [[3] * length, [3] * (length - 3)]
        rollouts = LocalSampler().sample(policy, prompts, PLAN, [(0,), (1,)])
        with torch.autocast(device, torch.bfloat16):
            loss = (policy(rollouts, 1.0) * rollouts.mask).sum()
        assert all(x.isfinite().all() for x in torch.autograd.grad(loss, list(policy.parameters())))
    assert not torch.backends.cuda.cudnn_sdp_enabled()  # what a machine without a GPU can say of it
