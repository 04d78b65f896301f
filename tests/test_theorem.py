"""The symbolic proofs hold, fail where they must, and agree with autograd."""

from itertools import product
from math import prod

import pytest
import sympy
import torch
from sympy import Add, Integer, Rational

from lit_rl.exact import theorem
from lit_rl.exact.theorem import GAMMA, SymbolicTree, attention, minus, prove, reward_to_go, symbol, token_rewards, zero

TREE, T = SymbolicTree(2, 3), 3
RESPONSES = list(product(range(2), repeat=T))
STATES = [state for depth in range(T) for state in product(range(2), repeat=depth)]
PSI = SymbolicTree.score


def unbiased(weight, value) -> bool:
    """sum_t E[weight(W, t) psi_t] = grad E[value(W)]."""
    return zero(*minus(TREE.estimator(weight), TREE.gradient(value)))


def noncausal_rewards(w) -> list:
    return [symbol(f"r_{t}", w) for t in range(1, T + 1)]


def test_every_statement_holds():
    lines = prove()
    assert len({line.name for line in lines}) == len(lines) == 9
    assert [line.name for line in lines if not line.holds] == []
    assert all(line.claim.isascii() and line.sizes == "V=2 T=2, V=2 T=3, V=3 T=2" for line in lines)


STATEMENTS = {holds.__name__.replace("_", " ") for holds in theorem.STATEMENTS}
REDISTRIBUTION = {"redistribution bias", "redistribution return"}
DISCOUNTING = {"discounting bias", "discounting curl"}
OF_TOKENS = {"trajectory policy gradient theorem", "advantages"}
BROKEN = {
    "a score not centred": (
        "SymbolicTree.score",
        lambda self, logit, w: Integer(w[: len(logit[0]) + 1] == (*logit[0], logit[1])),
        STATEMENTS - {"advantages"},
    ),
    "a score of the wrong scale": ("SymbolicTree.score", lambda *args: 2 * PSI(*args), {"softmax"}),
    "rewards to go that leave out r_t": (
        "reward_to_go",
        lambda rewards, t, discount: reward_to_go(rewards, t + 1, discount),
        OF_TOKENS | DISCOUNTING | {"redistribution bias"},
    ),
    "rewards of other tokens": ("token_rewards", lambda w: token_rewards(w[::-1]), OF_TOKENS),
    "attention of any sum": ("attention", lambda w: [*attention(w)[:-1], symbol("alpha", w)], REDISTRIBUTION),
    "one reward for all responses": ("response_reward", lambda w: symbol("R", ()), DISCOUNTING),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_parts_are_reported(monkeypatch, case):
    part, broken, failing = BROKEN[case]
    monkeypatch.setattr(f"lit_rl.exact.theorem.{part}", broken)
    assert {line.name for line in prove([(2, 2)]) if not line.holds} == failing


def test_every_statement_can_fail():
    assert set.union(*(failing for _, _, failing in BROKEN.values())) == STATEMENTS


def test_baseline_of_the_action_is_not_neutral():
    assert zero(*TREE.estimator(lambda w, t: symbol("b", w[: t - 1])))
    assert not zero(*TREE.estimator(lambda w, t: symbol("b", w[:t])))


@pytest.mark.parametrize("position", range(1, T + 1))
def test_every_position_of_the_return_is_needed(position):
    def without(w):
        return theorem.discounted_return(w) - GAMMA ** (position - 1) * token_rewards(w)[position - 1]

    assert unbiased(lambda w, t: without(w), without)
    assert not unbiased(lambda w, t: without(w), theorem.discounted_return)


def test_rewards_to_go_need_causal_rewards():
    """Rewards known only at the end must all weigh every token."""
    total = lambda w: Add(*noncausal_rewards(w))
    assert unbiased(lambda w, t: total(w), total)
    assert not unbiased(lambda w, t: Add(*noncausal_rewards(w)[t - 1 :]), total)
    assert unbiased(lambda w, t: Add(*token_rewards(w)[t - 1 :]), lambda w: Add(*token_rewards(w)))


def test_rewards_to_go_need_the_outer_discount():
    components = minus(
        TREE.estimator(lambda w, t: reward_to_go(token_rewards(w), t, GAMMA)),
        TREE.gradient(theorem.discounted_return),
    )
    assert not zero(*components) and zero(*(x.subs(GAMMA, 1) for x in components))


def test_redistribution_is_biased_for_uniform_attention_too(monkeypatch):
    """What comes before a token is no baseline though alpha be a constant, for R is known at the end only."""
    monkeypatch.setattr(theorem, "attention", lambda w: [Rational(1, len(w))] * len(w))
    assert theorem.redistribution_bias(TREE) and theorem.redistribution_return(TREE)


def at(numbers, expressions) -> torch.Tensor:
    return torch.tensor(sympy.lambdify(list(numbers), expressions)(*numbers.values()), dtype=torch.float64)


def test_autograd_agrees():
    """Gradient, both estimators of the theorem, and the field with its curl, at random numbers."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    gamma, logits, rewards = 0.7, draw(len(STATES), 2).requires_grad_(), draw(len(STATES), 2)
    terminal = dict(zip(RESPONSES, draw(len(RESPONSES)).tolist(), strict=True))
    of = {(*s, a): (i, a) for i, s in enumerate(STATES) for a in range(2)}
    numbers = {GAMMA: gamma}
    numbers |= {symbol("p", w): logits.softmax(-1)[of[w]].item() for w in of if w[-1] == 0}
    numbers |= {symbol("r", w): rewards[of[w]].item() for w in of}
    numbers |= {symbol("R", w): reward for w, reward in terminal.items()}

    def probability(pi, w):
        return prod(pi[of[w[: t + 1]]] for t in range(T))

    value = sum(
        probability(logits.softmax(-1), w) * sum(gamma**t * rewards[of[w[: t + 1]]] for t in range(T))
        for w in RESPONSES
    )
    (exact,) = torch.autograd.grad(value, logits)
    whole = TREE.estimator(lambda w, t: theorem.discounted_return(w))
    to_go = TREE.estimator(lambda w, t: GAMMA ** (t - 1) * reward_to_go(token_rewards(w), t, GAMMA))
    for expressions in (TREE.gradient(theorem.discounted_return), whole, to_go):
        torch.testing.assert_close(at(numbers, expressions), exact.flatten())

    def field(theta):
        pi, log_pi = theta.softmax(-1), theta.log_softmax(-1)
        log_steps = lambda w: sum(gamma ** (T - 1 - t) * log_pi[of[w[: t + 1]]] for t in range(T))
        psi = [torch.autograd.grad(log_steps(w), theta, create_graph=True)[0] for w in RESPONSES]
        return sum(probability(pi, w) * terminal[w] * x for w, x in zip(RESPONSES, psi, strict=True)).flatten()

    symbolic = theorem.common_discounting(TREE)
    torch.testing.assert_close(at(numbers, symbolic), field(logits).detach())
    jacobian = torch.autograd.functional.jacobian(field, logits.detach()).flatten(1)
    derivatives = [[TREE.derivative(f, logit) for logit in TREE.logits] for f in symbolic]
    torch.testing.assert_close(at(numbers, derivatives), jacobian)
    assert (jacobian - jacobian.T).abs().max() > 1e-3
