"""Log-probabilities in pieces against those of whole logits, and the memory they take."""

import pytest
import torch
from families import CONFIGS, PROMPTS, encode, family
from transformers import Gemma2Config

from lit_rl.algorithms import GRPO, OptimalBaseline
from lit_rl.policy import CausalPolicy, TabularPolicy, pieces
from lit_rl.sampling import LocalSampler, SamplingPlan


def rollouts_of(policy):
    plan = SamplingPlan(samples=3, max_new_tokens=7)
    return LocalSampler().sample(policy, encode(policy, PROMPTS[:2]), plan, [(0,), (1,)])


def gradients(policy, rollouts):
    policy.zero_grad()
    (policy(rollouts, 0.7) * torch.arange(len(rollouts))[:, None]).sum().backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters()])


@pytest.mark.parametrize("name", CONFIGS)
def test_pieces_change_neither_numbers_nor_gradients(name, tmp_path, monkeypatch):
    policy = family(name, tmp_path)
    rollouts = rollouts_of(policy)
    with torch.no_grad():
        whole, entropy = policy.logprobs_and_entropy(rollouts, 0.7)
    norms, gradient, seen = policy.score_norms(rollouts, 0.7), gradients(policy, rollouts), []
    handle = policy.model.get_output_embeddings().register_forward_hook(lambda *args: seen.append(args[2].numel()))
    monkeypatch.setattr(pieces, "MOST_LOGITS", 2 * 7 * policy.model.config.vocab_size)
    with torch.no_grad():
        parts = policy.logprobs_and_entropy(rollouts, 0.7)
    torch.testing.assert_close(parts[0], whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(parts[1], entropy, rtol=0, atol=1e-5)
    torch.testing.assert_close(policy.score_norms(rollouts, 0.7), norms, rtol=0, atol=1e-5)
    assert torch.linalg.norm(gradients(policy, rollouts) - gradient) < 1e-5 * torch.linalg.norm(gradient)
    handle.remove()
    assert max(seen) <= pieces.MOST_LOGITS


def test_what_weighs_a_baseline_is_read_in_the_portions_of_log_probabilities(policy, monkeypatch):
    """As few rows of the model and as few logits at once."""
    rollouts = rollouts_of(policy)
    rollouts.rewards = torch.rand(len(rollouts), generator=torch.Generator().manual_seed(0))
    algorithm = OptimalBaseline(policy=policy, samples=3, max_new_tokens=7, reference=False)
    head, seen = pieces.plain_head(policy.model), []
    policy(rollouts, 1.0)  # finds out how this model may be read
    handles = [
        policy.model.base_model.register_forward_hook(lambda *args: seen.append(args[2].last_hidden_state.shape)),
        head.register_forward_hook(lambda *args: seen.append(args[2].shape)),
    ]
    monkeypatch.setattr(pieces, "MOST_LOGITS", 3 * policy.vocabulary)
    algorithm.prepare(rollouts, 2)
    for handle in handles:
        handle.remove()
    half = len(seen) // 2
    assert seen[:half] == seen[half:] and (3, policy.vocabulary) in seen
    assert all(shape[0] <= 3 for shape in seen if shape[-1] == policy.vocabulary)


def test_logits_that_are_more_than_a_layers_output_stay_whole(tmp_path, monkeypatch, policy):
    """A model that bends its logits is read as it is, and so is a table."""
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Gemma2Config(vocab_size=400, num_key_value_heads=1, head_dim=16, final_logit_softcapping=0.5, **small)
    config.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    for bent in (CausalPolicy(str(tmp_path), weights="random"), TabularPolicy(4, 7, spread=1.0)):
        rollouts = LocalSampler().sample(bent, [[1], [1]], SamplingPlan(samples=2, max_new_tokens=7), [(0,), (1,)])
        monkeypatch.setattr(pieces, "MOST_LOGITS", 2**25)
        whole = bent(rollouts, 1.0)
        monkeypatch.setattr(pieces, "MOST_LOGITS", 1)
        assert torch.equal(bent(rollouts, 1.0), whole)


def test_the_ratio_starts_at_one_in_pieces_too(fit, monkeypatch):
    """Rows stand beside other rows, in pieces of three, while preparing and in training."""
    monkeypatch.setattr(pieces, "MOST_LOGITS", 3 * 48 * 420)
    ratios = []

    class Watched(GRPO):
        def loss(self, minibatch, logprobs):
            ratios.append((logprobs - minibatch.old_logprobs).abs().max())
            return super().loss(minibatch, logprobs)

    fit(Watched, samples=4, data={"rows_per_microbatch": 8}, trainer={"accumulate_grad_batches": 2})
    assert len(ratios) == 2 and max(ratios) == 0
