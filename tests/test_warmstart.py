"""The embedded policies are what their cards say."""

import hashlib
import re

import pytest
import torch

from lit_rl.commands.warmstart import RUNGS, accuracies
from lit_rl.commands.warmstart_turns import FOLDER, MAX_NEW_TOKENS, TASKS, solved
from lit_rl.policy import CausalPolicy
from lit_rl.policy.causal import DATA, EMBEDDED
from lit_rl.sampling import LocalSampler, SamplingPlan
from lit_rl.tasks import GSM8KStyle
from lit_rl.tasks.scoring import score_rows, texts_of

PROBLEMS = 48


NAMES = {folder: name for name, folder in EMBEDDED.items()}


def known(folder):
    """A policy by its folder, and its card, which has its size and hash."""
    card = (DATA / folder / "README.md").read_text()
    policy = CausalPolicy(NAMES[folder])
    assert f"{sum(p.numel() for p in policy.parameters()):,} parameters" in card
    assert f"`{hashlib.sha256((DATA / folder / 'model.safetensors').read_bytes()).hexdigest()}`" in card
    return policy, card


@pytest.mark.parametrize("rung", RUNGS.values(), ids=RUNGS)
def test_a_card_says_what_its_policy_is_and_does(rung):
    """Parameters, hash, task, and greedy accuracy within four standard errors of so few problems."""
    policy, card = known(rung.folder)
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


@pytest.mark.parametrize("name", TASKS)
def test_the_card_of_several_turns_says_what_its_policy_does(name):
    """Shares of right demonstrations, and of right responses, within four standard errors; it has much to learn."""
    policy, card = known(FOLDER.name)
    task = type(TASKS[name])(train_size=400, test_size=PROBLEMS)
    shares = re.search(rf"\| `{name}` \| ([\d.]+)% \| ([\d.]+)% \| ([\d.]+)% \|", card).groups()
    shown = sum(solved(task, example) for example in task.prompts("train")) / 400
    metrics = accuracies(policy, task, MAX_NEW_TOKENS)
    found = (shown, 400), (metrics["test/accuracy"], PROBLEMS), (metrics["test/accuracy_sampled"], PROBLEMS)
    for said, (share, n) in zip(map(float, shares), found, strict=True):
        rate = said / 100
        assert abs(share - rate) < 4 * (rate * (1 - rate) / n) ** 0.5
    assert 0.2 < float(shares[2]) / 100 < 0.5


def test_an_embedded_policy_has_digits_as_single_tokens():
    for name in EMBEDDED:
        policy = CausalPolicy(name)
        pieces = [policy.decode(torch.tensor([i])) for i in policy.encode_text("1234+5=1239")]
        assert pieces == list("1234+5=1239")
