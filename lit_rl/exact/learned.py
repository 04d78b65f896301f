"""The certificate's random stand-ins for what is learned elsewhere: critics, a DPO policy, a reward model."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2ForSequenceClassification

from lit_rl.algorithms import ABC, PPO, RTO, Algorithm
from lit_rl.exact.certificate import Build
from lit_rl.exact.formulas import Formula, with_token_rewards
from lit_rl.exact.tree import Tree, grow
from lit_rl.policy import CausalPolicy, RewardModel, TabularPolicy
from lit_rl.policy.causal import without_dropout
from lit_rl.policy.critic import Critic
from lit_rl.tasks import PositionTask

BETA_DPO, LIMIT = 0.1, 0.05  # of RTO's token rewards
SPREAD = 0.5  # of a random critic's values; rewards are 0 to 1


def with_critic(build: Callable[..., PPO], fill: Callable[[Critic, CausalPolicy], None]) -> Build:
    """The estimator with a critic of given values, in float64."""

    def make(policy: CausalPolicy, **kwargs: Any) -> Algorithm:
        algorithm = build(policy=policy, **kwargs)
        assert algorithm.critic is not None
        fill(algorithm.critic.double(), policy)
        return algorithm

    return make


def randomly(critic: Critic, policy: CausalPolicy) -> None:
    """Values from N(0, 1/4), the same for a critic of the same size."""
    torch.nn.init.normal_(critic.head.weight, std=SPREAD, generator=torch.Generator().manual_seed(1))


def exactly(task: PositionTask, offset: float) -> Callable[[Critic, CausalPolicy], None]:
    """Gives a critic the true values of a table's states, plus ``offset``."""

    def fill(critic: Critic, policy: CausalPolicy) -> None:
        tree = grow(policy, task)
        rollouts = tree.rollouts(torch.arange(len(tree.ids)))
        state = tree.policy.logprobs_and_states(rollouts, 1.0)[1].argmax(-1)
        values = tree.along(tree.v, tree.ids, tree.lengths)
        critic.head.weight.data[0, state[rollouts.mask]] = values[rollouts.mask] + offset

    return fill


def random_errors(tree: Tree) -> Tensor:
    """The errors of the critic of :func:`randomly`, along every leaf: [S, T]."""
    critic = Critic(tree.policy).double()
    randomly(critic, tree.policy)
    with torch.no_grad():
        values = critic(tree.rollouts(torch.arange(len(tree.ids))))
    return values - tree.along(tree.v, tree.ids, tree.lengths)


def from_uniform(build: Callable[..., RTO]) -> Build:
    """RTO whose reference is the uniform policy, with :func:`preferred_policy` as its DPO policy."""

    def make(policy: TabularPolicy, max_new_tokens: int, reference: bool) -> Algorithm:
        start = TabularPolicy(policy.model.config.vocab_size, max_new_tokens, bool(len(policy.stop_ids))).double()
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "dpo.ckpt"
            weights = preferred_policy(start).state_dict()
            torch.save({"state_dict": {f"policy.{name}": x for name, x in weights.items()}}, checkpoint)
            settings = {"beta_dpo": BETA_DPO, "token_limit": LIMIT, "max_new_tokens": max_new_tokens}
            return build(dpo_checkpoint=str(checkpoint), policy=start, **settings)

    return make


def rto_objective(penalty: float) -> Formula:
    """What :func:`from_uniform` makes RTO's objective: E[r + sum_t clip(b log(pi_dpo V)) - penalty log(pi V)]."""

    def earned(tree: Tree) -> Tensor:
        dpo = grow(preferred_policy(tree.policy), tree.task).logprobs
        uniform = -math.log(tree.task.vocabulary)
        rewards = (BETA_DPO * (dpo - uniform)).clamp(-LIMIT, LIMIT) - penalty * (tree.logprobs - uniform)
        return tree.along(rewards, tree.ids, tree.lengths)

    return with_token_rewards("grad E[r + token rewards]", earned)


def preferred_policy(like: CausalPolicy) -> TabularPolicy:
    """A table of logits from N(0, 1) of the same sizes, in float64, which is not the certificate's policy."""
    sizes = like.model.config.vocab_size, like.model.config.max_position_embeddings - 1, bool(len(like.stop_ids))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return TabularPolicy(*sizes, spread=1.0).double()


def by_attention(build: Callable[..., ABC]) -> Build:
    """ABC with the attention of :func:`attentive_model`, in float64."""

    def make(policy: CausalPolicy, **kwargs: Any) -> Algorithm:
        with tempfile.TemporaryDirectory() as folder:
            attentive_model(policy.model.config.vocab_size).model.save_pretrained(folder)
            algorithm = build(reward_model=folder, policy=policy, **kwargs)
        for model in algorithm.frozen:
            model.double()
        return algorithm

    return make


def attentive_model(vocabulary: int) -> RewardModel:
    """A reward model of random weights, large enough for its attention to be anything but uniform."""
    # GPT-2 computes attention in the precision of its weights, others in float32
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "n_positions": 16,
        "n_embd": 16,
        "n_layer": 1,
        "n_head": 2,
        "num_labels": 1,
    }
    config: Any = GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)
    without_dropout(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model: Any = GPT2ForSequenceClassification._from_config(config, attn_implementation="eager")
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
    return RewardModel(model)


def attention(tree: Tree) -> Tensor:
    """The attention of :func:`attentive_model`'s last token along every leaf: [S, T]."""
    model = attentive_model(tree.task.vocabulary).double()
    with torch.no_grad():
        return model.attention(tree.rollouts(torch.arange(len(tree.ids)))).double()


def at_reference(build: Build) -> Build:
    """The estimator at the point where the policy still equals its reference."""
    return lambda **kwargs: build(**{**kwargs, "reference": True})
