"""Commands that train with each algorithm: on a task of position credit, but for the one that needs demonstrations."""

FIT = ["fit", "--data.eval_prompts=32", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
KEY_TOKEN = ["--data.task=KeyToken", "--data.task.length=6"]
OFFLINE_DPO = ["--model=OnlineDPO", "--model.sampling=reference", "--checkpoint.dirpath=dpo", "--trainer.max_epochs=2"]
BEFORE = {  # the commands that make what others take
    "RTO": [*FIT, *KEY_TOKEN, *OFFLINE_DPO],
    "ABC": ["fit-reward", "--output=scores", *KEY_TOKEN, "--prompts=64", "--epochs=1"],
}
SETTINGS: dict[str, list[str]] = {
    **{
        name: KEY_TOKEN
        for name in ("REINFORCE", "RLOO", "ReMax", "P3O", "OptimalBaseline", "PPO", "TRePO", "OnlineDPO")
    },
    **{name: KEY_TOKEN for name in ("GRPO", "GSPO", "CISPO", "RLZVP", "REINFORCEPlusPlus")},
    "RTO": [*KEY_TOKEN, "--model.dpo_checkpoint=dpo/last.ckpt"],
    "ABC": [*KEY_TOKEN, "--model.reward_model=scores"],
    "Supervised": ["--data.task=GSM8KStyle"],
}


def commands(name: str, iterations: int, *more: str) -> list[list[str]]:
    """The arguments of the commands, in order; ``more`` are the last one's."""
    before = [BEFORE[name]] if name in BEFORE else []
    return [*before, [*FIT, f"--model={name}", *SETTINGS[name], f"--trainer.max_epochs={iterations}", *more]]
