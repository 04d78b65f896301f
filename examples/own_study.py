"""Does a baseline pay? Three algorithms on two tasks: `python -m ablations run own_study` in this folder."""

from ablations.study import Arm, Comparison, Study

TASKS = ("KeyToken", "Additive")
ALGORITHMS = {
    "REINFORCE": {"model": "REINFORCE", "data.prompts_per_iteration": 32},
    "RLOO": {"model": "RLOO", "model.samples": 4, "data.prompts_per_iteration": 8},
    "GRPO": {"model": "GRPO", "model.samples": 4, "data.prompts_per_iteration": 8},
}
STUDY = Study(
    name="own_study",
    question="At equal generated tokens, does a baseline pay?",
    arms=tuple(
        Arm(f"{task} {name}", {"data.task": task, **settings}, baseline=f"{task} REINFORCE", task=task)
        for task in TASKS
        for name, settings in ALGORITHMS.items()
    ),
    comparisons=(Comparison.between("RLOO", "REINFORCE", "above", "it has less noise", tasks=TASKS),),
    base={
        "model.learning_rate": 0.003,
        "data.eval_prompts": 64,
        "trainer.max_epochs": 20,
        "trainer.accelerator": "cpu",
    },
    seeds=tuple(range(8)),
)
