"""``python -m lit_rl fit-reward``: a reward model, as good or as bad as it is meant to be."""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from jsonargparse import Namespace
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping

from lit_rl.commands.options import in_order
from lit_rl.commands.parser import DEFAULT_LENGTH, Parser, bare_tokens, built, free_folder
from lit_rl.errors import UsageError
from lit_rl.policy import CausalPolicy, RewardModel
from lit_rl.policy.reward_fitting import (
    RewardFitting,
    flip,
    from_policy,
    from_scratch,
    held_out_loader,
    ordered_pairs,
    ties,
    training_loader,
)
from lit_rl.ranges import Count, Positive, Ranged, Seed, Several, Share, check_classes
from lit_rl.rollouts import Rollouts
from lit_rl.sampling import LocalSampler, SamplingPlan, check_length
from lit_rl.tasks import Task
from lit_rl.tasks.base import Split
from lit_rl.tasks.scoring import score_rows, texts_of
from lit_rl.tracking.run_logger import RunLogger

DESCRIPTION = "Fits a reward model to a task's scores of a policy's responses, and writes it for --reward.model of fit."
EXPERIMENT = "reward_models"
SIZES = {"hidden_size": 96, "layers": 3, "heads": 4}  # the embedded policy's
RANKED = "val/pair_accuracy"
FIT, HELD_OUT = 4, 5  # random streams that neither training nor evaluation of a policy uses

CARD = """\
# A reward model of {task}

Scores the token ids of a prompt and a response, from the vocabulary of the policy below ({vocabulary} tokens). It is
a sequence classifier of transformers with one label and {parameters:,} parameters.
Made by `python -m lit_rl fit-reward`, used by `python -m lit_rl fit --reward.model FOLDER`.

**It is as accurate as it was made to be**: its size, the data and the share of labels flipped on purpose are settings,
so that a stronger reward model, or one of equal accuracy and another kind, can be set beside it. What it measures is
what these settings do, not how good a reward model could be.

| made with | |
|---|---|
{settings}

| data, and results of the last epoch; `val` is held out and never flipped | |
|---|---|
{results}

The whole configuration, and these numbers, are in `reward_model.json`.
"""


@dataclass
class Recipe(Ranged, setting=""):
    """How a reward model is made.

    Args:
        output: the folder to write it to; new or empty.
        objective: pairs: prefers the better of two responses to a prompt, Bradley and Terry's -log sigmoid(s_w - s_l),
            for all pairs with different task scores. outcomes: predicts the task's score, 0 to 1, by cross-entropy.
        prompts: number of training prompts that are answered; they repeat if the split train has fewer.
        eval_prompts: number of prompts of the split val, held out.
        samples: responses to each prompt.
        label_noise: share of the training pairs (or outcomes) that are flipped on purpose.
        start: policy: starts from a copy of the policy. random: starts from a Llama with random weights.
        hidden_size: of a random start; if left out, that of the embedded policy. So are the next two.
        layers: of a random start.
        heads: of a random start.
        epochs: passes over the training pairs (or outcomes), at most.
        until: stop after the pass in which ``val/pair_accuracy``, the share of held-out pairs that are ranked as the
            task does, reaches this; null makes all passes.
        learning_rate: of AdamW.
        batch_rows: responses in an update; a pair is two.
        max_new_tokens: the most tokens of a response; if left out, a task without text (KeyToken) takes its own length.
        seed_everything: seed of prompts, samples, flips, random weights and batches.
    """

    output: str
    objective: Literal["pairs", "outcomes"] = "pairs"
    prompts: Count = 1024
    eval_prompts: Count = 256
    samples: Several = 4
    label_noise: Share = 0.0
    start: Literal["policy", "random"] = "policy"
    hidden_size: Count | None = None
    layers: Count | None = None
    heads: Count | None = None
    epochs: Count = 4
    until: Share | None = None
    learning_rate: Positive = 5e-4
    batch_rows: Count = 64
    max_new_tokens: Count = DEFAULT_LENGTH
    seed_everything: Seed = 0

    def __post_init__(self) -> None:
        given = [name for name in SIZES if getattr(self, name) is not None]
        if self.start == "policy" and given:
            raise UsageError(
                f"{given[0]} is only for start random, but start is policy; set start random, or leave it out"
            )

    @property
    def sizes(self) -> dict[str, int]:
        return {name: size if (size := getattr(self, name)) is not None else own for name, own in SIZES.items()}


