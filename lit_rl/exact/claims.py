"""What the certificate claims of each estimator. A new algorithm adds its lines here."""

from functools import partial
from typing import Any

import torch

from lit_rl.algorithms import ABC, GRPO, P3O, PPO, REINFORCE, RLOO, RTO, OnlineDPO, OptimalBaseline, ReMax, TRePO
from lit_rl.exact.certificate import Build, Claim, penalized
from lit_rl.exact.formulas import (
    NO_CLOSED_FORM,
    UNBIASED,
    Formula,
    by_position,
    decayed,
    grpo_std,
    kl_penalized,
    length_reward,
    plug_in_baseline,
    preference,
    redistributed,
    scaled,
)
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
from lit_rl.exact.second_step import clipped, earlier_policy, joint, of_pairs, of_responses
from lit_rl.functional.cuts import Bernoulli, Boundary, CutRule, Entropy, Relative, Stride
from lit_rl.policy import CausalPolicy, TokenTransformer
from lit_rl.tasks import Additive, Bottleneck, KeyToken, Pairwise, Parity, PositionTask

# rewards of one token, of neighbours, of several tokens at once, of all; two lengths fixed, two varied
PAIRS, SUM_EOS = Pairwise(2, 3), Additive(3, 3, eos=True)
PARITY, KEY_EOS = Parity(2, 3), KeyToken(3, 3, eos=True, position=1)
GATE, LONG, LATE_EOS = Bottleneck(2, 3), Pairwise(2, 4), KeyToken(3, 4, eos=True, position=2)
SAMPLED = Parity(2, 4)
KL = 0.1
FILLS, MASKED = ("segment_td", "hold_mc"), "masked_advantage"
ALONE = {"samples": 1, "root": "continuations"}  # no siblings
UNDECIDED = Entropy(0.95)  # cuts some states of the random policy, not all


def claims() -> list[Claim]:
    """All of them, in the order of the report."""
    families = (
        _responses,
        _baselines,
        _groups,
        _prefixes,
        _interpolations,
        _reuse,
        _critics,
        _preferences,
        _penalties,
        _machinery,
    )
    return [claim for family in (*families, _second_steps) for claim in family()]


def _responses() -> list[Claim]:
    estimators: dict[str, Build] = {
        "REINFORCE": REINFORCE,
        "ReMax": ReMax,
        "RLOO G=2": partial(RLOO, samples=2),
        "RLOO G=3": partial(RLOO, samples=3),
    }
    return [Claim(name, build, task) for name, build in estimators.items() for task in (PAIRS, SUM_EOS)]


def _baselines() -> list[Claim]:
    best = partial(OptimalBaseline, samples=3)
    return [
        *(Claim("P3O", P3O, task) for task in (PAIRS, SUM_EOS)),
        *(Claim("OptimalBaseline G=3", best, task) for task in (PAIRS, SUM_EOS)),
        *(Claim(f"OptimalBaseline per {per}, G=3", partial(best, per=per), SUM_EOS) for per in ("token", "prefix")),
        Claim(
            "OptimalBaseline, own return too, G=2",
            partial(OptimalBaseline, samples=2, leave_one_out=False),
            SUM_EOS,
            plug_in_baseline(),
        ),
    ]


def _groups() -> list[Claim]:
    plain = partial(GRPO, samples=3, scale_by_std=False)
    scaled_up = partial(GRPO, samples=3, normalizer="row_sum")
    shrunk = scaled("(1 - 1/G) grad J", 2 / 3)
    published = Claim("GRPO as published, G=3", partial(GRPO, samples=3), PARITY, grpo_std(3, PARITY.length))
    return [
        *(Claim("GRPO without std, G=3", partial(plain, normalizer="row_sum"), t, shrunk) for t in (PAIRS, SUM_EOS)),
        *(
            Claim("Dr.GRPO, G=3", partial(plain, normalizer="constant"), t, scaled("(1 - 1/G) grad J / T", 2 / 9))
            for t in (PAIRS, SUM_EOS)
        ),
        *(Claim("GRPO with std, G=3", scaled_up, t, grpo_std(3)) for t in (PARITY, KEY_EOS)),
        Claim("GRPO with std, G=3", scaled_up, PAIRS, NO_CLOSED_FORM),
        published,
        Claim("GRPO as published, G=3", published.build, KEY_EOS, NO_CLOSED_FORM),
        Claim("GRPO, 1/length alone, G=3", partial(plain, normalizer="sequence_mean"), SUM_EOS, NO_CLOSED_FORM),
        Claim("DAPO's loss, G=2", partial(GRPO, samples=2, normalizer="token_mean"), SUM_EOS, NO_CLOSED_FORM),
    ]


def _trepo(**settings: Any) -> Build:
    return partial(TRePO, **{"samples": 2, "continuations": 1, "cuts": Stride(2), **settings})


