"""The trajectory policy gradient theorem (2506.02553) and its neighbours, proved symbolically on small trees.

A tree holds every response W of T tokens from a vocabulary of V; s_t is the prefix before the token a_t, and theta has
one logit per state and token. Softmax probabilities obey d p_a / d theta_b = p_a ([a=b] - p_b), which one lemma shows;
from there on a probability is a symbol of its own, and the two sides of an identity are polynomials in probabilities,
rewards and gamma, equal where their expanded difference is 0.

Throughout, psi_t = grad_theta log pi(a_t|s_t), G_t = sum_{l>=t} gamma^(l-t) r_l and r(W) = G_1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from typing import NamedTuple

import sympy
from sympy import Add, Expr, Integer, Mul, Symbol

Tokens = tuple[int, ...]  # a response, or a prefix of one: a state
Logit = tuple[Tokens, int]

GAMMA, BETA = sympy.symbols("gamma beta")


class Line(NamedTuple):
    """A statement, and whether it holds on every tree."""

    name: str
    claim: str
    sizes: str
    holds: bool


@dataclass(frozen=True)
class SymbolicTree:
    """Every response of ``length`` tokens, and a policy with a free distribution over ``vocabulary`` in every state."""

    vocabulary: int
    length: int

    @property
    def logits(self) -> list[Logit]:
        """The components of theta, as (state, token)."""
        return [(w[:-1], w[-1]) for t in range(1, self.length + 1) for w in product(range(self.vocabulary), repeat=t)]

    def probability(self, state: Tokens, token: int) -> Expr:
        """pi(token|state): a symbol, or for the last token 1 minus the others."""
        if token < self.vocabulary - 1:
            return symbol("p", (*state, token))
        return 1 - Add(*(self.probability(state, other) for other in range(token)))

    def expectation(self, value: Callable[[Tokens], Expr], given: Tokens = ()) -> Expr:
        """E[value(W) | W begins with ``given``]."""
        depths = range(len(given), self.length)
        responses = (given + rest for rest in product(range(self.vocabulary), repeat=len(depths)))
        return Add(*(Mul(value(w), *(self.probability(w[:d], w[d]) for d in depths)) for w in responses))

    def score(self, logit: Logit, w: Tokens) -> Expr:
        """sum_t psi_t at theta(s, b) = [s_t = s] ([a_t = b] - pi(b|s)); s has the one t = len(s) + 1."""
        depth = len(logit[0])
        return Integer(w[depth] == logit[1]) - self.probability(*logit) if w[:depth] == logit[0] else Integer(0)

    def derivative(self, value: Expr, logit: Logit) -> Expr:
        """d value / d theta(s, b), by the chain rule through the free probabilities of s."""
        free = [((*logit[0], a), self.probability(logit[0], a)) for a in range(self.vocabulary - 1)]
        return Add(*(sympy.diff(value, p) * p * self.score(logit, w) for w, p in free))

    def gradient(self, value: Callable[[Tokens], Expr]) -> list[Expr]:
        """grad_theta E[value(W)], a component per logit."""
        expected = self.expectation(value)
        return [self.derivative(expected, logit) for logit in self.logits]

    def estimator(self, weight: Callable[[Tokens, int], Expr]) -> list[Expr]:
        """sum_t E[weight(W, t) psi_t], a component per logit."""

        def component(logit: Logit) -> Expr:
            return self.expectation(lambda w: weight(w, len(logit[0]) + 1) * self.score(logit, w))

        return [component(logit) for logit in self.logits]


def symbol(letter: str, tokens: Tokens) -> Symbol:
    return Symbol(f"{letter}({','.join(map(str, tokens))})")


def reward_to_go(rewards: Sequence[Expr], t: int, discount: Expr) -> Expr:
    """G_t = sum_{l>=t} discount^(l-t) r_l."""
    return Add(*(discount**k * reward for k, reward in enumerate(rewards[t - 1 :])))


def token_rewards(w: Tokens) -> list[Expr]:
    """r_t(s_t, a_t), any function of prefix and token."""
    return [symbol("r", w[:t]) for t in range(1, len(w) + 1)]


def discounted_return(w: Tokens) -> Expr:
    """r(W) = sum_t gamma^(t-1) r_t(s_t, a_t)."""
    return reward_to_go(token_rewards(w), 1, GAMMA)


def response_reward(w: Tokens) -> Expr:
    """R(W), any function of the response."""
    return symbol("R", w)


def attention(w: Tokens) -> list[Expr]:
    """alpha_t(W), which may see the whole response; they sum to 1."""
    free = [symbol(f"alpha_{t}", w) for t in range(1, len(w))]
    return [*free, 1 - Add(*free)]


def redistributed_rewards(w: Tokens) -> list[Expr]:
    """r_t = beta alpha_t R + (1 - beta) R [t = T] (ABC, 2402.00782)."""
    reward = response_reward(w)
    return [reward * (BETA * a + (1 - BETA) * Integer(t == len(w))) for t, a in enumerate(attention(w), 1)]


def zero(*values: Expr) -> bool:
    return all(sympy.expand(value) == 0 for value in values)


def minus(left: Sequence[Expr], right: Sequence[Expr]) -> list[Expr]:
    return [x - y for x, y in zip(left, right, strict=True)]


def softmax(tree: SymbolicTree) -> bool:
    """:meth:`SymbolicTree.derivative` and :meth:`SymbolicTree.score` against derivatives by real logits."""
    tokens = range(tree.vocabulary)
    theta = [Symbol(f"theta_{a}", real=True) for a in tokens]
    pi = [sympy.exp(x) / Add(*map(sympy.exp, theta)) for x in theta]
    at_pi = {tree.probability((), a): pi[a] for a in tokens[:-1]}
    rules, differences = [], [Add(*pi) - 1]
    for a, b in product(tokens, tokens):
        probability, score = tree.probability((), a), tree.score(((), b), (a,))
        rules.append(tree.derivative(probability, ((), b)) - probability * score)
        differences.append(sympy.diff(pi[a], theta[b]) - (probability * score).subs(at_pi))
        differences.append(sympy.diff(sympy.log(pi[a]), theta[b]) - score.subs(at_pi))
    return zero(*rules) and all(sympy.simplify(difference) == 0 for difference in differences)


def trajectory_policy_gradient_theorem(tree: SymbolicTree) -> bool:
    """2506.02553: the whole return in every position does what discounted rewards-to-go do."""
    whole = tree.estimator(lambda w, t: discounted_return(w))
    to_go = tree.estimator(lambda w, t: GAMMA ** (t - 1) * reward_to_go(token_rewards(w), t, GAMMA))
    return zero(*minus(whole, to_go), *minus(to_go, tree.gradient(discounted_return)))


def state_baselines(tree: SymbolicTree) -> bool:
    return zero(*tree.estimator(lambda w, t: symbol("b", w[: t - 1])))


def advantages(tree: SymbolicTree) -> bool:
    def q(s: Tokens, a: int) -> Expr:
        reward = symbol("r", (*s, a))
        return reward + GAMMA * v((*s, a)) if len(s) + 1 < tree.length else reward

    def v(s: Tokens) -> Expr:
        return Add(*(tree.probability(s, a) * q(s, a) for a in range(tree.vocabulary)))

    expected = partial(tree.expectation, discounted_return)  # given a prefix
    return zero(*(expected((*s, a)) - expected(s) - GAMMA ** len(s) * (q(s, a) - v(s)) for s, a in tree.logits))


def common_discounting(tree: SymbolicTree) -> list[Expr]:
    """sum_t E[G_t psi_t] for r_t = R [t = T]: G_t = gamma^(T-t) R, without the gamma^(t-1) before it."""
    return tree.estimator(lambda w, t: reward_to_go([Integer(0)] * (len(w) - 1) + [response_reward(w)], t, GAMMA))


def discounting_bias(tree: SymbolicTree) -> bool:
    bias = minus(common_discounting(tree), tree.gradient(response_reward))
    stated = tree.estimator(lambda w, t: (GAMMA ** (tree.length - t) - 1) * response_reward(w))
    return zero(*minus(bias, stated), *(x.subs(GAMMA, 1) for x in bias)) and not zero(*bias)


def discounting_curl(tree: SymbolicTree) -> bool:
    """1906.07073 for a reward at the end: a field with a curl is the gradient of nothing."""
    field = dict(zip(tree.logits, map(sympy.expand, common_discounting(tree)), strict=True))
    expected = tree.expectation(response_reward)
    free = [x for x in tree.logits if x[1] < tree.vocabulary - 1]  # a state's last component is minus its others' sum
    rotates = False
    for x, y in combinations(free, 2):
        curl = sympy.expand(tree.derivative(field[x], y) - tree.derivative(field[y], x))
        factor = GAMMA ** (tree.length - 1 - len(x[0])) - GAMMA ** (tree.length - 1 - len(y[0]))
        if not zero(curl - factor * tree.derivative(tree.derivative(expected, x), y), curl.subs(GAMMA, 1)):
            return False
        rotates = rotates or (factor == GAMMA - 1 and curl != 0)  # (gamma - 1) times a Hessian without gamma
    return rotates


def nonadditive_rewards(tree: SymbolicTree) -> bool:
    estimator = tree.estimator(lambda w, t: response_reward(w) - symbol("b", w[: t - 1]))
    return zero(*minus(estimator, tree.gradient(response_reward)))


def redistribution_bias(tree: SymbolicTree) -> bool:
    """2402.00782: alpha_k R depends on a_t for t > k, so to leave it out is not to subtract a baseline."""
    to_go = tree.estimator(lambda w, t: reward_to_go(redistributed_rewards(w), t, Integer(1)))
    bias = minus(to_go, tree.gradient(response_reward))
    stated = tree.estimator(lambda w, t: -BETA * response_reward(w) * Add(*attention(w)[: t - 1]))
    return zero(*minus(bias, stated)) and not zero(*bias)


def redistribution_return(tree: SymbolicTree) -> bool:
    whole = tree.estimator(lambda w, t: Add(*redistributed_rewards(w)))
    return zero(*minus(whole, tree.gradient(response_reward)))


ABC = "r_t = beta alpha_t R + (1-beta) R [t=T], sum_t alpha_t = 1"
STATEMENTS: dict[Callable[[SymbolicTree], bool], str] = {
    softmax: "d pi(a|s)/d theta(s,b) = pi(a|s) ([a=b] - pi(b|s)), sum_a pi(a|s) = 1",
    trajectory_policy_gradient_theorem: "sum_t E[r(W) psi_t] = sum_t E[gamma^(t-1) G_t psi_t] = grad E[r(W)]",
    state_baselines: "E[sum_t b_t(s_t) psi_t] = 0",
    advantages: "E[r(W)|s_t,a_t] - E[r(W)|s_t] = gamma^(t-1) (Q(s_t,a_t) - V(s_t)), Q and V by Bellman's recursion",
    discounting_bias: "sum_t E[gamma^(T-t) R psi_t] - grad E[R] = sum_t (gamma^(T-t) - 1) E[R psi_t], 0 at gamma = 1",
    discounting_curl: "f = sum_t E[gamma^(T-t) R psi_t] has d f_i/d theta_j - d f_j/d theta_i = (gamma^(T-t_i) - "
    "gamma^(T-t_j)) d^2 E[R]/d theta_i d theta_j, 0 for all i, j and R only at gamma = 1",
    nonadditive_rewards: "sum_t E[(R(W) - b_t(s_t)) psi_t] = grad E[R(W)] for any R(W)",
    redistribution_bias: f"{ABC}: sum_t E[psi_t sum_{{l>=t}} r_l] - grad E[R] = -beta sum_t E[psi_t R "
    "sum_{k<t} alpha_k], not 0 for all R",
    redistribution_return: f"{ABC}: sum_t E[psi_t sum_l r_l] = grad E[R]",
}


def prove(sizes: Sequence[tuple[int, int]] = ((2, 2), (2, 3), (3, 2))) -> list[Line]:
    """Every statement on the trees of ``sizes`` (V, T); V, T >= 2, as one token has neither bias nor curl."""
    trees = [SymbolicTree(*size) for size in sizes]
    named = ", ".join(f"V={tree.vocabulary} T={tree.length}" for tree in trees)
    return [Line(f.__name__.replace("_", " "), claim, named, all(map(f, trees))) for f, claim in STATEMENTS.items()]
