"""Where TRePO's continuations lower the gradient's noise by more than they cost."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from ablations.config import Config
from ablations.metric_names import KAPPA, NOISE, TOKEN
from ablations.studies.parts import (
    QUIET,
    SMALL_MODELS,
    TWO_STEPS,
    WORDS,
    Algorithm,
    cuts,
    half_trained,
    position_credit,
)
from ablations.study import Arm, Comparison, Prediction, Reading, Stage, Study

SAMPLES, GROUPS = 4, 24  # responses a prompt, prompts an iteration
PRETRAINING = 10  # iterations


class Task(NamedTuple):
    """Its class, size and arguments, and the updates that make a half-trained policy."""

    name: str
    vocabulary: int
    length: int
    arguments: Config
    half: int


TASKS = {
    "Additive": Task("Additive", 4, 8, {}, 24),
    "KeyToken": Task("KeyToken", 4, 8, {"position": 5}, 8),
    "KeyToken, early": Task("KeyToken", 4, 8, {"position": 1}, 8),
    "Bottleneck": Task("Bottleneck", 4, 8, {"positions": [1, 3, 5]}, 18),
    "Parity": Task("Parity", 4, 8, {}, 24),
}
LENGTHS = {
    f"{name}, T={length}": Task(name, 2, length, arguments, half)
    for length in (4, 16)
    for name, arguments, half in (("Additive", {}, 12), ("KeyToken", {"position": 5 * length // 8}, 4))
}
STRIDES, CONTINUATIONS = (1, 2, 4), (1, 2, 4)
Named = tuple[str, Algorithm]


def _named(name: str, model: str, **arguments: Any) -> Named:
    return name, Algorithm(model, GROUPS, {"samples": SAMPLES, **arguments})


def trepo(stride: int, continuations: int, **others: Any) -> Named:
    said = {"root": ", paid root", "reuse": ", reuse", "fill": f", {others.get('fill')}"}
    name = f"TRePO stride {stride}, K={continuations}{''.join(said[key] for key in others)}"
    return _named(name, "TRePO", cuts=cuts("Stride", every=stride), continuations=continuations, **others)


RLOO, PPO = _named("RLOO", "RLOO"), _named("PPO", "PPO")
PRETRAINED = _named("PPO, pretrained", "PPO", critic_pretraining=PRETRAINING)
ENTROPY = _named("TRePO entropy, K=1", "TRePO", cuts=cuts("Entropy", threshold=1.0), continuations=1)
OTHERS = (
    trepo(2, 1, root="continuations"),
    trepo(2, 1, fill="hold_mc"),
    trepo(2, 1, reuse=True),
    trepo(4, 1, reuse=True),
    trepo(4, 4, reuse=True),
    ENTROPY,
)
ALGORITHMS = (RLOO, PPO, PRETRAINED, *(trepo(stride, k) for stride in STRIDES for k in CONTINUATIONS), *OTHERS)
IN_WORDS = (RLOO, PPO, PRETRAINED, *(trepo(stride, k) for stride in (8, 16) for k in (1, 4)), trepo(16, 1, reuse=True))


def measured(task: str, named: Named, config: Config, stages: tuple[Stage, ...] = ()) -> Arm:
    """An arm whose policy stays as it is."""
    name, algorithm = named
    return Arm(f"{task} {name}", {**algorithm.frozen(), **config}, f"{task} RLOO", stages, frozen=True, task=task)


def credited(label: str, task: Task, named: Named) -> Arm:
    """On a half-trained policy of the seed, on a task whose exact credit is known."""
    sizes = {"vocabulary": task.vocabulary, "length": task.length}
    stage = half_trained(label.replace(", ", "-"), task.name, sizes, task.arguments, task.half)
    config = {
        **position_credit(task.name, sizes, task.arguments),
        "model.start": stage.checkpoint,
        # the exact values give the theory's prediction; once, for the policy stays as it is
        "credit.every_n_iterations": 1000 if named == RLOO else 0,
    }
    return measured(label, named, config, (stage,))


def _words(named: Named) -> Arm:
    """On the embedded policy as it was warm-started, in problems of two steps."""
    valued = named != RLOO and "reuse" not in named[1].arguments
    # once: in the first iteration behind pretraining
    every = (named[1].pretraining or 1000) if valued else 0
    values = {"value_accuracy.every_n_iterations": every, "value_accuracy.prompts": 4}
    return measured(WORDS, named, {**TWO_STEPS, **values})


def _planned(
    name: str, arm: Named, against: Named, tasks: Iterable[str], predicted: Prediction, because: str, cost: str = TOKEN
) -> Comparison:
    return Comparison.between(arm[0], against[0], predicted, because, name, f"{NOISE}{cost}", tasks)


TWO, FOUR = trepo(2, 1), trepo(4, 1)
ONE_SCALE = "All of these estimators are unbiased and have one scale, so that their noise can be compared directly."
EARLY, LATE = ("KeyToken, early",), ("Additive", "KeyToken", "Bottleneck", "Parity")

STUDY = Study(
    name="sampling_budget",
    question="Where does TRePO lower the gradient's noise by more than its continuations cost?",
    source="2506.02553 leaves open how many continuations and cuts to take. VinePPO (2410.01679) cuts at reasoning "
    "steps.",
    baseline="KeyToken RLOO",
    primary_metric=f"{NOISE}{TOKEN}",
    comparisons=(
        _planned(
            "TRePO (cuts every 4 tokens, K = 1) against RLOO, an early token decides",
            FOUR,
            RLOO,
            EARLY,
            "below",
            "after the token that decides, values are certain, and the other tokens are told that they earned nothing",
        ),
        _planned(
            "TRePO (cuts every 4 tokens, K = 1) against RLOO, late tokens decide",
            FOUR,
            RLOO,
            LATE,
            "above",
            "little is decided where values are taken, and each has the noise of one continuation",
        ),
        _planned(
            "TRePO (cuts every 4 tokens, K = 1), continuations trained on (reuse) against not",
            trepo(4, 1, reuse=True),
            FOUR,
            TASKS,
            "below",
            "the continuations are on-policy responses as well",
        ),
        _planned(
            "PPO, pretrained against TRePO (cuts every 2 tokens, K = 1)",
            PRETRAINED,
            TWO,
            TASKS,
            "below",
            "the values of a fitted critic cost no further tokens",
        ),
        _planned(
            "TRePO (cuts every 2 tokens, K = 1), prompt's value from continuations against from other responses",
            trepo(2, 1, root="continuations"),
            TWO,
            TASKS,
            "above",
            "the mean of the other responses is free and has less noise",
        ),
        _planned(
            "TRePO (cuts every 4 tokens, K = 4) against RLOO, training a token costs 4 generated ones",
            trepo(4, 4),
            RLOO,
            TASKS,
            "below",
            "continuations, which are not trained on, are then cheap",
            f"{KAPPA}4",
        ),
    ),
    arms=(
        *(credited(task, TASKS[task], named) for task in TASKS for named in ALGORITHMS),
        *(
            credited(label, task, named)
            for label, task in LENGTHS.items()
            for named in (RLOO, trepo(2, 1), *([trepo(4, 1)] if task.length > 4 else []), trepo(2, 1, reuse=True))
        ),
        *(_words(named) for named in IN_WORDS),
    ),
    base={**QUIET, "trainer.accelerator": "cpu", "trainer.check_val_every_n_epoch": 1000},
    seeds=tuple(range(10)),
    hours=1.0,
    kappas=(1.0, 4.0),
    measured_kappa=(0.5, 1.3),
    smoke={"trainer.max_epochs": 2 + PRETRAINING, "data.prompts_per_iteration": 4, "data.rows_per_microbatch": 4},
    reading=Reading(
        "Where an early token decides the reward, TRePO's continuations pay: one from each cut (K = 1) lowers the "
        "noise of the gradient by a third, compared with RLOO at equal generated tokens. Where late tokens or the "
        "whole response decide, continuations cost more than they save until training a token costs about as much as "
        "generating three, and on word problems even then. If its pretraining is not charged, a pretrained critic has "
        "less noise per generated token than RLOO and TRePO, apart from TRePO with cuts every 2 tokens where an early "
        "token decides.",
        ("below", "above", "below", "below", "above", "below"),
    ),
    notes=(
        f"{SMALL_MODELS} Here they are half-trained transformers of one layer over 4 tokens (2 where the length "
        f"differs), one for each seed, and the embedded policy of 0.4M parameters on {WORDS}, as it was warm-started.",
        ONE_SCALE,
        "In KeyToken the token at position 6 of 8 decides, in its early variant that at position 2, and in Bottleneck "
        "three tokens. Comparisons that name no task are means over the five tasks of 8 tokens.",
        "kappa is the cost of training a token, a forward and backward pass, over that of generating it, one step "
        "with a cache. It is varied here; measured, with each prompt and prefix read once, it was 0.5 to 1.1 for the "
        "arms of wall_clock and 0.7 to 1.3 for three models (kappa.csv of performance).",
        "PPO's critic is as large as the policy. Pretrained means ten earlier iterations of as many tokens, not "
        "charged.",
        f"On {WORDS} the pretrained critic is less accurate than the best constant and hardly distinguishes prefixes. "
        "Its noise is low because its baseline is at about the right height.",
        f"On {WORDS} all seeds have the same policy.",
    ),
)
