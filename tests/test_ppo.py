"""PPO in training: its critic, critic pretraining, and one optimizer with two groups."""

import itertools

import pytest
import torch
from lightning import Callback, Trainer

from lit_rl.algorithms import PPO
from lit_rl.algorithms.pretraining import Pretraining
from lit_rl.callbacks import RewardCallback
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.errors import UsageError
from lit_rl.exact.certificate import Claim, certify, random_policy
from lit_rl.exact.tree import grow
from lit_rl.policy import CausalPolicy, TabularPolicy
from lit_rl.policy.critic import Critic
from lit_rl.sampling import LocalSampler, SamplingPlan
from lit_rl.tasks import Additive, KeyToken


def flat(module):
    return torch.cat([p.detach().reshape(-1).clone() for p in module.parameters()])


def gradient_of(module):
    return torch.cat([p.grad.reshape(-1).clone() for p in module.parameters()])


class Watch(Callback):
    """Weights and metrics after each iteration, and the gradients, clipped, of the first optimizer step."""

    def __init__(self):
        self.policies, self.critics, self.curves = [], [], []
        self.clipped = None  # gradients of policy and critic in the first step

    def on_train_start(self, trainer, pl_module):
        self.on_train_epoch_end(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 1 and not pl_module.pretraining.active:
            self.clipped = [gradient_of(module) for module in (pl_module.policy, pl_module.critic)]

    def on_train_epoch_end(self, trainer, pl_module):
        self.policies.append(flat(pl_module.policy))
        self.critics.append(flat(pl_module.critic))
        self.curves.append({k: float(v) for k, v in trainer.callback_metrics.items()})


def moved(weights):
    return [not torch.equal(before, after) for before, after in itertools.pairwise(weights)]


@pytest.mark.parametrize("critic", ["copy", "shared"])
def test_the_policy_stays_as_it_is_while_the_critic_is_pretrained(fit, critic):
    watch = Watch()
    options = {"critic": critic, "critic_pretraining": 2, "patience": 9, "weight_decay": 0.1}
    _, algorithm, _ = fit(PPO, iterations=4, callbacks=(watch,), **options)
    assert moved(watch.policies) == [False, False, True, True] and moved(watch.critics) == [True] * 4
    first, *_, last = watch.curves[1:]
    assert "pretraining/explained_variance" in first and "critic/explained_variance" not in first
    assert "critic/explained_variance" in last and not algorithm.pretraining.active


def test_the_policy_warms_up_when_it_starts(fit):
    trainer, algorithm, _ = fit(
        PPO, iterations=3, critic_pretraining=2, pretraining_passes=3, warmup_steps=10, learning_rate=1.0
    )
    assert int(algorithm.pretraining.started) == 6 == trainer.global_step - 1
    policy, critic = trainer.optimizers[0].param_groups
    assert policy["lr"] == pytest.approx(0.2) and critic["lr"] == pytest.approx(0.8e-3)


def test_pretraining_ends_when_the_explained_variance_has_stopped_rising():
    pretraining = Pretraining(iterations=50, patience=2)
    waits = []
    for step, explained in enumerate([0.0, -0.5, -0.4, -0.2, 0.1, 0.3, 0.305, float("nan"), 0.9]):
        pretraining.look(explained, step)
        waits.append(pretraining.active)
    assert waits == [True] * 7 + [False, False]  # neither .305 nor nothing is a rise, and no rise ends it before one
    assert int(pretraining.started) == 7 and pretraining.steps_since(10) == 3


def test_a_small_rise_counts_once_it_has_added_up():
    pretraining = Pretraining(iterations=50, patience=3)
    for i in range(12):
        pretraining.look(0.004 * i, i)
    assert pretraining.active


@pytest.mark.parametrize("critic", ["copy", "shared"])
def test_a_pretrained_critic_starts_with_more_explained_and_less_bias(critic):
    fits = []
    for iterations in (0, 10):
        watch = Watch()
        task = KeyToken(2, 3, position=1)
        algorithm = PPO(
            critic,
            policy=TabularPolicy(2, 3),
            max_new_tokens=3,
            critic_pretraining=iterations,
            critic_learning_rate=0.1,
        )
        options = {**TRAINER_DEFAULTS, "max_epochs": iterations + 1, "limit_val_batches": 0, "accelerator": "cpu"}
        silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(**options, **silent, callbacks=[RewardCallback(), watch])
        trainer.fit(algorithm, datamodule=RolloutDataModule(task, seed=0))
        fits.append(watch.curves[-1])
    none, some = fits
    assert some["critic/explained_variance"] > 0.3 > 0.01 > none["critic/explained_variance"]
    assert abs(some["critic/bias"]) < 0.3 < abs(none["critic/bias"])


def test_a_large_value_loss_does_not_slow_the_policy(fit):
    """Each group of the one optimizer is clipped by itself."""
    clipped = []
    for coefficient in (0.1, 1e6):
        watch = Watch()
        fit(PPO, callbacks=(watch,), trainer={"gradient_clip_val": 0.5}, value_coefficient=coefficient)
        clipped.append(watch.clipped)
    (policy, _), (same, critic) = clipped
    assert torch.equal(policy, same) and float(policy.norm()) == pytest.approx(0.5, rel=1e-3)
    assert float(critic.norm()) == pytest.approx(0.5, rel=1e-3)


def with_values(**settings):
    """At its start of 0 the head would hide the critic's trunk."""
    algorithm = PPO(**settings)
    torch.nn.init.normal_(algorithm.critic.head.weight, generator=torch.Generator().manual_seed(0))
    return algorithm


def test_values_have_the_same_gradient_whatever_the_micro_batches(fit):
    gradients = []
    for rows in (2, 8):
        watch = Watch()
        options = {"gradient_clip_val": None, "accumulate_grad_batches": 8 // rows}
        data = {"rows_per_microbatch": rows, "prompts_per_iteration": 8}
        fit(with_values, callbacks=(watch,), trainer=options, data=data)
        gradients.append(watch.clipped[1])
    assert float((gradients[0] - gradients[1]).norm()) < 1e-5 * float(gradients[1].norm())


def test_a_shared_trunk_is_trained_by_the_values_and_adds_no_model(fit):
    def gradient(**settings):
        watch = Watch()
        _, algorithm, _ = fit(PPO, callbacks=(watch,), trainer={"gradient_clip_val": None}, **settings)
        return watch.clipped[0], algorithm

    # at the start the head is 0 and hides the trunk from the values
    (own, copied), (with_values, shared) = gradient(), gradient(critic="shared")
    assert torch.allclose(own, with_values, atol=1e-6)
    assert sum(p.numel() for p in shared.critic.parameters()) == shared.policy.model.config.hidden_size + 1
    trunk = copied.policy.model.base_model
    assert sum(p.numel() for p in copied.critic.trunk.parameters()) == sum(p.numel() for p in trunk.parameters())


def test_values_are_in_single_precision_under_autocast(fit):
    _, algorithm, data = fit(with_values, trainer={"precision": "bf16-mixed"})
    values = data.rollouts.values
    assert values.dtype == torch.float32
    assert (values != values.bfloat16().float()).any() and algorithm.critic.head.weight.dtype == torch.float32


def test_what_does_nothing_says_so(fit):
    with pytest.warns(match="critic pretraining may take all"):
        fit(PPO, iterations=1, critic_pretraining=1)


def test_a_value_does_not_see_the_token_that_it_is_the_baseline_of(task):
    """And the critic's own trunk reads the same states as the policy does."""
    token_task = Additive(3, 3, eos=True)
    table, transformer = random_policy(token_task), CausalPolicy().double()
    prompts = [transformer.encode_prompt(row["prompt"]) for row in task.prompts("train").select(range(3))]
    plan = SamplingPlan(samples=1, max_new_tokens=12)
    sampled = LocalSampler().sample(transformer, prompts, plan, [(0, i) for i in range(3)])
    for policy, rollouts in ((table, grow(table, token_task).rollouts(torch.arange(5))), (transformer, sampled)):
        critic = Critic(policy).double()
        torch.nn.init.normal_(critic.head.weight)
        with torch.no_grad():
            logprobs, states = policy.logprobs_and_states(rollouts, 1.0)
            values = critic(rollouts)
            assert torch.allclose(values, critic.read(states, rollouts), atol=1e-9)
            assert torch.allclose(logprobs, policy(rollouts, 1.0), atol=1e-9)
            rollouts.response_ids[:, 1:] = 1
            assert torch.allclose(critic(rollouts)[:, :2], values[:, :2], atol=1e-9)
            assert values.abs().max() > 0.1


class Shifted(PPO):
    """The baseline of a token is the value after it."""

    def advantages(self, rollouts):
        return self.returns(rollouts)[:, None] - torch.roll(rollouts.values, -1, 1)


def test_a_critic_that_has_seen_the_token_is_caught():
    task = Additive(2, 3)

    def build(**kwargs):
        algorithm = Shifted(**kwargs)
        torch.nn.init.normal_(algorithm.critic.head.weight)
        return algorithm

    found = certify(Claim("shifted", build, task))
    assert not found.holds and found.relative_bias > 0.1


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"lambda_actor": 1.5}, "model.lambda_actor is 1.5"),
        ({"lambda_critic": -0.1}, "model.lambda_critic is -0.1"),
        ({"weighting": "full", "lambda_actor": 0.9}, "model.weighting full needs 1"),
        ({"critic_pretraining": -1}, "model.critic_pretraining is -1"),
        ({"patience": 0}, "model.patience is 0"),
        ({"pretraining_passes": 0}, "model.pretraining_passes is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(policy, settings, message):
    with pytest.raises(UsageError, match=message):
        PPO(policy=policy, **settings)
