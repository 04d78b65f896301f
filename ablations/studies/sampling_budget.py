"""Where TRePO's continuations lower the gradient's noise by more than they cost."""

from typing import Any, NamedTuple

from ablations.config import Config
from ablations.metric_names import KAPPA, NOISE, TOKEN
from ablations.studies.policies import POLICY, half_trained
from ablations.study import Arm, Comparison, Reading, Study

SAMPLES, GROUPS, ROUNDS = 4, 24, 4  # responses a prompt, prompts an iteration, iterations measured
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
WORDS = "GSM8KStyle"
STRIDES, CONTINUATIONS = (1, 2, 4), (1, 2, 4)


def cuts(rule: str, **arguments: Any) -> Config:
    return {"class_path": f"lit_rl.functional.cuts.{rule}", "init_args": arguments}


def trepo(stride: int, continuations: int, **others: Any) -> tuple[str, str, Config]:
    """Its name, class and arguments."""
    said = {"root": ", paid root", "reuse": ", reuse", "fill": f", {others.get('fill')}"}
    name = f"TRePO stride {stride}, K={continuations}{''.join(said[key] for key in others)}"
    return name, "TRePO", {"cuts": cuts("Stride", every=stride), "continuations": continuations, **others}


Algorithm = tuple[str, str, Config]  # name, class and arguments
RLOO: Algorithm = ("RLOO", "RLOO", {})
CRITICS: tuple[Algorithm, ...] = (("PPO", "PPO", {}), ("PPO, pretrained", "PPO", {"critic_pretraining": PRETRAINING}))
GRID = tuple(trepo(stride, k) for stride in STRIDES for k in CONTINUATIONS)
ENTROPY = (
    "TRePO entropy, K=1",
    "TRePO",
    {"cuts": cuts("Entropy", threshold=1.0), "continuations": 1},
)
OTHERS = (
    trepo(2, 1, root="continuations"),
    trepo(2, 1, fill="hold_mc"),
    trepo(2, 1, reuse=True),
    trepo(4, 1, reuse=True),
    trepo(4, 4, reuse=True),
    ENTROPY,
)
ALGORITHMS = (RLOO, *CRITICS, *GRID, *OTHERS)
IN_WORDS = (
    RLOO,
    *CRITICS,
    trepo(8, 1),
    trepo(8, 4),
    trepo(16, 1),
    trepo(16, 4),
    trepo(16, 1, reuse=True),
)


def measured(task: str, name: str, model: str, arguments: Config, config: Config, stages: Any = ()) -> Arm:
    """An arm whose policy stays as it is."""
    pretraining = arguments.get("critic_pretraining", 0)
    init_args = {"samples": SAMPLES, "learning_rate": 0.0, "normalizer": "row_sum", **arguments, **config["model"]}
    return Arm(
        f"{task} {name}",
        {
            "model": {"class_path": model, "init_args": init_args},
            "data": {"prompts_per_iteration": GROUPS, "rows_per_microbatch": SAMPLES * GROUPS, **config["data"]},
            "trainer": {"max_epochs": ROUNDS + pretraining},
            **{key: value for key, value in config.items() if key not in ("model", "data")},
        },
        f"{task} RLOO",
        stages,
        frozen=True,
        task=task,
    )


def _position_credit(label: str, task: Task, name: str, model: str, arguments: Config) -> Arm:
    sizes = {"vocabulary": task.vocabulary, "length": task.length}
    stage = half_trained(label.replace(", ", "-"), task.name, sizes, task.arguments, task.half)
    config: Config = {
        "model": {
            "policy": {"class_path": "lit_rl.policy.TokenTransformer", "init_args": POLICY | sizes},
            "max_new_tokens": task.length,
            "start": f"{{{stage.name}}}/last.ckpt",
        },
        "data": {"task": {"class_path": f"lit_rl.tasks.{task.name}", "init_args": sizes | task.arguments}},
        # the exact values give the theory's prediction; once, for the policy stays as it is
        "credit": {"every_n_iterations": 1000 if name == "RLOO" else 0},
    }
    return measured(label, name, model, arguments, config, (stage,))


def _words(name: str, model: str, arguments: Config) -> Arm:
    """On the embedded policy as it was warm-started, in problems of two steps."""
    valued = model != "RLOO" and "reuse" not in arguments
    config: Config = {
        "model": {"max_new_tokens": 64},
        "data": {"task": {"class_path": WORDS, "init_args": {"steps": 2}}},
        "value_accuracy": {
            # once: in the first iteration behind pretraining
            "every_n_iterations": (arguments.get("critic_pretraining") or 1000) if valued else 0,
            "prompts": 4,
        },
    }
    return measured(WORDS, name, model, arguments, config)


def _over(tasks: Any, name: str) -> tuple[str, ...]:
    return tuple(f"{task} {name}" for task in tasks)


