"""The embedded policies are what their cards say."""

import hashlib
import re

import pytest
import torch

from lit_rl.commands.warmstart import RUNGS
from lit_rl.policy import CausalPolicy
from lit_rl.policy.causal import DATA, EMBEDDED
from lit_rl.sampling import LocalSampler, SamplingPlan
from lit_rl.tasks import GSM8KStyle
from lit_rl.tasks.scoring import score_rows, texts_of

PROBLEMS = 48


@pytest.mark.parametrize("name, rung", zip(EMBEDDED, RUNGS.values(), strict=True), ids=RUNGS)
def test_a_card_says_what_its_policy_is_and_does(name, rung):
    """Parameters, hash, task, and greedy accuracy within four standard errors of so few problems."""
    folder = DATA / EMBEDDED[name]
    assert folder == DATA / rung.folder
    card = (folder / "README.md").read_text()
    policy = CausalPolicy(name)
    assert f"{sum(p.numel() for p in policy.parameters()):,} parameters" in card
    assert f"`{hashlib.sha256((folder / 'model.safetensors').read_bytes()).hexdigest()}`" in card
    settings = dict(pair.split("=") for pair in re.search(r"`GSM8KStyle\((.+?)\)`", card)[1].split(", "))
    assert {key: float(value) for key, value in settings.items()} == rung.task

    task = GSM8KStyle(**rung.task, test_size=PROBLEMS)
    examples = list(task.prompts("test"))
    plan = SamplingPlan(samples=1, greedy=True, max_new_tokens=rung.max_new_tokens)
    prompts = [policy.encode_prompt(example["prompt"]) for example in examples]
    rollouts = LocalSampler().sample(policy, prompts, plan, [(i,) for i in range(PROBLEMS)])
    rollouts.examples = examples
    scores = score_rows(task.score, rollouts, texts_of(rollouts, policy.decode), task.scored_by)
    for rows, said in ((~rollouts.trained, "greedy"), (rollouts.trained, "sampled, temperature 1")):
        rate = float(re.search(rf"\| {said} \| ([\d.]+)%", card)[1]) / 100
        error = (rate * (1 - rate) / PROBLEMS) ** 0.5
        assert abs(float(scores[rows].mean()) - rate) < 4 * error, said


def test_an_embedded_policy_has_digits_as_single_tokens():
    for name in EMBEDDED:
        policy = CausalPolicy(name)
        pieces = [policy.decode(torch.tensor([i])) for i in policy.encode_text("1234+5=1239")]
        assert pieces == list("1234+5=1239")
