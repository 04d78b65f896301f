"""Adapters, activation checkpointing and export, on the families of models."""

import sys
from functools import partial

import pytest
import torch
from families import CONFIGS, encode, family, write
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoModelForCausalLM, AutoTokenizer

from lit_rl.algorithms import GRPO, PPO, RLOO, RTO, OnlineDPO
from lit_rl.callbacks import GradientVariance, Memory
from lit_rl.errors import UsageError
from lit_rl.policy import CausalPolicy
from lit_rl.sampling import LocalSampler, SamplingPlan

PLAN = SamplingPlan(samples=2, max_new_tokens=10)


def adapted(name, folder) -> CausalPolicy:
    """With adapters that have learned something."""
    policy = family(name, folder, lora_rank=4)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return policy


def sample(policy):
    return LocalSampler().sample(policy, encode(policy), PLAN, [(i,) for i in range(3)])


@pytest.mark.parametrize("name", CONFIGS)
def test_adapters_start_at_the_model_and_their_reference_stays_there(name, tmp_path):
    plain, policy = family(name, tmp_path), adapted(name, tmp_path)
    rollouts = sample(policy)
    trainable = {p.shape for p in policy.parameters() if p.requires_grad}
    assert all(4 in shape for shape in trainable) and sum(p.requires_grad for p in policy.parameters()) % 2 == 0
    with torch.no_grad():
        assert torch.equal(family(name, tmp_path, lora_rank=4)(rollouts, 1.0), plain(rollouts, 1.0))
        reference = policy.reference()
        assert torch.equal(reference(rollouts, 1.0), plain(rollouts, 1.0))
        assert not torch.allclose(policy(rollouts, 1.0), plain(rollouts, 1.0), atol=1e-3)
    assert reference.fingerprint == policy.fingerprint == plain.fingerprint
    assert {p.shape for p in policy.parameters() if p.requires_grad} == trainable  # off and on again
    assert torch.equal(sample(reference).response_ids, sample(plain).response_ids)


@pytest.mark.parametrize("lora_rank", [0, 4], ids=["weights", "adapters"])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_an_export_is_loaded_by_transformers_with_equal_logits(name, lora_rank, tmp_path):
    policy = adapted(name, tmp_path / "own") if lora_rank else family(name, tmp_path / "own")
    policy.save_pretrained(tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.tensor(encode(policy)[:1])
    ours, theirs = policy.model.eval()(input_ids=ids).logits, loaded(input_ids=ids).logits
    if lora_rank:  # a sum of two products against the product with the sum
        assert float((theirs - ours).abs().max()) < 1e-4 * float(ours.abs().max())
    else:
        assert torch.equal(theirs, ours)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    chat = [{"role": "user", "content": "12+3="}]
    assert tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"] == policy.encode_prompt(chat)
    assert not any(isinstance(module, BaseTunerLayer) for module in loaded.modules())


@pytest.mark.parametrize("name", CONFIGS)
def test_checkpointed_activations_change_neither_samples_nor_gradient(name, tmp_path):
    plain, spared = family(name, tmp_path), family(name, tmp_path, gradient_checkpointing=True)
    rollouts = sample(plain)
    assert torch.equal(sample(spared).response_ids, rollouts.response_ids) and spared.training
    gradients = []
    for policy in (plain, spared):
        saved: list[int] = []
        pack = partial(lambda saved, x: saved.append(x.numel()) or x, saved)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            logprobs = policy(rollouts, 1.0)
        gradients.append((torch.autograd.grad(logprobs.sum(), list(policy.parameters())), sum(saved)))
    (own, kept), (again, few) = gradients
    pairs = list(zip(own, again, strict=True))  # one reads prompts once and the other row by row
    assert all(torch.linalg.norm(a - b) <= 1e-5 * torch.linalg.norm(a) for a, b in pairs) and few < kept


def test_adapters_alone_are_trained_and_the_reference_costs_nothing(fit):
    """The policy's own weights stay, and KL is to the start; a critic's copy of them has adapters, too."""
    for make, settings in ((GRPO, {"kl_coefficient": 0.1, "kl": "k3_loss"}), (PPO, {}), (OnlineDPO, {})):
        torch.manual_seed(0)
        policy = CausalPolicy(lora_rank=4)
        before = policy.fingerprint
        trainer, algorithm, _ = fit(
            make, iterations=2, callbacks=(GradientVariance(1), Memory()), policy=policy, learning_rate=1e-2, **settings
        )
        assert policy.fingerprint == before and float(trainer.callback_metrics["memory/frozen"]) < 1e-4
        moved = [p for name, p in policy.named_parameters() if "lora_B" in name]
        assert moved and all((p != 0).any() for p in moved)
        [reference] = algorithm._reference
        with torch.no_grad():
            start, now = (x(trainer.datamodule.rollouts, 1.0) for x in (reference, policy))
            assert torch.equal(start, CausalPolicy()(trainer.datamodule.rollouts, 1.0)) and not torch.equal(start, now)


@pytest.mark.parametrize("settings", [{"lora_rank": 4}, {"gradient_checkpointing": True}], ids=str)
def test_ratio_is_exactly_one_at_the_first_step_in_mixed_precision(fit, settings):
    seen = []

    class Watched(RLOO):
        def loss(self, minibatch, logprobs):
            seen.append((logprobs - minibatch.old_logprobs).detach())
            return super().loss(minibatch, logprobs)

    fit(Watched, policy=CausalPolicy(**settings), trainer={"precision": "bf16-mixed", "accumulate_grad_batches": 4})
    assert len(seen) == 4 and all((difference == 0).all() for difference in seen)


def test_rto_takes_a_dpo_policy_with_adapters(fit, tmp_path):
    trainer, _, _ = fit(
        OnlineDPO,
        policy=CausalPolicy(lora_rank=2),
        sampling="reference",
        learning_rate=1e-2,
        trainer={"enable_checkpointing": True},
    )
    trainer.save_checkpoint(tmp_path / "dpo.ckpt")
    _, rto, data = fit(RTO, policy=CausalPolicy(lora_rank=2), dpo_checkpoint=str(tmp_path / "dpo.ckpt"))
    assert (data.rollouts.token_rewards != 0).any()
    [dpo] = rto._dpo
    assert not any(p.requires_grad for p in dpo.parameters())


def test_without_peft_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"model.policy.lora_rank takes peft \(.*\); pip install 'lit-rl\[lora\]'"):
        CausalPolicy(write("llama", tmp_path), weights="random", lora_rank=2)
