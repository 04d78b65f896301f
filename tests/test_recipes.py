"""The recipes in configs/ run from the command line's settings, and do what the methods they are named after do."""

import inspect
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from lit_rl.algorithms import Algorithm
from lit_rl.callbacks.reward import HINTED, reward_callback
from lit_rl.commands.cli import CLI
from lit_rl.data import TRAINER_DEFAULTS
from lit_rl.rollouts import response_mask

ROOT = Path(__file__).parents[1]
RECIPES = {path.stem: path for path in sorted((ROOT / "configs").glob("*.yaml"))}
OVER = dict(re.findall(r"^\| \[(\w+)\.yaml\]\(\1\.yaml\) \| (\w+) \|", (ROOT / "configs/README.md").read_text(), re.M))
SMALL = {
    "trainer.max_epochs": 1,
    "trainer.limit_val_batches": 0,
    "trainer.accelerator": "cpu",
    "trainer.logger": "false",
    "trainer.enable_progress_bar": "false",
    "checkpoint.every_n_epochs": 0,
    "diagnostics.every_n_iterations": 0,
    "data.prompts_per_iteration": 2,
    "data.rows_per_microbatch": 4,
    "data.task": "GSM8KStyle",
    "data.task.steps": 4,  # so that some prompts are solved by no response
    "model.max_new_tokens": 64,
}


@pytest.fixture(scope="module")
def ran():
    """Trainer, model and data module of a recipe behind one iteration."""

    @cache
    def run(name):
        cli = CLI(
            args=["--config", str(RECIPES[name]), *(f"--{key}={value}" for key, value in SMALL.items())], run=False
        )
        cli.trainer.fit(cli.model, cli.datamodule)
        return cli

    return run


def given(name):
    return yaml.safe_load(RECIPES[name].read_text())


def table(cli, lengths, advantage=1.0):
    """Responses of these lengths, all of whose tokens have one advantage."""
    rollouts = cli.datamodule.rollouts.select(torch.zeros(len(lengths), dtype=torch.long))
    mask, lengths = response_mask(torch.tensor(lengths), max(lengths)), torch.tensor(lengths)
    zeros = torch.zeros(mask.shape)
    return replace(rollouts, mask=mask, lengths=lengths, old_logprobs=zeros, values=zeros, advantages=zeros + advantage)


def weights(cli, rows, ratios=1.0):
    """What the loss weighs each token's score by, where the policy has moved by these ratios: [N, T]."""
    logprobs = (rows.old_logprobs + torch.as_tensor(ratios).log()).requires_grad_()
    cli.model.loss(rows, logprobs)["policy"].backward()
    return -logprobs.grad


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_and_is_in_the_table(ran, name):
    cli = ran(name)
    rollouts = cli.datamodule.rollouts
    assert type(cli.model).__name__ == OVER[name] and cli.trainer.global_step > 0
    assert rollouts.advantages.isfinite().all() and rollouts.advantages[rollouts.trained].any()
    assert all(value.isfinite() for value in cli.trainer.callback_metrics.values())


@pytest.mark.parametrize("name", RECIPES)
def test_dapo_and_vapo_clip_higher_and_the_others_as_far_above_as_below(ran, name):
    ratios = torch.linspace(0.5, 1.5, 1001)[:, None]
    good, bad = (ratios[weights(ran(name), table(ran(name), [1] * 1001, sign), ratios) != 0] for sign in (1.0, -1.0))
    above, below = float(good.max()) - 1, 1 - float(bad.min())
    assert max(above, below) < 0.4
    assert above > below + 0.05 if name in ("dapo", "vapo") else abs(above - below) < 2e-3 < below


@pytest.mark.parametrize("name", RECIPES)
def test_tokens_of_long_responses_weigh_less_in_ghpo_alone(ran, name):
    """Of GRPO's length bias; DAPO and VAPO take the mean over a step's tokens, which other responses' lengths move."""
    cli = ran(name)
    (short, *_), (long, *_) = weights(cli, table(cli, [2, 8])).tolist()
    beside_long = float(weights(cli, table(cli, [8, 8]))[1, 0])
    assert short == pytest.approx(4 * long if name == "ghpo" else long) and short > 0
    assert long > 1.2 * beside_long if name in ("dapo", "vapo") else long == pytest.approx(beside_long)
    most = cli.model.plan.max_new_tokens
    whole = float(weights(cli, table(cli, [most])).sum())
    assert whole == pytest.approx(most if OVER[name] == "TRePO" else 1)  # Dr.GRPO divides by the most tokens


