"""One iteration of every algorithm, in one process or several: torchrun ranks.py STRATEGY FOLDER.

The folder gets, of each algorithm, the metrics, the gradient of the first step and each rank's responses, and of some a
checkpoint. FOLDER's parent holds what RTO and ABC need, see :func:`ingredients`.
"""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from torch.distributed.tensor import DTensor

from lit_rl import algorithms
from lit_rl.callbacks import Budget, Diagnostics, GradientVariance, IterationProgress, Memory, RewardCallback
from lit_rl.commands.cli import quiet
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.functional.cuts import Stride
from lit_rl.policy import TokenTransformer
from lit_rl.policy.lora import add_adapters
from lit_rl.policy.reading import takes_tree
from lit_rl.policy.reward_fitting import from_policy
from lit_rl.strategy import FSDP2
from lit_rl.tasks import Additive, Environment, Turn

LENGTH, PROMPTS = 12, 8
ROWS = {"reuse": 384}  # of an optimizer step, where it is not the rows trained on; ranks have different numbers of them
TOKENS = {"packed": 300}  # of a micro-batch of one process
MOMENTUM = partial(torch.optim.SGD, momentum=0.9)
VARIANTS: dict[str, dict[str, Any]] = {
    "shared": {"class": "PPO", "critic": "shared", "samples": 2, "schedule": "cosine", "optimizer": MOMENTUM},
    "pretraining": {"class": "PPO", "critic_pretraining": 2, "pretraining_passes": 1, "samples": 2},
    "adapters": {"class": "PPO", "samples": 2, "kl_coefficient": 0.1, "kl": "k3_loss"},
    "packed": {"class": "GRPO", "samples": 4, "normalizer": "token_mean"},
    "offline": {"class": "OnlineDPO", "sampling": "reference"},
    # one optimizer step without a reference: old log-probabilities and entropies come from the loss itself
    "reuse": {"class": "TRePO", "cuts": Stride(3), "reuse": True, "normalizer": "token_mean", "reference": False},
    "turns": {"class": "GRPO", "samples": 4},
}
RESUMED = ["PPO", "adapters", "shared", "turns"]
NAMES = [*(name for name in algorithms.__all__ if name != "Algorithm"), *VARIANTS]


class Told(Additive):
    """With demonstrations of all lengths, for supervised learning."""

    def prompts(self, split):
        plain = super().prompts(split)
        return plain.add_column("demonstration", ["1 " * (i % LENGTH) + "0" for i in range(len(plain))])


class Talking(Told):
    """With an environment that draws what it says and whether it goes on."""

    def environment(self, example):
        return Drawing()


class Drawing(Environment):
    def reset(self, example):
        return example["prompt"]

    def step(self, text):
        said = [str(self.random.randrange(5)) for _ in range(self.random.randint(1, 3))]
        return Turn([{"role": "user", "content": " ".join(said)}], text.count("1") / 4, self.random.random() < 0.3)


def policy(lora_rank: int = 0) -> TokenTransformer:
    policy = TokenTransformer(5, length=4 * LENGTH, eos=True, hidden_size=32, layers=2)
    if lora_rank:
        add_adapters(policy.model, lora_rank, lora_rank)
        policy.recipe = {"lora_rank": lora_rank}
    return policy


def ingredients(folder: Path) -> None:
    """A reward model for ABC and a DPO policy for RTO."""
    seed_everything(1, verbose=False)
    from_policy(policy()).model.save_pretrained(folder / "reward_model")
    weights = {f"policy.{name}": value for name, value in policy().state_dict().items()}
    torch.save({"state_dict": weights}, folder / "dpo.ckpt")


def make(name: str, folder: Path, **more: Any) -> algorithms.Algorithm:
    seed_everything(0, verbose=False)
    settings = {"class": name, **VARIANTS.get(name, {})}
    if name == "RTO":
        settings["dpo_checkpoint"] = str(folder / "dpo.ckpt")
    if name == "ABC":
        settings["reward_model"] = str(folder / "reward_model")
    cls = getattr(algorithms, settings.pop("class"))
    start = policy(lora_rank=4 if name == "adapters" else 0)
    settings = {"max_new_tokens": LENGTH, "learning_rate": 1e-2, "warmup_steps": 1, **settings, **more}
    algorithm = cls(policy=start, **settings)
    if hasattr(algorithm, "critic"):  # at 0 it would hide the critic's trunk
        torch.nn.init.normal_(algorithm.critic.head.weight)
    return algorithm


