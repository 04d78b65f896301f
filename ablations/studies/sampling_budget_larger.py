"""The same question on word problems with larger models and longer responses."""

from dataclasses import replace
from typing import Any

from ablations.config import Config, merge, nested
from ablations.metric_names import KAPPA, NOISE, TOKEN
from ablations.studies import sampling_budget as tiny
from ablations.studies.larger_models import EMBEDDED_MID, ON_A_GPU, SMOLLM2, TAUGHT
from ablations.studies.parts import SMALL_MODELS
from ablations.studies.sampling_budget import ONE_SCALE, PRETRAINED, RLOO, WORDS, trepo
from ablations.study import Arm, Comparison, Prediction, Reading, Stage, Study

MID_STRIDE, SMALL_STRIDE = 48, 32
GROUPS: Config = {"data.prompts_per_iteration": 12, "data.rows_per_microbatch": 48}


def _arms(stride: int, config: Config, stages: tuple[Stage, ...] = ()) -> tuple[Arm, ...]:
    """Those of the planned comparisons, whose values are measured."""
    arms = []
    for named in (RLOO, PRETRAINED, trepo(stride, 1), trepo(stride, 4), trepo(stride, 1, reuse=True)):
        valued = named in (PRETRAINED, trepo(stride, 1), trepo(stride, 4))
        every = (named[1].pretraining or 1000) if valued else 0
        values = {
            f"value_accuracy.{key}": n for key, n in (("every_n_iterations", every), ("prompts", 1), ("stride", stride))
        }
        arms.append(tiny.measured(WORDS, named, {"data.task": WORDS, **GROUPS, **values, **config}, stages))
    return tuple(arms)


def _study(scale: str, stride: int, arms: tuple[Arm, ...], **others: Any) -> Study:
    long, reuse, four = trepo(stride, 1)[0], trepo(stride, 1, reuse=True)[0], trepo(stride, 4)[0]

    def planned(arm: str, against: str, predicted: Prediction, because: str, cost: str = TOKEN) -> Comparison:
        name = f"{arm} against {against}" + ("" if cost == TOKEN else ", training a token costs 4 generated ones")
        return Comparison.between(arm, against, predicted, because, name, f"{NOISE}{cost}", (WORDS,))

    return replace(
        tiny.STUDY,
        scale=scale,
        baseline=f"{WORDS} RLOO",
        comparisons=(
            planned(long, "RLOO", "above", "one continuation per cut is noisy and costs as many tokens again"),
            planned(reuse, long, "below", "the continuations are on-policy responses as well"),
            planned("PPO, pretrained", long, "below", "the values of a fitted critic cost no further tokens"),
            planned(four, "RLOO", "below", "continuations, which are not trained on, are then cheap", f"{KAPPA}4"),
        ),
        arms=arms,
        seeds=tuple(range(8)),
        measured_kappa=None,  # that is of smaller models
        **others,
    )


MID = _study(
    "mid",
    MID_STRIDE,
    _arms(
        MID_STRIDE,
        {
            "data.task.steps": 4,
            "data.task.most_steps": 8,
            "model.max_new_tokens": 208,
            "model.policy": EMBEDDED_MID,
        },
    ),
    hours=2.0,
    reading=Reading(
        "On responses of 70 to 150 tokens, one continuation from each cut (K = 1) costs more than it saves: at equal "
        "generated tokens TRePO's gradient has more noise than RLOO's. Training on the continuations as well (reuse) "
        "wins most of that back. A pretrained critic has about a quarter of TRePO's noise, although its values are "
        "further from the truth than a constant: what counts is the height of the baseline.",
        ("above", "below", "below", "unresolved"),
    ),
    notes=(
        f"{SMALL_MODELS} Here it is the embedded policy of 3.2M parameters, as it was warm-started, on problems of "
        "four to eight steps in 70 to 150 tokens.",
        ONE_SCALE,
        "All seeds measure one and the same policy.",
        "Values are those of one prompt's four responses per seed.",
        "Seconds were taken on a machine that had other work.",
    ),
)

SMALL = _study(
    "small",
    SMALL_STRIDE,
    _arms(
        SMALL_STRIDE,
        {
            "data.task.steps": 3,
            "model.max_new_tokens": 160,
            "model.policy": SMOLLM2,
            "model.start": TAUGHT.checkpoint,
            "model.reference": False,
        },
        (TAUGHT,),
    ),
    base=merge(tiny.STUDY.base, nested(ON_A_GPU)),
    gpus_per_cell=1.0,
    hours=None,
    reading=Reading(
        "With SmolLM2-135M, too, one continuation from each cut (K = 1) costs more than it saves: at equal generated "
        "tokens TRePO's gradient has half as much noise again as RLOO's. A pretrained critic has less than half of "
        "TRePO's noise. Neither training on the continuations (reuse), nor four continuations per cut where training "
        "a token costs as much as generating four, makes up for it as far as eight seeds can tell.",
        ("above", "unresolved", "below", "unresolved"),
    ),
    smoke={
        "model.max_new_tokens": 40,
        "data.prompts_per_iteration": 2,
        "data.rows_per_microbatch": 2,
        "trainer.max_epochs": 2,
        "trainer.precision": "32-true",
        "value_accuracy.prompts": 1,
        "value_accuracy.continuations": 2,
    },
    notes=(
        f"{SMALL_MODELS} Here it is SmolLM2-135M-Instruct after 3,072 demonstrations of problems of three steps, some "
        "with wrong operators; 27 % of its samples are right.",
        "The eight seeds measure two policies, not eight: it was taught again on a second machine, so that seeds 5 "
        "to 7 have another start than seeds 0 to 4. All arms of a seed have the same start.",
        ONE_SCALE,
        "Values are those of one prompt's four responses per seed.",
        "One H100, mixed precision in bf16. Seconds are those of cells that shared the GPU.",
    ),
)