def _prefixes() -> list[Claim]:
    """Fill rules and cut rules that leave the gradient as it is, and the cut rule that does not."""
    half, both = Bernoulli(0.5), (GATE, SUM_EOS)
    rules: dict[str, CutRule] = {"entropy": UNDECIDED, "boundary": Boundary((0,))}
    return [
        *(Claim(f"TRePO {f}", _trepo(fill=f), t) for f in ("segment_td", "hold_mc") for t in both),
        *(Claim("TRePO mix 0.5", _trepo(fill="mix", mix=0.5), t) for t in both),
        *(Claim("TRePO all_positions", _trepo(fill="all_positions", cuts=Stride(1)), t) for t in both),
        *(Claim(f"TRePO {f}, Bernoulli, G=1", _trepo(fill=f, cuts=half, **ALONE), SUM_EOS) for f in (*FILLS, MASKED)),
        Claim("TRePO masked_advantage, Bernoulli", _trepo(fill=MASKED, cuts=half), GATE),
        *(Claim(f"TRePO {f}, {r}", _trepo(fill=f, cuts=rule), SUM_EOS) for r, rule in rules.items() for f in FILLS),
        Claim("TRePO segment_td, K=2", _trepo(continuations=2), SUM_EOS),
        Claim("TRePO segment_td, G=1", _trepo(**ALONE), SUM_EOS),
        *(Claim(f"TRePO {f}, relative", _trepo(fill=f, cuts=Relative(2)), LATE_EOS, NO_CLOSED_FORM) for f in FILLS),
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
    random = _trepo(fill="linear_advantage", cuts=Bernoulli(0.5))
    return [
        *(Claim(f"TRePO {fill}", _trepo(fill=fill), GATE, formula) for fill, formula in fills.items()),
        Claim("TRePO linear_advantage", _trepo(fill="linear_advantage"), LONG, nothing),
        Claim("TRePO linear_advantage, Bernoulli", random, GATE, chances),
        *(Claim(f"TRePO {fill}", _trepo(fill=fill), SUM_EOS, NO_CLOSED_FORM) for fill in fills),
    ]


def _reuse() -> list[Claim]:
    return [
        *(Claim(f"TRePO {fill}, reuse", _trepo(fill=fill, reuse=True), SUM_EOS) for fill in FILLS),
        Claim("TRePO segment_td, reuse, K=2", _trepo(reuse=True, continuations=2), SUM_EOS),
        Claim("TRePO segment_td, reuse, stride 1", _trepo(reuse=True, cuts=Stride(1)), GATE),
        Claim("TRePO segment_td, reuse, G=1", _trepo(reuse=True, **ALONE), SUM_EOS),
        Claim("TRePO segment_td, reuse, Bernoulli, G=1", _trepo(reuse=True, cuts=Bernoulli(0.5), **ALONE), SUM_EOS),
        Claim("TRePO segment_td, reuse, entropy, G=1", _trepo(reuse=True, cuts=UNDECIDED, **ALONE), SUM_EOS),
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
    estimators: dict[str, Build] = {"RLOO G=2": partial(RLOO, samples=2), "TRePO segment_td": _trepo()}
    return [
        Claim(f"{name}, KL in the reward", penalized(build, KL), SUM_EOS, kl_penalized(KL))
        for name, build in estimators.items()
    ]


def _machinery() -> list[Claim]:
    """The same with the gradients of a transformer, and sampled where there is too much to enumerate."""
    return [
        Claim("RLOO G=2", partial(RLOO, samples=2), PAIRS, UNBIASED, _transformer),
        Claim("TRePO segment_td", _trepo(), PAIRS, UNBIASED, _transformer),
        Claim("TRePO segment_td, G=4, K=2", _trepo(samples=4, continuations=2), SAMPLED),
        Claim("TRePO segment_td, G=4, K=2, reuse", _trepo(samples=4, continuations=2, reuse=True), SAMPLED),
    ]


def _second_steps() -> list[Claim]:
    """On responses of the weights before a step, with clipping ranges that differ by side."""
    name, ranges = "E_old[w A psi]", (0.1, 0.4)
    both: dict[str, Any] = {"clip_low": ranges[0], "clip_high": ranges[1]}
    neither: dict[str, Any] = {"clip_low": None, "clip_high": None}
    rows: dict[str, tuple[Build, Formula]] = {
        "RLOO G=2": (partial(RLOO, samples=2, **both), of_pairs(name, clipped(*ranges))),
        "P3O, not clipped": (partial(P3O, **neither), UNBIASED),
        "P3O": (partial(P3O, **both), of_pairs(name, of_responses(*ranges))),
        "P3O, joint": (partial(P3O, clipping="joint", **both), joint(ranges[1])),
    }
    return [
        Claim(f"{row}, second step", build, SUM_EOS, expected, before=earlier_policy)
        for row, (build, expected) in rows.items()
    ]


def _transformer(task: PositionTask) -> CausalPolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = TokenTransformer(task.vocabulary, task.length, hidden_size=16, layers=1, heads=2).double()
        for parameter in policy.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)  # far from uniform
    return policy
