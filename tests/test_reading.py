"""Trees in which each token is read once, against each row read for itself."""

import copy

import pytest
import torch
from families import CONFIGS, encode, family
from transformers import BambaConfig, BambaForCausalLM, LlamaConfig, MistralConfig
from trees import distinct_tokens, forked, sample
from turns import spoken_between

from lit_rl.policy import CausalPolicy, TabularPolicy, TokenTransformer
from lit_rl.policy.reading import read, read_states, takes_tree, whole_inputs
from lit_rl.policy.tree import lay_out
from lit_rl.sampling import SamplingPlan

PLAN = SamplingPlan(samples=3, max_new_tokens=9)


def build(name, folder):
    if name == "tokens":
        return TokenTransformer(5, length=24), [[0], [1, 2, 3, 0], [3, 2]]
    if name == "tabular":
        return TabularPolicy(4, 9, spread=1.0), [[0]] * 3
    policy = family(name, folder)
    return policy, encode(policy)


def of_whole_rows(policy, rollouts):
    width = rollouts.response_ids.shape[1]
    return policy.model(**whole_inputs(rollouts), use_cache=False).logits[:, -width - 1 : -1][rollouts.mask]


def gradient(policy, rollouts, logits):
    """Of log-probabilities, each token's with a weight of its own."""
    logprobs = logits.log_softmax(-1).gather(1, rollouts.response_ids[rollouts.mask][:, None]).squeeze(1)
    weights = torch.randn(len(logprobs), generator=torch.Generator().manual_seed(0))
    parameters = [p for p in policy.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad((logprobs * weights).sum(), parameters)])


def distance(ours, theirs):
    return float(torch.linalg.norm(ours - theirs) / torch.linalg.norm(theirs))


@pytest.mark.parametrize("name", [*CONFIGS, "tokens", "tabular"])
def test_numbers_and_gradients_are_those_of_whole_rows(name, tmp_path):
    policy, prompts = build(name, tmp_path)
    policy = policy.double()
    rollouts = sample(policy, prompts, PLAN).select(torch.tensor([7, 0, 4, 1, 8]))
    fed = []
    handle = policy.model.register_forward_pre_hook(lambda *args: fed.append(args[2]["input_ids"]), with_kwargs=True)
    takes_tree(policy.model)
    fed.clear()
    ours, states = read(policy.model, rollouts, states=True)
    handle.remove()
    assert takes_tree(policy.model) == (name != "tabular")
    if name == "tabular":
        states = states.float()
    else:
        assert fed[0].shape[0] == 1 and fed[0].numel() == distinct_tokens(rollouts)
    theirs = of_whole_rows(policy, rollouts)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    torch.testing.assert_close(read(policy.model, rollouts, apart=True)[0], theirs, rtol=0, atol=1e-5)
    torch.testing.assert_close(read_states(policy.model.base_model, rollouts), states, rtol=0, atol=1e-5)
    assert distance(gradient(policy, rollouts, ours), gradient(policy, rollouts, theirs)) < 1e-6


def some_of(policy, rows):
    """Some rows of a table with continuations; the first of them has no token of its own."""
    rollouts = forked(policy)
    chosen = rollouts.select(torch.tensor(rows(len(rollouts))))
    chosen.mask = chosen.mask.clone()
    chosen.mask[0] = False
    return chosen


TABLES = {
    "all": lambda n: list(range(n)),
    "origins left out": lambda n: [0, *range(3, n)],
    "continuations alone": lambda n: list(range(n - 1, n - 8, -1)),
}


@pytest.mark.parametrize("rows", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}, {"lora_rank": 4}], ids=str)
def test_prefixes_of_continuations_are_read_once(rows, settings):
    policy = CausalPolicy(**settings).double()  # float32 rounds more than 1e-6
    rollouts = some_of(policy, rows)
    assert lay_out(rollouts).input_ids.numel() == distinct_tokens(rollouts)
    assert takes_tree(policy.model)
    theirs = gradient(policy, rollouts, of_whole_rows(policy, rollouts))
    assert distance(gradient(policy, rollouts, read(policy.model, rollouts)[0]), theirs) < 1e-6
    assert distance(gradient(policy, rollouts, read(policy.model, rollouts, apart=True)[0]), theirs) < 1e-6


@pytest.mark.parametrize("rows", TABLES.values(), ids=TABLES)
def test_what_an_environment_said_is_read_once_and_never_trained_on(rows):
    policy = CausalPolicy().double()
    rollouts = spoken_between(forked(policy), policy.vocabulary)
    rollouts = rollouts.select(torch.tensor(rows(len(rollouts))))
    assert lay_out(rollouts).input_ids.numel() == distinct_tokens(rollouts)
    logits = read(policy.model, rollouts)[0]
    assert takes_tree(policy.model) and len(logits) == int(rollouts.mask.sum())
    theirs = gradient(policy, rollouts, of_whole_rows(policy, rollouts))
    assert distance(gradient(policy, rollouts, logits), theirs) < 1e-6
    logprobs, entropy = policy.logprobs_and_entropy(rollouts, 1.0)
    assert not logprobs[~rollouts.mask].any() and not entropy[~rollouts.mask].any()


def test_rows_without_a_token_have_no_numbers_and_a_gradient_of_zero(policy):
    rollouts = sample(policy, encode(policy), PLAN)
    rollouts.mask = torch.zeros_like(rollouts.mask)
    logprobs = policy(rollouts, 1.0)
    assert not logprobs.any()
    assert not any(g.any() for g in torch.autograd.grad(logprobs.sum(), list(policy.parameters())))


def test_a_model_that_forgets_is_read_row_by_row(tmp_path, policy):
    """One whose attention has a window, and one with a state beside it; which kind it is, is not told by its name."""
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    grouped = {"vocab_size": 420, "num_key_value_heads": 2, **small}
    for window in (None, 8):
        MistralConfig(sliding_window=window, **grouped).save_pretrained(tmp_path)
        policy.tokenizer.save_pretrained(tmp_path)
        model = CausalPolicy(str(tmp_path), weights="random")
        rollouts = sample(model, encode(model), PLAN)
        torch.testing.assert_close(read(model.model, rollouts)[0], of_whole_rows(model, rollouts), rtol=0, atol=1e-5)
        assert takes_tree(model.model) == (window is None)
    hybrid = {"attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
    assert not takes_tree(BambaForCausalLM(BambaConfig(mamba_n_groups=1, **hybrid, **grouped)))


def test_an_attention_that_sees_no_tree_is_found_out(policy):
    other = copy.deepcopy(policy)
    other.model.set_attn_implementation("eager")
    rollouts = sample(other, encode(other), PLAN)
    theirs = of_whole_rows(other, rollouts)
    assert not takes_tree(other.model)
    torch.testing.assert_close(read(other.model, rollouts)[0], theirs, rtol=0, atol=1e-5)


def test_gradients_of_padded_prompts_are_numbers_at_every_length(tmp_path, policy):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wide = {"hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaConfig(vocab_size=400, **wide).save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    policy = CausalPolicy(str(tmp_path), weights="random").to(device)
    for length in (63, 64, 65, 66, 129):  # 65 is 64 and the last one: there those of cuDNN's attention are not
        rollouts = sample(policy, [[3] * length, [3] * (length - 3)], PLAN)
        with torch.autocast(device, torch.bfloat16):
            loss = (policy(rollouts, 1.0) * rollouts.mask).sum()
        assert all(x.isfinite().all() for x in torch.autograd.grad(loss, list(policy.parameters())))
    assert not torch.backends.cuda.cudnn_sdp_enabled()  # what a machine without a GPU can say of it
