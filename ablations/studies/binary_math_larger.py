"""The same question with larger models and longer responses, and fewer arms."""

from dataclasses import replace
from typing import Any

from ablations.config import Config, merge, nested
from ablations.studies import binary_math as tiny
from ablations.studies.parts import ONE_START, SMALL_MODELS, UNLIMITED, budget
from ablations.study import Arm, Reading, Stage, Study, Tuning

SMALL_ARMS = ("GRPO", "PPO", "TRePO", tiny.START)
MID_ARMS = (*SMALL_ARMS, "RLOO", "PPO, pretrained", "RLOO, other samples", "RLOO, shuffled rewards")
EMBEDDED_MID: Config = {"class_path": "lit_rl.policy.CausalPolicy", "init_args": {"path": "embedded-mid"}}
SMOLLM2: Config = {"class_path": "lit_rl.policy.CausalPolicy", "init_args": {"path": "data/smollm2"}}


def _arm(arm: Arm, stride: int, tokens: int, updates: int, stages: tuple[Stage, ...], settings: Config) -> Arm:
    """The tiny study's arm with cuts, budget and start of a larger one."""
    arguments = arm.config["model"]["init_args"]
    changes = {**settings, **budget(tokens, updates, looks=5)}
    if "cuts" in arguments:
        changes["model.cuts.every"] = stride
    if "critic_pretraining" in arguments:  # the same share of the budget
        changes["model.critic_pretraining"] = tiny.PRETRAINING * updates // tiny.UPDATES
    return arm.but(arm.name, changes, stages=stages, trial=arm.trial)


def _larger(
    scale: str,
    names: tuple[str, ...],
    stride: int,
    tokens: int,
    updates: int,
    base: Config,
    stages: tuple[Stage, ...] = (),
    settings: Config | None = None,
    **others: Any,
) -> Study:
    kept = [_arm(arm, stride, tokens, updates, stages, settings or {}) for arm in tiny.STUDY.arms if arm.name in names]
    has = lambda pair: set(pair.arms + pair.against) <= set(names)  # noqa: E731
    return replace(
        tiny.STUDY,
        scale=scale,
        arms=tuple(kept),
        comparisons=tuple(filter(has, tiny.STUDY.comparisons)),
        controls=tuple(filter(has, tiny.STUDY.controls)),
        exploratory=tuple(filter(has, tiny.STUDY.exploratory)),
        base=merge(tiny.STUDY.base, nested(base)),
        **{"reading": None, **others},
    )


MID = _larger(
    "mid",
    MID_ARMS,
    stride=32,
    tokens=2400,
    updates=20,
    base={
        "model.max_new_tokens": 144,
        "model.policy": EMBEDDED_MID,
        "data.task.steps": 4,
        "data.eval_prompts": 96,
    },
    tuning=Tuning((3e-5, 1e-4, 3e-4, 1e-3), (100, 101)),
    hours=1.5,
    reading=Reading(
        "At equal generated tokens TRePO learns more slowly than GRPO; at the end no difference between them was "
        "shown. PPO is ahead of both on average, with eight times as many prompts per update as TRePO. A critic "
        "whose pretraining is paid from the budget costs more than it brings.",
        ("below", "below", "below", "below"),
    ),
    notes=(
        f"{SMALL_MODELS} Here it has 3.2M parameters, and problems have four steps in about 80 tokens. The warm start "
        "was taught wrong operators on purpose (data/mid/README.md).",
        ONE_START,
        "Arms have equal generated tokens: about 2,400 per update at the start, and 48,000 in all.",
        "TRePO cuts every 32 tokens, with one continuation per cut.",
        "Prompts per update differ: 32 of PPO, 8 of RLOO and GRPO, 4 of TRePO. At the tiny scale this is all of "
        "PPO's lead.",
        "No chosen rate is at the edge of those tried. TRePO's is a third of the others'; the highest ruins every arm.",
        "Shuffled rewards are noise, and ruin the policy at RLOO's rate, as at the tiny scale.",
        "sampling_budget measures the noise of gradients at this start, at the same scale.",
    ),
)

TAUGHT = Stage(
    "taught-SmolLM2",
    (
        *("fit", "--model", "Supervised", "--model.policy.path", "data/smollm2", "--model.reference", "false"),
        *("--model.learning_rate", "5e-5", "--model.max_new_tokens", "160", "--data.task", "GSM8KStyle"),
        *("--data.task.steps", "3", "--data.prompts_per_iteration", "512", "--data.rows_per_microbatch", "32"),
        *("--trainer.max_epochs", "6", "--trainer.check_val_every_n_epoch", "1000", "--seed_everything", "0"),
        *("--trainer.accelerator", "auto", "--trainer.devices", "1", "--trainer.enable_progress_bar", "false"),
        *("--gradient_variance.every_n_iterations", "0", "--checkpoint.dirpath", "{folder}"),
    ),
    ("--trainer.max_epochs", "1", "--data.prompts_per_iteration", "2", "--data.rows_per_microbatch", "2"),
)

ON_A_GPU: Config = {
    "trainer.accelerator": "auto",
    "trainer.devices": 1,
    "trainer.precision": "bf16-mixed",
    "data.sampler": "lit_rl.sampling.LocalSampler",
    "data.sampler.compile": True,
    "checkpoint.every_n_epochs": 0,  # 1.6 GB a cell
}

SMALL = _larger(
    "small",
    SMALL_ARMS,
    stride=32,
    tokens=2600,
    updates=30,
    base={"model.max_new_tokens": 160, "model.policy": SMOLLM2, "data.task.steps": 3, **ON_A_GPU},
    stages=(TAUGHT,),
    settings={"model.start": TAUGHT.checkpoint, "model.reference": False},
    seeds=tuple(range(8)),
    tuning=Tuning((3e-6, 1e-5, 3e-5), (100,)),
    baseline="GRPO",
    hours=None,
    smoke={
        "model.max_new_tokens": 48,
        "data.prompts_per_iteration": 2,
        "data.rows_per_microbatch": 2,
        "data.eval_prompts": 2,
        "trainer.max_epochs": 2,
        "trainer.check_val_every_n_epoch": 2,
        "trainer.precision": "32-true",
        **UNLIMITED,
    },
    notes=(
        f"{SMALL_MODELS} Here it is SmolLM2-135M-Instruct, which scores nothing in this format, after 3,072 "
        "demonstrations of problems of three steps, some with wrong operators as in data/warmstart.",
        ONE_START,
        "Arms have equal generated tokens: about 2,600 per update at the start, and 78,000 in all.",
        "TRePO cuts every 32 tokens, with one continuation per cut.",
        "Prompts per update differ: 32 of PPO, 8 of GRPO, 4 of TRePO.",
    ),
)