def _planned(
    name: str, arm: str, against: str, tasks: Any, predicted: Any, because: str, cost: str = TOKEN
) -> Comparison:
    return Comparison(_over(tasks, arm), _over(tasks, against), predicted, because, name, f"{NOISE}{cost}")


TWO, FOUR = trepo(2, 1)[0], trepo(4, 1)[0]
EARLY, LATE = ("KeyToken, early",), ("Additive", "KeyToken", "Bottleneck", "Parity")

STUDY = Study(
    name="sampling_budget",
    question="Where does TRePO lower the gradient's noise by more than its continuations cost?",
    source="2506.02553 names the number of continuations and of selected states as open; VinePPO is 2410.01679.",
    baseline="KeyToken RLOO",
    primary_metric=f"{NOISE}{TOKEN}",
    comparisons=(
        _planned(
            "TRePO (stride 4, K = 1) against RLOO, decided early",
            FOUR,
            "RLOO",
            EARLY,
            "below",
            "behind the token that decides values are certain, and the rest is told that it earned nothing",
        ),
        _planned(
            "TRePO (stride 4, K = 1) against RLOO, decided late",
            FOUR,
            "RLOO",
            LATE,
            "above",
            "little is resolved where the values are taken, and they have the noise of one continuation",
        ),
        _planned(
            "TRePO (stride 4, K = 1) with reuse against without, five tasks of 8 tokens",
            trepo(4, 1, reuse=True)[0],
            FOUR,
            TASKS,
            "below",
            "the continuations are on-policy responses as well",
        ),
        _planned(
            "PPO, pretrained against TRePO (stride 2, K = 1), five tasks of 8 tokens",
            "PPO, pretrained",
            TWO,
            TASKS,
            "below",
            "a fitted critic's values cost nothing more",
        ),
        _planned(
            "TRePO (stride 2, K = 1) with a paid root against siblings, five tasks of 8 tokens",
            trepo(2, 1, root="continuations")[0],
            TWO,
            TASKS,
            "above",
            "the siblings' mean is free and has less noise",
        ),
        _planned(
            "TRePO (stride 4, K = 4) against RLOO where a trained token costs 4, five tasks of 8 tokens",
            trepo(4, 4)[0],
            "RLOO",
            TASKS,
            "below",
            "then continuations, which are not trained on, are cheap",
            f"{KAPPA}4",
        ),
    ),
    arms=(
        *(_position_credit(task, TASKS[task], *algorithm) for task in TASKS for algorithm in ALGORITHMS),
        *(
            _position_credit(label, task, *algorithm)
            for label, task in LENGTHS.items()
            for algorithm in (RLOO, trepo(2, 1), *([trepo(4, 1)] if task.length > 4 else []), trepo(2, 1, reuse=True))
        ),
        *(_words(*algorithm) for algorithm in IN_WORDS),
    ),
    base={
        "trainer": {"accelerator": "cpu", "check_val_every_n_epoch": 1000},
        "gradient_variance": {"every_n_iterations": 1},
        "diagnostics": {"every_n_iterations": 0},
        "transcripts": {"every_n_iterations": 0},
        "checkpoint": {"every_n_epochs": 1000},
    },
    seeds=tuple(range(10)),
    hours=1.0,
    kappas=(1.0, 4.0),
    smoke={"trainer": {"max_epochs": 2 + PRETRAINING}, "data": {"prompts_per_iteration": 4, "rows_per_microbatch": 4}},
    reading=Reading(
        "Where the reward is decided early, continuations pay at once: one a cut takes away a third of RLOO's noise at "
        "equal generated tokens; where it is decided late, or by the whole response, they cost more than they take "
        "away until a trained token costs about three generated ones, and on word problems even then. A pretrained "
        "critic, if nobody pays for its pretraining, has less noise than either, except where the reward is decided "
        "early.",
        ("below", "above", "below", "below", "above", "below"),
    ),
    notes=(
        "Mechanism, not language models: transformers of one layer over 4 tokens (2 where the length differs), half "
        f"trained, one for each seed, and the embedded policy of 0.4M parameters on {WORDS}, as it was warm-started.",
        "All of these estimators are unbiased and of one scale, so their noise is compared as it is.",
        "KeyToken is decided by the token at position 6 of 8 and, early, at position 2; Bottleneck by three of them.",
        "A cost per trained token, kappa, is that of training a token over that of decoding one: forward and backward "
        "beside one step with a cache. It is swept here; where it was measured (the tables Time of wall_clock and "
        "binary_math, kappa.csv of performance) arms without a critic had 0.5 to 2.",
        "PPO's critic is as large as the policy; pretrained means ten iterations of as many tokens before, which are "
        "not charged to it.",
        f"On {WORDS} the pretrained critic's error is above that of the best constant, and it hardly tells prefixes "
        "apart: what lowers the noise there is a baseline at about the right height.",
        f"The policies of {WORDS} are one and the same warm start for all seeds.",
    ),
)
