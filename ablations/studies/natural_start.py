"""A language model from a start that nobody prepared: SmolLM2-135M on arithmetic, asked in plain words."""

from ablations.config import Config
from ablations.metric_names import END
from ablations.studies.larger_models import ON_A_GPU, SMOLLM2
from ablations.studies.parts import BESIDE, QUIET, TEST, UNLIMITED, Algorithm, budget, controls, cuts
from ablations.study import Arm, Comparison, Study, Tuning

TASK = "Arithmetic"
START, BASELINE = "start", "RLOO"
PROMPTS, RESPONSES = 32, 8
ROWS = 64  # in one pass
TOKENS = 8350  # an update, at the start
UPDATES = 40
PRETRAINING = 6  # iterations
LENGTH = 48  # tokens of a response, at most
STRIDE = 14  # whose continuations cost .97 of the responses that are cut: the sum over cuts c of E[max(0, T - c)]
CUTS = (LENGTH - 1) // STRIDE  # of the longest response, the prompt left out
between = Comparison.between


def _trepo(**others: object) -> Algorithm:
    """Half of the responses; their continuations cost as much as the other half."""
    arguments = {"samples": RESPONSES // 2, "cuts": cuts("Stride", every=STRIDE), "continuations": 1, **others}
    return Algorithm("TRePO", PROMPTS, arguments)


def _group(model: str, **others: object) -> Algorithm:
    return Algorithm(model, PROMPTS, {"samples": RESPONSES, **others})


INTERPOLATED = "TRePO, linear_advantage"
ALGORITHMS = {
    "REINFORCE": _group("REINFORCE"),
    BASELINE: _group("RLOO"),
    "GRPO": _group("GRPO"),
    "PPO": _group("PPO"),
    "PPO, pretrained": _group("PPO", critic_pretraining=PRETRAINING),
    "TRePO": _trepo(),
    "TRePO, reuse": _trepo(reuse=True),
    INTERPOLATED: _trepo(fill="linear_advantage"),
}
UNBIASED = ("REINFORCE", BASELINE, "PPO", "PPO, pretrained", "TRePO", "TRePO, reuse")


def _passes(algorithm: Algorithm) -> Config:
    """One optimizer step an update, in passes of ``ROWS``; with reuse for the most rows that there may be."""
    continuations = CUTS if algorithm.arguments.get("reuse") else 0  # of a response
    rows = PROMPTS * algorithm.arguments["samples"] * (1 + continuations)
    return {"data.rows_per_microbatch": ROWS, "trainer.accumulate_grad_batches": rows // ROWS}


def _trained(name: str) -> Arm:
    algorithm = ALGORITHMS[name]
    config = {**algorithm.config(), **_passes(algorithm), **budget(TOKENS, UPDATES, looks=4)}
    return Arm(name, config, START, tuned_as=name, task=TASK)


def _frozen(name: str) -> Arm:
    algorithm = ALGORITHMS[name]
    config = {**algorithm.frozen(), **_passes(algorithm), "trainer.check_val_every_n_epoch": 1000}
    return Arm(f"{name}, frozen", config, BASELINE, frozen=True, task=TASK)


def _controls() -> tuple[Arm, Arm]:
    """The start itself, and rewards that carry no information."""
    start, _, shuffled = controls(_trained(BASELINE), START)
    return start, shuffled


def _no_gain(arm: str, because: str) -> Comparison:
    return between(arm, START, "not above", because, metric=TEST)


STUDY = Study(
    name="natural_start",
    question="From a start that nobody prepared, does TRePO spend a budget of generated tokens better than GRPO, RLOO "
    "and PPO?",
    source="The first open question of 2506.02553, for a language model that was taught nothing for it.",
    scale="small",
    gpus_per_cell=1.0,
    baseline=BASELINE,
    primary_metric=TEST,
    beside=BESIDE,
    comparisons=(
        between("TRePO", "GRPO", "below", "half of its tokens are continuations, which are not trained on"),
        between("TRePO", BASELINE, "below", "its gradient has more noise at equal tokens"),
        between("TRePO", "PPO", "", "half of its tokens are continuations, but PPO's critic starts at 0"),
        between("TRePO, reuse", "TRePO", "above", "nothing that was sampled is thrown away"),
        between("PPO, pretrained", "PPO", "below", "pretraining takes a seventh of the budget"),
        between("REINFORCE", BASELINE, "below", "without a baseline the noise is that of the reward itself"),
    ),
    controls=(
        _no_gain(INTERPOLATED, "at a fixed stride no two cuts are neighbours, so that no advantage is exact"),
        _no_gain(f"{BASELINE}, shuffled rewards", "the rewards of other responses carry no information"),
    ),
    arms=(*map(_trained, ALGORITHMS), *_controls(), *map(_frozen, UNBIASED)),
    base={
        **QUIET,
        **ON_A_GPU,
        "model.policy": SMOLLM2,
        "model.reference": False,
        "model.schedule": "linear",
        "model.max_new_tokens": LENGTH,
        "data.task": TASK,
        "data.task.terms": [2, 3],
        "data.task.largest": 20,
        "data.task.operators": "+-",
        "data.eval_prompts": 512,
        "trainer.max_epochs": 1000,
    },
    seeds=tuple(range(8)),
    tuning=Tuning((1e-5, 3e-5, 1e-4, 3e-4), (100, 101, 102), f"{END}val/accuracy_sampled"),
    smoke={
        "model.samples": 2,
        "model.max_new_tokens": 16,
        "data.prompts_per_iteration": 2,
        "data.rows_per_microbatch": 4,
        "data.eval_prompts": 2,
        "trainer.accumulate_grad_batches": 1,
        "trainer.max_epochs": 2,
        "trainer.check_val_every_n_epoch": 2,
        "trainer.precision": "32-true",
        **UNLIMITED,
    },
    notes=(
        "One model, SmolLM2-135M-Instruct, as it is published, and one task: 2 or 3 numbers up to 20 with + and -. The "
        "prompt asks for the final number only, and the last number of a response counts.",
        "All seeds have the same start, problems of test and validation; the intervals do not cover others.",
        f"Every arm answers {PROMPTS} prompts in an update and generates about {TOKENS:,} tokens in it at the start: "
        f"{RESPONSES} responses a prompt, or {RESPONSES // 2} with their continuations. It takes one optimizer step an "
        f"update. A budget is {UPDATES} of these updates; critic pretraining is paid from it.",
        "Each arm has the learning rate that ended best on three other seeds. It falls linearly to 0 over the budget.",
        f"TRePO cuts every {STRIDE} tokens of at most {LENGTH}, with one continuation per cut.",
    ),
)