def fit_reward(args: list[str]) -> int:
    """Runs the subcommand; returns the exit code."""
    parser = Parser(prog="python -m lit_rl fit-reward", description=DESCRIPTION)
    parser.add_argument("--data.task", type=Task, help="where prompts and scores come from (default: GSM8KStyle)")
    parser.add_argument("--model.policy", type=CausalPolicy | None, help="whose responses (default: as in fit)")
    parser.add_class_arguments(Recipe)
    config = parser.parse_args(in_order(args, {"data.task": "GSM8KStyle"}))
    check_classes(config.as_dict())
    model = Namespace(policy=config.model.policy, max_new_tokens=config.max_new_tokens)
    bare_tokens(config.data.task, model)
    config.model.policy, config.max_new_tokens = model.policy, model.max_new_tokens
    recipe = Recipe(**{field.name: config[field.name] for field in fields(Recipe)})
    output = free_folder(recipe.output)
    seed_everything(recipe.seed_everything, verbose=False)
    objects = built(parser, config)
    if objects.data.task.converses():
        raise UsageError("data.task: it has an environment, which fit-reward does not play; give another task")
    policy = objects.model.policy if objects.model.policy is not None else CausalPolicy()
    reward_model, found = make(objects.data.task, policy, recipe)
    _write(output, reward_model, policy, recipe, yaml.safe_load(parser.dump(config, skip_none=False)), found)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    print(f"{output}: {shown}")
    return 0


def make(task: Task, policy: CausalPolicy, recipe: Recipe) -> tuple[RewardModel, dict[str, float]]:
    """Samples, scores, fits and judges; logs to MLflow. Returns the model, and the counts and last held-out numbers.

    Raises:
        UsageError: no two responses to a prompt have different scores, or a setting that fits neither task nor policy.
    """
    model = from_policy(policy) if recipe.start == "policy" else from_scratch(policy, **recipe.sizes)
    logger = RunLogger(EXPERIMENT)
    trainer = Trainer(
        max_epochs=recipe.epochs,
        devices=1,
        logger=logger,
        gradient_clip_val=1.0,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        callbacks=[] if recipe.until is None else [_stop_at(recipe)],
    )
    policy.to(trainer.strategy.root_device)
    train, held_out = (_sample(task, policy, recipe, split) for split in ("train", "val"))
    rows, labels = _labels(train, recipe)
    fitting = RewardFitting(model, held_out, recipe.objective == "outcomes", recipe.learning_rate)
    logger.log_hyperparams({**asdict(recipe), "task": type(task).__name__, "policy": type(policy).__name__})
    trainer.fit(
        fitting,
        training_loader(train, rows, flip(labels, recipe.label_noise, recipe.seed_everything), recipe.batch_rows),
        held_out_loader(held_out, recipe.batch_rows),
    )
    counts = {"train/responses": len(train), "train/pairs": len(ordered_pairs(train)), "train/ties": ties(train)}
    counts |= {"val/responses": len(held_out), "val/pairs": len(ordered_pairs(held_out)), "val/ties": ties(held_out)}
    logger.log_metrics(counts)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name != "step"}
    if recipe.until is not None and metrics[RANKED] < recipe.until - 1e-6:
        print(
            f"lit_rl: {RANKED} is {metrics[RANKED]:.4g} after {recipe.epochs} epochs, below until {recipe.until:g}; "
            "raise epochs or prompts",
            file=sys.stderr,
        )
    return model, {**counts, **metrics}


