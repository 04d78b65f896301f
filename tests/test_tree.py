"""The tree against brute force over whole responses, and against teacher forcing."""

import itertools
import math

import pytest
import torch

from lit_rl.errors import UsageError
from lit_rl.exact.tree import grow
from lit_rl.policy import TabularPolicy, TokenTransformer
from lit_rl.tasks import Additive, Bottleneck, KeyToken, Pairwise, Parity

CASES = [
    (Pairwise(2, 3), "table"),
    (Additive(3, 3, eos=True), "table"),
    (Bottleneck(3, 3), "transformer"),
    (Parity(3, 4, eos=True), "transformer"),
]


def make(task, kind):
    torch.manual_seed(1)
    sizes = (task.vocabulary, task.length, task.eos_id is not None)
    if kind == "table":
        return TabularPolicy(*sizes, spread=1.0)
    policy = TokenTransformer(*sizes, hidden_size=16, layers=2, heads=2)
    for parameter in policy.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return policy


@pytest.fixture(params=CASES, ids=lambda case: f"{type(case[0]).__name__}-{case[1]}")
def tree(request):
    task, kind = request.param
    return grow(make(task, kind), task, temperature=0.7)


def words(task):
    """All finished responses, by trying every sequence of tokens."""
    for n in range(1, task.length + 1):
        for word in itertools.product(range(task.vocabulary), repeat=n):
            ends = task.eos_id is not None and word[-1] == task.eos_id
            if task.eos_id not in word[:-1] and (ends or n == task.length):
                yield word


def brute(tree):
    """Probability and reward of each finished response, one forward pass of the model for each."""
    task, found = tree.task, {}
    for word in words(task):
        with torch.no_grad():
            ids = torch.tensor([[0, *word]])
            logits = tree.policy.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        logprobs = (logits / tree.temperature).log_softmax(-1)
        p = math.exp(sum(float(logprobs[t, token]) for t, token in enumerate(word)))
        found[word] = p, task.score({}, torch.tensor(word), "")
    return found


def value(known, prefix):
    """E[r | prefix]."""
    below = [(p, r) for word, (p, r) in known.items() if word[: len(prefix)] == prefix]
    return sum(p * r for p, r in below) / sum(p for p, _ in below)


def test_leaves_probabilities_and_values_are_those_of_brute_force(tree):
    known = brute(tree)
    leaves = [tuple(ids[:n]) for ids, n in zip(tree.ids.tolist(), tree.lengths.tolist(), strict=True)]
    assert sorted(leaves) == sorted(known)
    assert tree.probability().tolist() == pytest.approx([known[word][0] for word in leaves], rel=1e-6)
    assert tree.rewards.tolist() == [known[word][1] for word in leaves]
    assert float(tree.probability().sum()) == pytest.approx(1, abs=1e-12)
    v, q = tree.along(tree.v, tree.ids, tree.lengths), tree.along(tree.q, tree.ids, tree.lengths)
    for i in range(0, len(leaves), 3):
        for t in range(len(leaves[i])):
            assert float(v[i, t]) == pytest.approx(value(known, leaves[i][:t]), rel=1e-6, abs=1e-9)
            assert float(q[i, t]) == pytest.approx(value(known, leaves[i][: t + 1]), rel=1e-6, abs=1e-9)


def test_distributions_are_those_of_teacher_forcing(tree):
    rollouts = tree.rollouts(torch.arange(len(tree.ids)))
    forced = tree.policy(rollouts, tree.temperature)
    found = tree.along(tree.logprobs, tree.ids, tree.lengths)
    torch.testing.assert_close(found, forced, rtol=0, atol=1e-12)
    _, entropy = tree.policy.logprobs_and_entropy(rollouts, tree.temperature)
    torch.testing.assert_close(tree.along(tree.entropy, tree.ids, tree.lengths), entropy, rtol=0, atol=1e-12)


def test_gradient_by_four_ways(tree):
    """States' advantages, whole rewards, the sum over positions, and autograd through the sum over responses."""
    gradient = tree.gradient()
    logprobs = tree.policy(tree.rollouts(torch.arange(len(tree.ids))), tree.temperature).sum(1)
    objective = (logprobs.exp() * tree.rewards).sum()
    assert objective.item() == pytest.approx(float(tree.objective), abs=1e-14)
    parts = torch.autograd.grad(objective, list(tree.policy.parameters()))
    for other in (
        torch.cat([part.reshape(-1) for part in parts]),
        tree.score_gradient(tree.rewards),
        tree.position_gradients().sum(0),
    ):
        # transformers' Llama normalises in float32 whatever its weights are
        tolerance = 1e-12 if isinstance(tree.policy, TabularPolicy) else 1e-6
        assert float((other - gradient).norm()) < tolerance * float(gradient.norm())


def test_advantages_vanish_on_average_and_responses_are_found_again(tree):
    average = (tree.logprobs.exp() * tree.advantages).sum(1)
    assert float(average.abs().max()) < 1e-14
    assert tree.leaves(tree.ids, tree.lengths).tolist() == list(range(len(tree.ids)))


def test_resolved_variance_grows_to_one_and_shows_where_the_task_decides(tree):
    profile = tree.resolved()
    assert float(profile[0]) == pytest.approx(0, abs=1e-14) and float(profile[-1]) == 1
    assert (profile.diff() > -1e-14).all()
    task = KeyToken(3, 4, position=1)
    key = grow(make(task, "table"), task).resolved()
    assert key.tolist() == pytest.approx([0, float(key[1]), 1, 1, 1]) and float(key[1]) < 1


def test_gram_is_of_the_scores(tree):
    """gradient() is linear in the weights of edges, so its values on single edges are their scores."""
    gram = tree.gram()
    for e, f in ((0, 0), (1, 4), (2, 5)):
        single = [torch.zeros_like(tree.q).view(-1).index_fill(0, torch.tensor(i), 1).view_as(tree.q) for i in (e, f)]
        assert float(gram[e, f]) == pytest.approx(float(tree.gradient(single[0]) @ tree.gradient(single[1])), rel=1e-9)


def test_sixty_five_thousand_responses_and_the_refusal_of_more():
    task = Pairwise(4, 8)
    tree = grow(TabularPolicy(4, 8, spread=1.0), task)
    assert len(tree.ids) == 65_536 and float(tree.probability().sum()) == pytest.approx(1)
    assert float((tree.gradient() - tree.score_gradient(tree.rewards)).norm()) < 1e-12
    with pytest.raises(UsageError, match=r"data.task.length is 10: .* 1,048,576 responses.*262,144.*; lower"):
        grow(TabularPolicy(4, 2), Pairwise(4, 10))