@pytest.mark.parametrize("name", [name for name, over in OVER.items() if over == "GRPO"])
def test_dr_grpo_alone_does_not_measure_in_deviations_of_the_group(ran, name):
    cli = ran(name)
    rollouts = cli.datamodule.rollouts
    rewards = torch.arange(len(rollouts)) % 3.0
    once, twice = (cli.model.advantages(replace(rollouts, rewards=k * rewards)) for k in (1, 2))
    assert once.any()
    torch.testing.assert_close(twice, (2 if name == "drgrpo" else 1) * once)
    assert (cli.model.reference is None) == (name in ("dapo", "drgrpo"))


@pytest.mark.parametrize("name", ["dapo", "drgrpo", "ghpo"])
def test_dapo_and_ghpo_sample_again_and_pay_for_it(ran, name):
    rollouts, generated = ran(name).datamodule.rollouts, ran(name).trainer.callback_metrics["tokens/generated"]
    assert generated > rollouts.mask.sum() if name != "drgrpo" else generated == rollouts.mask.sum()
    hints = {example[HINTED] for example in rollouts.examples if HINTED in example}
    assert hints <= {1 / 4, 1 / 2, 3 / 4} and bool(hints) == (name == "ghpo")


def test_long_responses_pay_in_dapo_over_the_last_fifth(ran):
    cli = ran("dapo")
    rollouts, reward = cli.datamodule.rollouts, reward_callback(cli.trainer)
    paid = reward.score(cli.trainer, cli.model, rollouts) - reward.rewards(cli.trainer, cli.model, rollouts)
    order = rollouts.lengths.argsort()
    assert (paid[order].diff() >= 0).all() and paid.max() > 0
    most = inspect.signature(Algorithm).parameters["max_new_tokens"].default
    assert given("dapo")["reward"]["overlong"] == pytest.approx(most / 5, abs=1)


@pytest.mark.parametrize("name", RECIPES)
def test_a_critic_s_pretraining_leaves_iterations_to_the_policy(ran, name):
    iterations = {**TRAINER_DEFAULTS, **given(name).get("trainer", {})}["max_epochs"]
    assert given(name)["model"]["init_args"].get("critic_pretraining", 0) < iterations
    assert ran(name).model.waits == (name == "vapo")


def test_vapo_passes_credit_on_further_in_long_responses_and_fits_its_critic_to_returns(ran):
    cli = ran("vapo")
    rows = replace(table(cli, [20, 40, 60]), rewards=torch.ones(3))
    last = rows.lengths - 1
    advantages = cli.model.advantages(rows)
    own, before = (advantages.gather(1, (last - k)[:, None]).squeeze(1) for k in (0, 1))
    assert (own == 1).all() and abs(before[0]) < 1e-6 < before[1] < before[2] < 1  # without a value of the critic
    rollouts = cli.datamodule.rollouts
    returns = rollouts.rewards[:, None].expand_as(rollouts.mask)
    torch.testing.assert_close(rollouts.value_targets[rollouts.mask], returns[rollouts.mask])


def test_vineppo_continues_from_each_line_and_the_prompt_and_trains_on_samples_alone(ran):
    cli = ran("vineppo")
    rollouts = cli.datamodule.rollouts
    forked = rollouts.origin >= 0
    cuts, ids = rollouts.cut[forked], rollouts.response_ids[forked]
    before = ids.gather(1, (cuts - 1).clamp(min=0)[:, None])[cuts > 0]
    assert (cuts == 0).any() and len(before) and {cli.model.policy.decode(token) for token in before} == {"\n"}
    assert not rollouts.trained[forked].any()


def test_spo_continues_from_segments_of_one_length_and_trains_on_what_it_continues(ran):
    rollouts = ran("spo").datamodule.rollouts
    forked = rollouts.origin >= 0
    length = int(rollouts.cut[forked].min())
    assert length > 1 and (rollouts.cut[forked] % length == 0).all()
    assert rollouts.trained[forked].all()
