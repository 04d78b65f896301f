from ablations.study import Arm, Comparison, Study

TASKS, ALGORITHMS = ("KeyToken", "Additive"), ("REINFORCE", "RLOO", "GRPO")
STUDY = Study(
    name="own_study",
    question="From equally many responses, do algorithms with a baseline learn more?",
    arms=tuple(
        Arm(f"{task} {name}", {"data.task": task, "model": name}, baseline=f"{task} REINFORCE", task=task)
        for task in TASKS
        for name in ALGORITHMS
    ),
    comparisons=(Comparison.between("RLOO", "REINFORCE", "above", "a baseline lowers the noise", tasks=TASKS),),
    base={
        "model.samples": 4,
        "model.learning_rate": 0.01,
        "data.prompts_per_iteration": 8,
        "trainer.max_epochs": 20,
        "trainer.accelerator": "cpu",
    },
    seeds=tuple(range(8)),
)
