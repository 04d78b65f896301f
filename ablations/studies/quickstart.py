"""A first look: do the response-level algorithms un-teach the errors of the warm start?"""

from ablations.study import Arm, Study

GROUPS = {"prompts_per_iteration": 32}  # x 4 responses
SINGLES = {"prompts_per_iteration": 128}  # x 1 response

STUDY = Study(
    name="quickstart",
    question="How much does each response-level algorithm improve the warm-started policy, at 128 responses an update?",
    source="A reproduction in miniature of the published comparisons of REINFORCE, RLOO, ReMax and GRPO.",
    baseline="warm_start",
    primary_metric="test/accuracy_sampled",
    comparisons=tuple((arm, "warm_start") for arm in ("supervised", "REINFORCE", "ReMax", "RLOO", "GRPO")),
    seeds=(0, 1, 2),
    arms=(
        Arm("warm_start", {"model": {"class_path": "GRPO"}, "data": GROUPS, "trainer": {"max_epochs": 0}}),
        Arm("supervised", {"model": {"class_path": "Supervised"}, "data": SINGLES}),
        Arm("REINFORCE", {"model": {"class_path": "REINFORCE"}, "data": SINGLES}),
        Arm("ReMax", {"model": {"class_path": "ReMax"}, "data": SINGLES}),
        Arm("RLOO", {"model": {"class_path": "RLOO", "init_args": {"samples": 4}}, "data": GROUPS}),
        Arm("GRPO", {"model": {"class_path": "GRPO", "init_args": {"samples": 4}}, "data": GROUPS}),
    ),
    base={
        "model": {"init_args": {"learning_rate": 2e-4, "max_new_tokens": 64}},
        "data": {
            "task": {"class_path": "GSM8KStyle", "init_args": {"steps": 2}},
            "rows_per_microbatch": 32,
            "eval_prompts": 128,
        },
        "trainer": {"max_epochs": 15, "check_val_every_n_epoch": 5, "accelerator": "cpu"},
        "gradient_variance": {"every_n_iterations": 5},
        "checkpoint": {"every_n_epochs": 5},
    },
    smoke={
        "model": {"init_args": {"max_new_tokens": 48}},
        "data": {"prompts_per_iteration": 4, "rows_per_microbatch": 4, "eval_prompts": 8},
        "trainer": {"max_epochs": 2, "check_val_every_n_epoch": 1},
        "gradient_variance": {"every_n_iterations": 1},
    },
    notes=(
        "A policy of 0.4M parameters on synthetic problems: this shows the mechanism, not how language models behave.",
        "One learning rate for all arms, not tuned for any.",
        "Arms are matched in responses an update, not in generated tokens: ReMax's greedy responses come on top, and "
        "the supervised control generates none.",
    ),
)
