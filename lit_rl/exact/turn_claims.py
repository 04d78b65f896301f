"""What the certificate claims of estimators where an environment answers in between, by chance."""

from functools import partial
from typing import Any

from lit_rl.algorithms import (
    ABC,
    CISPO,
    GRPO,
    GSPO,
    P3O,
    PPO,
    REINFORCE,
    RLOO,
    RLZVP,
    RTO,
    OnlineDPO,
    OptimalBaseline,
    REINFORCEPlusPlus,
    ReMax,
    TRePO,
)
from lit_rl.algorithms.placements import AsEarned
from lit_rl.exact.certificate import Build, Claim, penalized
from lit_rl.exact.dialogue import TwoTurns
from lit_rl.exact.formulas import (
    NO_CLOSED_FORM,
    Formula,
    by_position,
    decayed,
    kl_penalized,
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
from lit_rl.functional.cuts import Bernoulli, Entropy, Stride, Turns

TWO_TURNS = TwoTurns()
KL = 0.1
ALONE = {"samples": 1, "root": "continuations"}  # no siblings


def turn_claims() -> list[Claim]:
    """The estimators on :class:`TwoTurns`, in the order of the report; TRePO cuts where the policy speaks again."""
    at_turns, decay, task = partial(trepo, cuts=Turns()), 0.5, TWO_TURNS
    best = partial(OptimalBaseline, samples=3)
    unscaled: dict[str, Any] = {"scale_by_std": False, "normalizer": "row_sum"}
    unbiased: dict[str, Build] = {
        "REINFORCE": REINFORCE,
        "ReMax": ReMax,
        "RLOO G=2": partial(RLOO, samples=2),
        "P3O": P3O,
        "OptimalBaseline G=3": best,
        **{f"OptimalBaseline per {per}, G=3": partial(best, per=per) for per in ("token", "prefix")},
        **{f"TRePO {fill}, turns": at_turns(fill=fill) for fill in ("segment_td", "hold_mc")},
        "TRePO segment_td, turns, K=2": at_turns(continuations=2),
        "TRePO segment_td, turns, reuse": at_turns(reuse=True),
        "TRePO segment_td, turns, reuse, G=1": at_turns(reuse=True, **ALONE),
        "TRePO segment_td": trepo(),
        "TRePO segment_td, entropy": trepo(cuts=Entropy(0.5)),
        "TRePO all_positions": trepo(fill="all_positions", cuts=Stride(1)),
        "TRePO masked_advantage, Bernoulli, G=1": trepo(fill="masked_advantage", cuts=Bernoulli(0.5), **ALONE),
        "PPO": with_critic(PPO, randomly),
        "PPO, full return": with_critic(partial(PPO, weighting="full"), randomly),
        "PPO, paid at turns": with_critic(partial(PPO, placement=AsEarned()), randomly),
        "PPO lambda=0.5, exact V": with_critic(partial(PPO, lambda_actor=decay), exactly(task, 0.0)),
        "ABC, full return": by_attention(partial(ABC, weighting="full")),
    }
    exact = by_position("sum of g_t at exact t", [1.0, 0.0, 0.0, 0.0])
    by_turn = by_position("sum_t (1 - n_t / 2G) g_t", [1 / 2, 0.0, 3 / 4, 3 / 4])
    others: list[tuple[str, Build, Formula]] = [
        ("GRPO without std, G=3", partial(GRPO, samples=3, **unscaled), scaled("(1 - 1/G) grad J", 2 / 3)),
        ("GRPO as published, G=3", partial(GRPO, samples=3), NO_CLOSED_FORM),
        ("GSPO, G=3", partial(GSPO, samples=3), NO_CLOSED_FORM),
        ("CISPO, G=3", partial(CISPO, samples=3), NO_CLOSED_FORM),
        ("RLZVP, G=3", partial(RLZVP, samples=3), NO_CLOSED_FORM),
        ("REINFORCEPlusPlus, G=2", partial(REINFORCEPlusPlus, samples=2), NO_CLOSED_FORM),
        ("GRPO without std, paid at turns, G=2", partial(GRPO, samples=2, rewards="turns", **unscaled), by_turn),
        ("TRePO linear_advantage, turns", at_turns(fill="linear_advantage"), exact),
        ("PPO lambda=0.5", with_critic(partial(PPO, lambda_actor=decay), randomly), decayed(decay, random_errors)),
        ("RTO, reward-to-go", from_uniform(partial(RTO, kl_coefficient=KL)), rto_objective(KL)),
        ("ABC, reward-to-go", by_attention(partial(ABC, beta=0.5)), redistributed(0.5, attention)),
        ("OnlineDPO G=2", at_reference(partial(OnlineDPO, samples=2, beta=0.3)), preference(2, 0.3)),
        ("RLOO G=2, KL in the reward", penalized(partial(RLOO, samples=2), KL), kl_penalized(KL)),
        ("TRePO turns, KL in the reward", penalized(at_turns(), KL), kl_penalized(KL)),
    ]
    return [
        *(Claim(name, build, task) for name, build in unbiased.items()),
        *(Claim(name, build, task, formula) for name, build, formula in others),
    ]


def trepo(**settings: Any) -> Build:
    """TRePO of few rows."""
    return partial(TRePO, **{"samples": 2, "continuations": 1, "cuts": Stride(2), **settings})
