"""``python -m lit_rl export``: what fit has trained, for transformers."""

import pytest
import torch
from families import write
from transformers import AutoModelForCausalLM

from lit_rl.algorithms import RLOO
from lit_rl.policy import CausalPolicy, TokenTransformer


@pytest.fixture(params=[0, 4], ids=["weights", "adapters"])
def checkpoint(request, fit, tmp_path):
    """A trained policy, and the path of its checkpoint."""
    policy = CausalPolicy(lora_rank=request.param)
    trainer, _, data = fit(RLOO, policy=policy, learning_rate=1e-2, trainer={"enable_checkpointing": True})
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return policy, data.rollouts, tmp_path / "last.ckpt"


@torch.no_grad()
def test_transformers_computes_what_the_trained_policy_does(lit_rl, checkpoint, tmp_path):
    policy, rollouts, path = checkpoint
    code, out, err = lit_rl("export", "--ckpt_path", str(path), "--output", "exported")
    assert code == 0 and "exported" in out, err
    ids = rollouts.prompt_ids[:1, rollouts.prompt_mask[0]]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")(input_ids=ids).logits
    ours = policy.model.eval()(input_ids=ids).logits
    start = CausalPolicy().model.eval()(input_ids=ids).logits
    assert torch.equal(theirs, ours) if not policy.recipe["lora_rank"] else torch.allclose(theirs, ours, atol=1e-4)
    assert not torch.allclose(theirs, start, atol=1e-2)
    again = CausalPolicy(str(tmp_path / "exported"))
    assert again.stop_ids.tolist() == policy.stop_ids.tolist() and torch.allclose(
        again(rollouts, 1.0), policy(rollouts, 1.0), atol=1e-4
    )


def test_mistakes_get_one_line_and_nothing_is_written(lit_rl, fit, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    trainer, _, _ = fit(RLOO, policy=CausalPolicy(), trainer={"enable_checkpointing": True})
    trainer.save_checkpoint("text.ckpt")
    torch.save({"state_dict": {}, "policy": TokenTransformer().recipe}, "tokens.ckpt")
    torch.save({"state_dict": {}, "policy": CausalPolicy(weights="random").recipe}, "random.ckpt")
    moved, other = ["--policy.path", "./nowhere"], ["--policy.path", write("llama", tmp_path / "x")]
    for path, output, said, options in (
        ("nowhere.ckpt", "out", "ckpt_path: no file nowhere.ckpt", []),
        (__file__, "out", "is no checkpoint", []),
        ("tokens.ckpt", "out", "holds no language model", []),
        ("text.ckpt", "full", "output: full is there already", []),
        ("text.ckpt", "out", "policy.path: what the policy started from is not at ./nowhere", moved),
        ("random.ckpt", "out", "is another model than that of random.ckpt", other),
    ):
        code, _, err = lit_rl("export", "--ckpt_path", path, "--output", output, *options)
        lines = [line for line in err.splitlines() if line.startswith("lit_rl: ")]
        assert code == 2 and len(lines) == 1 and said in lines[0], err
        assert not (tmp_path / "out").exists()
