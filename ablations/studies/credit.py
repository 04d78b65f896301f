"""Where the gradient goes, on tasks whose exact credit is known."""

from ablations.study import Arm, Study

GROUPS = {"prompts_per_iteration": 128}  # x 4 responses
SINGLES = {"prompts_per_iteration": 512}  # x 1 response
CUTS = {"class_path": "lit_rl.functional.cuts.Stride", "init_args": {"every": 2}}
SIZES = {"vocabulary": 4, "length": 6}
TABLE = {"class_path": "lit_rl.policy.TabularPolicy", "init_args": SIZES}

TASKS = {"KeyToken": {"position": 3}, "Additive": {}}
ALGORITHMS = {
    "REINFORCE": ({}, SINGLES),
    "RLOO": ({"samples": 4}, GROUPS),
    "ReMax": ({}, SINGLES),
    "GRPO": ({"samples": 4}, GROUPS),
    "TRePO": ({"samples": 4, "cuts": CUTS, "continuations": 2}, GROUPS),
}
LONGER = {
    "Additive REINFORCE": {
        "trainer": {"max_epochs": 150, "check_val_every_n_epoch": 10},
        "gradient_variance": {"every_n_iterations": 25},
        "credit": {"every_n_iterations": 12},
    }
}


def _arm(task: str, algorithm: str) -> Arm:
    name = f"{task} {algorithm}"
    arguments, prompts = ALGORITHMS[algorithm]
    config = {
        "model": {"class_path": algorithm, "init_args": arguments},
        "data": {**prompts, "task": {"class_path": task, "init_args": SIZES | TASKS[task]}},
        **LONGER.get(name, {}),
    }
    return Arm(name, config, baseline=f"{task} RLOO")


STUDY = Study(
    name="credit",
    question="On tasks whose exact credit is known, does each estimator reach the optimum, and which positions does "
    "its gradient credit on the way?",
    source="2506.02553 asks whether one reward a response suffices; the tasks of position credit are ours.",
    baseline="KeyToken RLOO",
    primary_metric="test/accuracy_sampled",
    comparisons=tuple((f"{task} {arm}", f"{task} RLOO") for task in TASKS for arm in ("REINFORCE", "GRPO", "TRePO")),
    arms=tuple(_arm(task, algorithm) for task in TASKS for algorithm in ALGORITHMS),
    base={
        "model": {
            "init_args": {
                "policy": TABLE,
                "max_new_tokens": SIZES["length"],
                "learning_rate": 0.02,
                "normalizer": "sequence_mean",
            }
        },
        "data": {"rows_per_microbatch": 64, "eval_prompts": 256},
        "trainer": {"max_epochs": 60, "check_val_every_n_epoch": 5, "accelerator": "cpu"},
        "gradient_variance": {"every_n_iterations": 10},
        "credit": {"every_n_iterations": 5},
    },
    smoke={
        "data": {"prompts_per_iteration": 4, "rows_per_microbatch": 4, "eval_prompts": 8},
        "trainer": {"max_epochs": 2, "check_val_every_n_epoch": 1},
        "gradient_variance": {"every_n_iterations": 1},
        "credit": {"every_n_iterations": 1},
    },
    notes=(
        "Mechanism, not language models: a table of logits for 4 tokens and 6 positions, started uniform.",
        "One learning rate for all arms, chosen with two other seeds so that REINFORCE, whose noise is the largest, "
        "reaches the optimum too; it is tuned for none.",
        "Arms are matched in trained responses (512 an iteration, 16 updates), not in generated tokens: ReMax's greedy "
        "responses and TRePO's continuations come on top.",
        "Learned shares are of one iteration's responses, noise included: an estimator with less of it looks better "
        "at credit, whatever it credits on average, which for all of them but GRPO is the exact gradient.",
    ),
)
