"""What the certificate claims of estimators that weigh whole responses, most by comparing those to a prompt."""

from functools import partial
from typing import Any

from lit_rl.algorithms import CISPO, GRPO, GSPO, P3O, REINFORCE, RLOO, RLZVP, OptimalBaseline, REINFORCEPlusPlus, ReMax
from lit_rl.exact.certificate import Build, Claim, random_policy
from lit_rl.exact.formulas import (
    NO_CLOSED_FORM,
    UNBIASED,
    Formula,
    grpo_std,
    plug_in_baseline,
    scaled,
    whitened,
    zero_variance,
)
from lit_rl.exact.second_step import capped, clipped, earlier_policy, joint, of_means, of_pairs, of_responses
from lit_rl.exact.small_tasks import KEY_EOS, PAIRS, PARITY, SUM_EOS


def responses() -> list[Claim]:
    estimators: dict[str, Build] = {
        "REINFORCE": REINFORCE,
        "ReMax": ReMax,
        "RLOO G=2": partial(RLOO, samples=2),
        "RLOO G=3": partial(RLOO, samples=3),
    }
    return [Claim(name, build, task) for name, build in estimators.items() for task in (PAIRS, SUM_EOS)]


def baselines() -> list[Claim]:
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


def groups() -> list[Claim]:
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


def like_grpo() -> list[Claim]:
    """Other ratios than GRPO's, which are all 1 here, and another mean and deviation: of what is one iteration here."""
    over_length, plus = grpo_std(3, PARITY.length), partial(REINFORCEPlusPlus, samples=3)
    normalised = whitened(3, PARITY.length)
    zvp = partial(RLZVP, samples=3, normalizer="row_sum")
    return [
        Claim("GSPO, G=3", partial(GSPO, samples=3), PARITY, over_length),
        Claim("GSPO, G=3", partial(GSPO, samples=3), KEY_EOS, NO_CLOSED_FORM),
        Claim("CISPO, G=3", partial(CISPO, samples=3), PARITY, over_length),
        Claim("CISPO, G=2", partial(CISPO, samples=2), SUM_EOS, NO_CLOSED_FORM),
        *(Claim("RLZVP, not over length, G=3", zvp, task, zero_variance(3, 0.1)) for task in (PARITY, KEY_EOS)),
        Claim("RLZVP, G=3", partial(RLZVP, samples=3), KEY_EOS, NO_CLOSED_FORM),
        Claim("REINFORCEPlusPlus, G=3", plus, PARITY, normalised),
        Claim("REINFORCEPlusPlus, group baseline, G=3", partial(plus, group_baseline=True), PARITY, normalised),
        Claim("REINFORCEPlusPlus, G=2", partial(REINFORCEPlusPlus, samples=2), SUM_EOS, NO_CLOSED_FORM),
    ]


def second_steps() -> list[Claim]:
    """On responses of the weights before a step, with clipping ranges that differ by side; or of another sampler."""
    name, ranges = "E_old[w A psi]", (0.1, 0.4)
    both: dict[str, Any] = {"clip_low": ranges[0], "clip_high": ranges[1]}
    neither: dict[str, Any] = {"clip_low": None, "clip_high": None}
    rows: dict[str, tuple[Build, Formula]] = {
        "RLOO G=2": (partial(RLOO, samples=2, **both), of_pairs(name, clipped(*ranges))),
        "P3O, not clipped": (partial(P3O, **neither), UNBIASED),
        "P3O": (partial(P3O, **both), of_pairs(name, of_responses(*ranges))),
        "GSPO G=2": (partial(GSPO, samples=2, **both), of_pairs(name, of_means(*ranges), scale_by_std=True)),
        "CISPO G=2, not normalised": (
            partial(CISPO, samples=2, normalizer="row_sum", **both),
            of_pairs(name, capped(*ranges), scale_by_std=True),
        ),
        "P3O, joint": (partial(P3O, clipping="joint", **both), joint(ranges[1])),
    }
    cap = 1.4
    corrected = partial(RLOO, samples=2, correct_sampler="truncated", sampler_cap=cap)
    truncated = of_pairs(f"E_old[min(w, {cap}) A psi]", capped(1.0, cap - 1))
    return [
        *(
            Claim(f"{row}, second step", build, SUM_EOS, expected, before=earlier_policy)
            for row, (build, expected) in rows.items()
        ),
        Claim("RLOO G=2, sampler corrected", corrected, SUM_EOS, truncated, before=earlier_policy),
        Claim("RLOO G=2, sampler corrected, agreeing", corrected, SUM_EOS, before=random_policy),
    ]
