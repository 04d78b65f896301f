"""A first look: do the response-level algorithms un-teach the errors of the warm start?"""

from ablations.studies.parts import ONE_START, SMALL_MODELS, TWO_STEPS
from ablations.study import SMOKE, Arm, Comparison, Study

GROUPS = {"data.prompts_per_iteration": 16}  # x 4 responses
SINGLES = {"data.prompts_per_iteration": 64}  # x 1 response

# the same loss for all but GRPO, which keeps its own: then REINFORCE, RLOO and ReMax estimate the same gradient
SHARED = {"model.normalizer": "constant", "model.clip_low": 0.2, "model.clip_high": 0.2}

STUDY = Study(
    name="quickstart",
    question="How much does each response-level algorithm improve the warm start, with 64 responses in an iteration?",
    source="The algorithms as published: RLOO 2402.14740, ReMax 2310.10505, GRPO 2402.03300, and REINFORCE without a "
    "baseline. The supervised arm continues the training of the warm start, on as many demonstrations.",
    baseline="warm_start",
    primary_metric="test/accuracy_sampled",
    comparisons=tuple(
        Comparison.between(arm, "warm_start") for arm in ("REINFORCE", "RLOO", "ReMax", "GRPO", "supervised")
    ),
    seeds=(0, 1, 2),
    arms=(
        Arm("warm_start", {"model": "GRPO", **GROUPS, "trainer.max_epochs": 0}),
        Arm("supervised", {"model": "Supervised", "model.normalizer": "constant", **SINGLES}),
        Arm("REINFORCE", {"model": "REINFORCE", **SHARED, **SINGLES}),
        Arm("RLOO", {"model": "RLOO", "model.samples": 4, **SHARED, **GROUPS}),
        Arm("ReMax", {"model": "ReMax", **SHARED, **SINGLES}),
        Arm("GRPO", {"model": "GRPO", "model.samples": 4, **GROUPS}),
    ),
    base={
        **TWO_STEPS,
        "model.learning_rate": 3e-4,
        "data.rows_per_microbatch": 16,
        "data.eval_prompts": 256,
        "trainer.max_epochs": 20,
        "trainer.check_val_every_n_epoch": 4,
        "trainer.accelerator": "cpu",
        "gradient_variance.every_n_iterations": 6,
        "transcripts.every_n_iterations": 10,
        "checkpoint.every_n_epochs": 10,
    },
    smoke={**SMOKE, "model.max_new_tokens": 48, "gradient_variance.every_n_iterations": 1},
    notes=(
        f"{SMALL_MODELS} Here it has 0.4M parameters, and problems have two steps.",
        "The warm start was taught wrong operators on purpose (data/warmstart/README.md). Reinforcement learning "
        "unlearns this planted error; the supervised control sees the same wrong demonstrations, and cannot.",
        "All arms have one learning rate, which was not tuned.",
        ONE_START,
        "Arms have equal trained responses (64 in an iteration, four updates), not equal generated tokens: ReMax's "
        "greedy responses come on top, and the supervised control generates none.",
    ),
)
