"""The same question on word problems with larger models and longer responses."""

from dataclasses import replace
from typing import Any

from ablations.config import Config, merge
from ablations.metric_names import KAPPA, NOISE, TOKEN
from ablations.studies import sampling_budget as tiny
from ablations.studies.binary_math_larger import EMBEDDED_MID, ON_A_GPU, SMOLLM2, TAUGHT
from ablations.studies.sampling_budget import CRITICS, RLOO, WORDS, trepo
from ablations.study import Arm, Comparison, Reading, Stage, Study


def _arms(stride: int, task: Config, config: Config, stages: tuple[Stage, ...] = ()) -> tuple[Arm, ...]:
    """Those of the planned comparisons, whose values are measured."""
    pretrained = CRITICS[1]
    arms = []
    for name, model, arguments in (RLOO, pretrained, trepo(stride, 1), trepo(stride, 4), trepo(stride, 1, reuse=True)):
        valued = name in (pretrained[0], trepo(stride, 1)[0], trepo(stride, 4)[0])
        every = (arguments.get("critic_pretraining") or 1000) if valued else 0
        own: Config = {
            "data": {"task": {"class_path": WORDS, "init_args": task}},
            "value_accuracy": {"every_n_iterations": every, "prompts": 1, "stride": stride},
        }
        arms.append(tiny.measured(WORDS, name, model, arguments, merge(own, config), stages))
    return tuple(arms)


def _study(scale: str, stride: int, arms: tuple[Arm, ...], **others: Any) -> Study:
    long, reuse, four = trepo(stride, 1)[0], trepo(stride, 1, reuse=True)[0], trepo(stride, 4)[0]

    def planned(arm: str, against: str, predicted: Any, because: str, cost: str = TOKEN) -> Comparison:
        name = f"{arm} against {against}" + ("" if cost == TOKEN else " where a trained token costs 4")
        return Comparison((f"{WORDS} {arm}",), (f"{WORDS} {against}",), predicted, because, name, f"{NOISE}{cost}")

    return replace(
        tiny.STUDY,
        scale=scale,
        baseline=f"{WORDS} RLOO",
        comparisons=(
            planned(long, "RLOO", "above", "one continuation a cut is noisy and costs as many tokens again"),
            planned(reuse, long, "below", "the continuations are on-policy responses as well"),
            planned("PPO, pretrained", long, "below", "a fitted critic's values cost nothing more"),
            planned(four, "RLOO", "below", "then continuations, which are not trained on, are cheap", f"{KAPPA}4"),
        ),
        arms=arms,
        seeds=tuple(range(8)),
        **others,
    )


MID_STRIDE, SMALL_STRIDE = 48, 32
GROUPS: Config = {"prompts_per_iteration": 12, "rows_per_microbatch": 48}

MID = _study(
    "mid",
    MID_STRIDE,
    _arms(
        MID_STRIDE,
        {"steps": 4, "most_steps": 8},
        {
            "model": {"max_new_tokens": 208, "policy": EMBEDDED_MID},
            "data": GROUPS,
        },
    ),
    hours=2.0,
    reading=Reading(
        "On responses of 70 to 150 tokens one continuation a cut costs more than it takes away; training on the "
        "continuations, too, wins most of that back. A pretrained critic has about a quarter of that noise, though "
        "its values are further from the truth than a constant: it is the height of the baseline that counts.",
        ("above", "below", "below", "unresolved"),
    ),
    notes=(
        "Mechanism, not language models: the embedded policy of 3.2M parameters as it was warm-started, on problems of "
        "four to eight steps in 70 to 150 tokens.",
        *tiny.STUDY.notes[1:2],
        "All seeds measure one and the same policy.",
        "Values are those of one prompt's four responses a seed. Seconds were taken on a machine that had other work.",
    ),
)

SMALL = _study(
    "small",
    SMALL_STRIDE,
    _arms(
        SMALL_STRIDE,
        {"steps": 3},
        {
            "model": {
                "max_new_tokens": 160,
                "policy": SMOLLM2,
                "start": f"{{{TAUGHT.name}}}/last.ckpt",
                "reference": False,
            },
            "data": GROUPS,
        },
        (TAUGHT,),
    ),
    base=merge(tiny.STUDY.base, ON_A_GPU),
    hours=None,
    reading=Reading(
        "With SmolLM2-135M, too, one continuation a cut costs more than it takes away: at equal generated tokens there "
        "is half as much noise again as RLOO's, and a pretrained critic has less than half of TRePO's. Neither "
        "training on the continuations nor four of them where a trained token costs four makes up for it, as far as "
        "eight seeds can tell.",
        ("above", "unresolved", "below", "unresolved"),
    ),
    smoke={
        "model": {"init_args": {"max_new_tokens": 40}},
        "data": {"prompts_per_iteration": 2, "rows_per_microbatch": 2},
        "trainer": {"max_epochs": 2, "precision": "32-true"},
        "value_accuracy": {"prompts": 1, "continuations": 2},
    },
    notes=(
        "SmolLM2-135M-Instruct after 3,072 demonstrations of problems of three steps, wrong operators among them: it "
        "gets 27 % of its samples right. It was taught anew on a second machine, so that seeds 5 to 7 start from "
        "another one than seeds 0 to 4; all arms of a seed start from the same. The eight "
        "seeds measure two policies, not eight.",
        *tiny.STUDY.notes[1:2],
        "One H100, mixed precision in bf16. Values are those of one prompt's four responses a seed. Seconds are of "
        "cells that shared the GPU.",
    ),
)
