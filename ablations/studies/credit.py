"""Where the gradient goes, on tasks whose exact credit is known."""

from ablations.study import Arm, Study, merge

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
        "model": {"init_args": {"learning_rate": 0.01}},
        "trainer": {"max_epochs": 300, "check_val_every_n_epoch": 20},
        "gradient_variance": {"every_n_iterations": 50},
        "credit": {"every_n_iterations": 25},
    }
}


def _arm(task: str, algorithm: str) -> Arm:
    name = f"{task} {algorithm}"
    arguments, prompts = ALGORITHMS[algorithm]
    config = {
        "model": {"class_path": algorithm, "init_args": arguments},
        "data": {**prompts, "task": {"class_path": task, "init_args": SIZES | TASKS[task]}},
    }
    return Arm(name, merge(config, LONGER.get(name, {})), baseline=f"{task} RLOO")


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
        "Mechanism, not language models: the policy is a table of logits, a row for each prefix, uniform at first. "
        "What is learned in one state helps no other, and the later the position, the more rows its gradient is spread "
        "over: small beside the noise of 512 responses. On Additive, accuracies are mean rewards.",
        "One learning rate for all arms but REINFORCE on Additive, chosen on other seeds; tuned for none. With no "
        "baseline REINFORCE may settle on a second-best token of Additive: at that rate, in 150 iterations, one seed "
        "of these three ended at 94 %. Here it learns at half the rate for 300 iterations.",
        "Arms are matched in trained responses (512 an iteration, eight updates), not in generated tokens: ReMax's "
        "greedy responses and TRePO's continuations come on top. REINFORCE is far from done on Additive after the "
        "others' 60 iterations: its end is compared with RLOO's after five times the responses.",
        "Learned shares are of one iteration's responses, noise included: an estimator with less of it looks better "
        "at credit, whatever it credits on average, which for all of them but GRPO is the exact gradient.",
    ),
)
