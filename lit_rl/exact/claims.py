"""What the certificate claims of each estimator. A new algorithm adds its lines here or in a file beside this one."""

from functools import partial
from typing import Any

import torch

from lit_rl.algorithms import ABC, PPO, RLOO, RTO, OnlineDPO
from lit_rl.exact.certificate import Build, Claim, penalized
from lit_rl.exact.formulas import (
    NO_CLOSED_FORM,
    UNBIASED,
    Formula,
    by_position,
    decayed,
    kl_penalized,
    length_reward,
    preference,
    redistributed,
    scaled,
)
from lit_rl.exact.group_claims import baselines, groups, like_grpo, responses, second_steps
from lit_rl.exact.learned import (
    at_reference,
    attention,
    by_attention,
    exactly,
    from_uniform,
    random_errors,
    randomly,
    rto_objective,
    with_critic,
)
from lit_rl.exact.small_tasks import GATE, LATE_EOS, LONG, PAIRS, PARITY, SAMPLED, SUM_EOS
from lit_rl.exact.turn_claims import ALONE, KL, trepo, turn_claims
from lit_rl.functional.cuts import Bernoulli, Boundary, CutRule, Entropy, Relative, Stride
from lit_rl.policy import CausalPolicy, TokenTransformer
from lit_rl.tasks import PositionTask

FILLS, MASKED = ("segment_td", "hold_mc"), "masked_advantage"
CLIPPED = {"clip_low": 0.2, "clip_high": 0.2}
UNDECIDED = Entropy(0.95)  # cuts some states of the random policy, not all


def claims() -> list[Claim]:
    """All of them, in the order of the report."""
    of_groups = (responses, baselines, groups, like_grpo)
    others = (_prefixes, _interpolations, _reuse, _critics, _preferences, _penalties, _machinery)
    return [claim for family in (*of_groups, *others, second_steps, turn_claims) for claim in family()]


def _prefixes() -> list[Claim]:
    """Fill rules and cut rules that leave the gradient as it is, and the cut rule that does not."""
    half, both = Bernoulli(0.5), (GATE, SUM_EOS)
    rules: dict[str, CutRule] = {"entropy": UNDECIDED, "boundary": Boundary((0,))}
    return [
        *(Claim(f"TRePO {f}", trepo(fill=f), t) for f in ("segment_td", "hold_mc") for t in both),
        *(Claim("TRePO mix 0.5", trepo(fill="mix", mix=0.5), t) for t in both),
        *(Claim("TRePO all_positions", trepo(fill="all_positions", cuts=Stride(1)), t) for t in both),
        *(Claim(f"TRePO {f}, Bernoulli, G=1", trepo(fill=f, cuts=half, **ALONE), SUM_EOS) for f in (*FILLS, MASKED)),
        Claim("TRePO masked_advantage, Bernoulli", trepo(fill=MASKED, cuts=half), GATE),
        *(Claim(f"TRePO {f}, {r}", trepo(fill=f, cuts=rule), SUM_EOS) for r, rule in rules.items() for f in FILLS),
        Claim("TRePO as VinePPO, G=1", trepo(cuts=rules["boundary"], **ALONE, **CLIPPED), SUM_EOS),
        Claim("TRePO segment_td, K=2", trepo(continuations=2), SUM_EOS),
        Claim("TRePO segment_td, G=1", trepo(**ALONE), SUM_EOS),
        *(Claim(f"TRePO {f}, relative", trepo(fill=f, cuts=Relative(2)), LATE_EOS, NO_CLOSED_FORM) for f in FILLS),
    ]


def _interpolations() -> list[Claim]:
    """The fill rules that interpolate, with a cut before every second token."""
    cut = [t % 2 == 0 for t in range(GATE.length)]
    length = [min(2, GATE.length - (t - t % 2)) for t in range(GATE.length)]
    share = [1 - t % 2 / n for t, n in enumerate(length)]
    last = GATE.length - 1
    exact = [float(c and (t == last or cut[t + 1])) for t, c in enumerate(cut)]
    fills: dict[str, Formula] = {
        "linear_value_mc": by_position("sum_t (1 - alpha_t) g_t", share),
        "linear_value_td": by_position("sum_t g_t / L_k", [1 / n for n in length]),
        "linear_advantage": by_position("sum of g_t at exact t", exact),
    }
    nothing = by_position("0: no t is exact", [0.0] * LONG.length)
    chances = by_position("sum_t P(t is exact) g_t", [1 / 2, 1 / 4, 1 / 2])
    random = trepo(fill="linear_advantage", cuts=Bernoulli(0.5))
    return [
        *(Claim(f"TRePO {fill}", trepo(fill=fill), GATE, formula) for fill, formula in fills.items()),
        Claim("TRePO linear_advantage", trepo(fill="linear_advantage"), LONG, nothing),
        Claim("TRePO linear_advantage, Bernoulli", random, GATE, chances),
        *(Claim(f"TRePO {fill}", trepo(fill=fill), SUM_EOS, NO_CLOSED_FORM) for fill in fills),
    ]