class Keep(Callback):
    """The first gradient, and the responses of each group of this rank."""

    def __init__(self) -> None:
        self.gradient: dict[str, torch.Tensor] = {}
        self.groups: list[list[list[int]]] = []

    def on_train_epoch_start(self, trainer, pl_module):
        rollouts = trainer.datamodule.rollouts
        self.groups = [[] for _ in rollouts.examples]
        for group, ids, length in zip(rollouts.group, rollouts.response_ids, rollouts.lengths, strict=True):
            self.groups[group].append(ids[:length].tolist())
        for each in self.groups:
            each.sort()  # continuations come in the order in which samples ended

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if not self.gradient:
            found = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
            whole = {name: g.full_tensor() if isinstance(g, DTensor) else g.clone() for name, g in found.items()}
            self.gradient = whole


def run(name: str, folder: Path, ranks: int, strategy: Any, iterations: int = 1, resume: Path | None = None) -> Trainer:
    """Trains, and writes ``<name>.pt`` into the folder."""
    algorithm = make(name, folder.parent)
    task = (Talking if name == "turns" else Told)(vocabulary=5, length=LENGTH, eos=True)
    rows = ROWS.get(name, PROMPTS * algorithm.plan.trained_rows)
    data = RolloutDataModule(
        task,
        prompts_per_iteration=PROMPTS,
        rows_per_microbatch=rows // (2 * ranks),
        tokens_per_microbatch=TOKENS[name] // ranks if name in TOKENS else None,
        eval_prompts=9,
        eval_rows=4,
        seed=0,
    )
    keep, bar = Keep(), IterationProgress()
    bar.enable()  # Lightning disables it in all processes but the first
    budget = Budget(generated_tokens=10**4, seconds=1e6)
    options = {**TRAINER_DEFAULTS, "max_epochs": iterations, "check_val_every_n_epoch": 1, "gradient_clip_val": 1e-3}
    trainer = Trainer(
        **options,
        accumulate_grad_batches=2,
        accelerator="cpu",
        devices=ranks,
        strategy=strategy,
        logger=CSVLogger(folder, name=name, version=iterations),
        enable_checkpointing=False,
        callbacks=[
            *(bar, RewardCallback(), GradientVariance(1), Memory(), budget, keep),
            Diagnostics(probe_every_n_iterations=1, probe_prompts=PROMPTS // ranks, probe_samples=4),
        ],
    )
    trainer.fit(algorithm, datamodule=data, ckpt_path=resume, weights_only=True)
    assert trainer.global_step == iterations and takes_tree(algorithm.policy.model)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    weights = trainer.strategy.lightning_module_state_dict()
    torch.save(keep.groups, folder / f"{name}{iterations}-{trainer.global_rank}.pt")
    torch.save(budget.state_dict(), folder / f"{name}{iterations}-{trainer.global_rank}-budget.pt")
    if trainer.is_global_zero:
        found = {"metrics": metrics, "gradient": keep.gradient, "weights": weights}
        torch.save(found, folder / f"{name}{iterations}.pt")
    if name in RESUMED and iterations == 1:
        trainer.save_checkpoint(folder / f"{name}.ckpt")
    return trainer


class Exact(algorithms.GRPO):
    """Refuses a first step at which the ratio is not exactly 1."""

    def loss(self, minibatch, logprobs):
        if self.global_step == 0:
            assert torch.equal(logprobs, minibatch.old_logprobs)
        return super().loss(minibatch, logprobs)


def mixed(folder: Path, ranks: int, strategy: str) -> None:
    """In mixed precision, with activations checkpointed."""
    algorithm = Exact(policy=policy(), max_new_tokens=LENGTH, passes=2)
    algorithm.policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    data = RolloutDataModule(Told(5, LENGTH, True), prompts_per_iteration=PROMPTS, rows_per_microbatch=8, seed=0)
    options = {**TRAINER_DEFAULTS, "max_epochs": 1, "logger": False, "enable_progress_bar": False}
    flags = {"precision": "bf16-mixed", "accelerator": "cpu", "devices": ranks, "strategy": strategy}
    Trainer(**options, **flags, enable_checkpointing=False, callbacks=[RewardCallback()]).fit(
        algorithm, datamodule=data
    )


def main(strategy: str, folder: Path) -> None:
    ranks = int(os.environ["WORLD_SIZE"])
    for name in NAMES:
        run(name, folder, ranks, FSDP2() if strategy == "fsdp2" else strategy)
    mixed(folder, ranks, strategy)
    for name in RESUMED:
        run(name, folder, ranks, strategy, 2, folder.parent / "one" / f"{name}.ckpt")


if __name__ == "__main__":
    quiet()
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]))
