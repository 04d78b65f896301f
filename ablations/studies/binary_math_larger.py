"""The same question with larger models and longer responses, and fewer arms."""

from dataclasses import replace
from typing import Any

from ablations.config import Config, merge, nested
from ablations.studies import binary_math as tiny
from ablations.studies.parts import ONE_START, UNLIMITED, budget
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
        "At equal generated tokens TRePO learns more slowly than GRPO, and is not told apart from it at the end; PPO "
        "is ahead of both on average, with eight times TRePO's prompts an update. A critic that is pretrained at the "
        "budget's expense costs more than it brings.",
        ("below", "below", "below", "below"),
    ),
    notes=(
        "Mechanism, not language models: 3.2M parameters, problems of four steps in about 80 tokens, and a warm start "
        "that was taught wrong operators on purpose (data/mid/README.md).",
        ONE_START,
        "Arms are matched in generated tokens an update, about 2,400 at the start, and in the whole budget of 48,000. "
        "TRePO cuts every 32 tokens, with one continuation a cut. The noise of gradients at this start is "
        "sampling_budget's matter, at the same scale.",
        "PPO's responses are to 32 prompts an update, those of RLOO and GRPO to 8, TRePO's to 4: at the tiny scale "
        "this is all of PPO's lead.",
        "Each arm's rate is within those tried, TRePO's a third of the others'; the highest ruins every arm. Rewards "
        "that are shuffled are noise, and ruin the policy at RLOO's rate, as at the tiny scale.",
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
        "SmolLM2-135M-Instruct, which scores nothing in this format, after 3,072 demonstrations of problems of three "
        "steps, wrong operators among them as in data/warmstart.",
        ONE_START,
        "Arms are matched in generated tokens an update, about 2,600 at the start, and in the whole budget of 78,000. "
        "TRePO cuts every 32 tokens, with one continuation a cut.",
        "PPO's responses are to 32 prompts an update, GRPO's to 8, TRePO's to 4.",
    ),
)