def _reuse() -> list[Claim]:
    return [
        *(Claim(f"TRePO {fill}, reuse", trepo(fill=fill, reuse=True), SUM_EOS) for fill in FILLS),
        Claim("TRePO as SPO", trepo(reuse=True, **CLIPPED), SUM_EOS),
        Claim("TRePO segment_td, reuse, K=2", trepo(reuse=True, continuations=2), SUM_EOS),
        Claim("TRePO segment_td, reuse, stride 1", trepo(reuse=True, cuts=Stride(1)), GATE),
        Claim("TRePO segment_td, reuse, G=1", trepo(reuse=True, **ALONE), SUM_EOS),
        Claim("TRePO segment_td, reuse, Bernoulli, G=1", trepo(reuse=True, cuts=Bernoulli(0.5), **ALONE), SUM_EOS),
        Claim("TRePO segment_td, reuse, entropy, G=1", trepo(reuse=True, cuts=UNDECIDED, **ALONE), SUM_EOS),
    ]


def _critics() -> list[Claim]:
    """PPO with random critics, and its descendants with other random models."""
    decay, both = 0.5, (PAIRS, SUM_EOS)

    def ppo(task: PositionTask, offset: float | None = None, **settings: Any) -> Build:
        return with_critic(partial(PPO, **settings), randomly if offset is None else exactly(task, offset))

    decayed_ = decayed(decay, random_errors)
    variants: dict[str, dict[str, Any]] = {
        "PPO": {},
        "PPO, shared trunk": {"critic": "shared"},
        "PPO, full return": {"weighting": "full"},
    }
    off = Claim("PPO lambda=0.5, V + 0.2", ppo(SUM_EOS, 0.2, lambda_actor=decay), SUM_EOS, length_reward(decay, 0.2))
    spread = 0.5
    moved = redistributed(spread, attention)
    rto, objective = partial(RTO, kl_coefficient=KL), rto_objective(KL)
    return [
        *(Claim(name, ppo(t, **settings), t) for name, settings in variants.items() for t in both),
        *(Claim("PPO lambda=0.5", ppo(t, lambda_actor=decay), t, decayed_) for t in both),
        Claim("PPO lambda=0.5, exact V", ppo(SUM_EOS, 0.0, lambda_actor=decay), SUM_EOS),
        off,
        Claim("PPO lambda by length", ppo(PAIRS, lambda_by_length=2 / 3), PAIRS, decayed_),  # of 3 tokens: 0.5
        Claim("PPO lambda by length, exact V", ppo(PAIRS, 0.0, lambda_by_length=2 / 3), PAIRS),
        Claim("PPO lambda by length, exact V", ppo(SUM_EOS, 0.0, lambda_by_length=2 / 3), SUM_EOS, NO_CLOSED_FORM),
        Claim("PPO, whitened, G=2", ppo(SUM_EOS, samples=2, whiten=True), SUM_EOS, NO_CLOSED_FORM),
        Claim("RTO, reward-to-go", from_uniform(rto), SUM_EOS, objective),
        Claim("RTO, full return", from_uniform(partial(rto, weighting="full")), SUM_EOS, objective),
        *(Claim("ABC, reward-to-go", by_attention(partial(ABC, beta=spread)), t, moved) for t in both),
        *(Claim("ABC, full return", by_attention(partial(ABC, weighting="full")), t) for t in both),
    ]


def _preferences() -> list[Claim]:
    beta = 0.3

    def dpo(samples: int) -> Build:
        return at_reference(partial(OnlineDPO, samples=samples, beta=beta))

    return [
        Claim("OnlineDPO G=2", dpo(2), PARITY, scaled("beta grad J", beta)),
        *(Claim(f"OnlineDPO G={g}", dpo(g), SUM_EOS, preference(g, beta)) for g in (2, 3)),
    ]


def _penalties() -> list[Claim]:
    estimators: dict[str, Build] = {"RLOO G=2": partial(RLOO, samples=2), "TRePO segment_td": trepo()}
    return [
        Claim(f"{name}, KL in the reward", penalized(build, KL), SUM_EOS, kl_penalized(KL))
        for name, build in estimators.items()
    ]


def _machinery() -> list[Claim]:
    """The same with the gradients of a transformer, and sampled where there is too much to enumerate."""
    return [
        Claim("RLOO G=2", partial(RLOO, samples=2), PAIRS, UNBIASED, _transformer),
        Claim("TRePO segment_td", trepo(), PAIRS, UNBIASED, _transformer),
        Claim("TRePO segment_td, G=4, K=2", trepo(samples=4, continuations=2), SAMPLED),
        Claim("TRePO segment_td, G=4, K=2, reuse", trepo(samples=4, continuations=2, reuse=True), SAMPLED),
    ]


def _transformer(task: PositionTask) -> CausalPolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = TokenTransformer(task.vocabulary, task.length, hidden_size=16, layers=1, heads=2).double()
        for parameter in policy.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)  # far from uniform
    return policy