def _stop_at(recipe: Recipe) -> EarlyStopping:
    """Stops once the held-out accuracy is what was asked for, and for nothing else."""
    assert recipe.until is not None
    above = recipe.until - 1e-6  # it has to be passed
    return EarlyStopping(RANKED, mode="max", patience=recipe.epochs, stopping_threshold=above)


def _sample(task: Task, policy: CausalPolicy, recipe: Recipe, split: Split) -> Rollouts:
    """The policy's responses to prompts of the split, with the task's scores, on the CPU."""
    examples: Any = task.prompts(split)
    n, seed = len(examples), recipe.seed_everything
    if split == "train":
        order: Sequence[int] = np.random.default_rng(seed).permutation(n).tolist()
        chosen, stream = [order[i % n] for i in range(recipe.prompts)], FIT
    else:
        chosen, stream = list(range(min(n, recipe.eval_prompts))), HELD_OUT
    prompts = [policy.encode_prompt(examples[i]["prompt"]) for i in chosen]
    sampler = LocalSampler()
    check_length(policy, sampler, prompts, recipe.max_new_tokens, "max_new_tokens")
    plan = SamplingPlan(samples=recipe.samples, max_new_tokens=recipe.max_new_tokens)
    rollouts = sampler.sample(policy, prompts, plan, [(seed, 0, stream, i) for i in range(len(chosen))])
    rollouts.examples = [examples[i] for i in chosen]
    rollouts.rewards = score_rows(task.score, rollouts, texts_of(rollouts, policy.decode), task.scored_by)
    rewards = rollouts.rewards
    if recipe.objective == "outcomes" and (rewards.min() < 0 or rewards.max() > 1):
        raise UsageError(
            f"objective is outcomes, and the task's scores go from {rewards.min():g} to {rewards.max():g}, beyond "
            "0..1; set objective pairs"
        )
    if not len(ordered_pairs(rollouts)):
        raise UsageError(
            f"samples is {recipe.samples}: no two responses to one prompt of the split {split} have different scores, "
            "so there is nothing to tell apart; raise samples or prompts, or take another policy or task"
        )
    return rollouts.to("cpu")


def _labels(rollouts: Rollouts, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """Row numbers [n, 2] or [n, 1] and labels [n] of the objective, none of them flipped."""
    rewards = rollouts.rewards
    assert rewards is not None
    if recipe.objective == "pairs":
        rows = ordered_pairs(rollouts)
        return rows, torch.ones(len(rows))
    return torch.arange(len(rollouts))[:, None], rewards


def _write(
    folder: Path,
    model: RewardModel,
    policy: CausalPolicy,
    recipe: Recipe,
    config: dict[str, Any],
    found: dict[str, float],
) -> None:
    """Everything beside the folder first, then moved there at once."""
    settings = {**_described(config), **asdict(recipe), **(recipe.sizes if recipe.start == "random" else {})}
    del settings["output"]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        part = Path(beside) / folder.name
        model.model.save_pretrained(part)
        if hasattr(policy, "tokenizer"):
            policy.tokenizer.save_pretrained(part)
        card = CARD.format(
            task=settings["task"].split()[0],
            vocabulary=policy.model.config.vocab_size,
            parameters=sum(p.numel() for p in model.parameters()),
            settings="\n".join(f"| {name} | {value} |" for name, value in settings.items() if value is not None),
            results="\n".join(f"| {name} | {value:.4g} |" for name, value in found.items()),
        )
        (part / "README.md").write_text(card)
        (part / "reward_model.json").write_text(json.dumps({"config": config, "results": found}, indent=2) + "\n")
        part.rename(folder)


def _described(config: dict[str, Any]) -> dict[str, str]:
    """Task and policy by their class's name and its settings."""
    chosen = {"task": config["data"]["task"], "policy": config["model"]["policy"]}
    return {
        key: f"{value['class_path'].rpartition('.')[2]} `{json.dumps(value.get('init_args', {}))}`"
        if value
        else "embedded"
        for key, value in chosen.items()
    }
