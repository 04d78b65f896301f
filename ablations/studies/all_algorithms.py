"""Every algorithm with its default settings, on word problems and on a task whose exact credit is known."""

from typing import Any

from ablations.config import Config
from ablations.studies.parts import SMALL_MODELS
from ablations.study import SMOKE, Arm, Comparison, Stage, Study

WORDS = "GSM8KStyle"
TASKS = (WORDS, "KeyToken")
PRETRAINING = 30  # iterations, on top of the others' 50
ON_CPU = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")
WORDS_ALONE = ("REINFORCEPlusPlus", "P3O", "OptimalBaseline", "GSPO", "CISPO", "RLZVP")
HINTS: Config = {"data.hints": 3}  # up to three quarters of a demonstration
LATER: Config = {"model.critic_pretraining": PRETRAINING, "trainer.max_epochs": 50 + PRETRAINING}


def _arms(task: str) -> tuple[Arm, ...]:
    start = f"{task} start"
    # for each seed: on KeyToken its policy starts from weights of its own
    common = ("--data.task", task, "--seed_everything", "{seed}")
    offline = ("fit", "--model", "OnlineDPO", "--model.sampling", "reference", "--checkpoint.dirpath", "{folder}")
    dpo = Stage(f"dpo-{task}", (*offline, *common, *ON_CPU), ("--trainer.max_epochs", "2", "--data.eval_prompts", "8"))
    scores = Stage(
        f"reward_model-{task}",
        ("fit-reward", "--output", "{folder}", *common),
        ("--prompts", "16", "--eval_prompts", "16", "--epochs", "1"),
    )

    def arm(name: str, config: Config | None = None, stages: tuple[Stage, ...] = (), **init_args: Any) -> Arm:
        model = {"class_path": name.split(",")[0], "init_args": init_args}
        return Arm(f"{task} {name}", {"model": model, "data.task": task, **(config or {})}, start, stages, task=task)

    return (
        arm("REINFORCE").but(start, {"trainer.max_epochs": 0}, trial=True),
        *(arm(name) for name in ("REINFORCE", "RLOO", "ReMax", "GRPO", "PPO")),
        arm("PPO, pretrained", LATER),
        *(arm(name) for name in ("TRePO", "OnlineDPO")),
        arm("RTO", None, (dpo,), dpo_checkpoint=dpo.checkpoint),
        arm("ABC", None, (scores,), reward_model=f"{{{scores.name}}}"),
        *([*(arm(name) for name in WORDS_ALONE), arm("GRPO, hints", HINTS)] if task == WORDS else ()),
    )


STUDY = Study(
    name="all_algorithms",
    question="With its default settings, does every algorithm learn, and at what cost in tokens, time and memory?",
    source="2506.02553 compares these families on paper. The settings are the command line's defaults, tuned for none.",
    baseline="GSM8KStyle start",
    primary_metric="test/accuracy_sampled",
    comparisons=(
        Comparison.between("GSM8KStyle PPO, pretrained", "GSM8KStyle PPO"),
        Comparison.between("GSM8KStyle TRePO", "GSM8KStyle RLOO"),
        Comparison.between("GSM8KStyle OnlineDPO", "GSM8KStyle RLOO"),
        Comparison.between("GSM8KStyle RTO", "GSM8KStyle PPO"),
        Comparison.between("GSM8KStyle ABC", "GSM8KStyle PPO"),
        Comparison.between("KeyToken PPO, pretrained", "KeyToken PPO"),
    ),
    arms=tuple(arm for task in TASKS for arm in _arms(task)),
    base={"trainer.max_epochs": 50, "trainer.accelerator": "cpu"},
    smoke={**SMOKE, "gradient_variance.every_n_iterations": 1},
    notes=(
        f"{SMALL_MODELS} Here it has 0.4M parameters. On GSM8KStyle reinforcement learning unlearns errors that the "
        "warm start was taught (data/warmstart/README.md).",
        "These are runs with each algorithm's defaults, not a ranking: no learning rate was tuned.",
        "Arms have neither equal tokens nor equal responses: 32 prompts in an iteration, with one response for "
        "REINFORCE, REINFORCEPlusPlus, ReMax, PPO, RTO and ABC, two for P3O and four for the others.",
        f"{', '.join(WORDS_ALONE)} and 'GRPO, hints' run on word problems alone. No comparison was planned for them.",
        "Where no response solves a prompt, 'GRPO, hints' asks it again, up to three times, with a quarter, a half and "
        "three quarters of a demonstration (GHPO, 2507.10628). Demonstrations have the warm start's planted errors.",
        f"'PPO, pretrained' has {50 + PRETRAINING} iterations, of which it spends at most {PRETRAINING} on its critic.",
        "RTO's DPO policy and ABC's reward model are made by the commands that users have, for each seed from its "
        "policy's start. ABC's reward itself is the task's. Their time is the time of stages in tables/arms.csv.",
        "Peak memory is that of the whole process, with its libraries.",
    ),
)
