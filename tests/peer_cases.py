"""TRL's losses and gradients beside ours, on the same weights and responses, and what explains their differences."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from peers import ROWS, GivenGRPO, GivenRLOO, hand_over, make_trainer
from torch import Tensor

from lit_rl.algorithms import GRPO, RLOO, Algorithm
from lit_rl.functional.losses import clipped_fraction
from lit_rl.policy import CausalPolicy
from lit_rl.rollouts import Rollouts
from lit_rl.sampling import LocalSampler, SamplingPlan
from lit_rl.tasks import GSM8KStyle

G, T, TEMPERATURE = 4, 50, 0.7
EPSILON = 1e-4  # what TRL adds to a standard deviation


class Step(NamedTuple):
    """Loss and gradient [D] of one optimizer step."""

    loss: float
    gradient: Tensor


@dataclass(frozen=True)
class Case:
    """An estimator of TRL with the arguments of ours that come closest.

    Attributes:
        theirs: of TRL's RLOOConfig where ``model`` is RLOO, of its GRPOConfig otherwise.
        ours: of ``model``.
        differs: in words.
        explain: makes, of our prepared rollouts and before each step, those on which our loss has TRL's gradient; None
            where nothing differs.
        same_loss: the loss is explained with it; otherwise the gradient alone.
        microbatches: that TRL takes a step in; ours takes one.
    """

    theirs: dict[str, Any]
    ours: dict[str, Any]
    differs: str = "nothing"
    explain: Callable[["Pair"], Rollouts] | None = None
    same_loss: bool = True
    model: type[Algorithm] = GRPO
    microbatches: int = 2


class Pair:
    """A trainer of TRL and an algorithm of ours with the same weights, and the same responses to the same prompts.

    The weights have left the reference before they count as those that sampled.
    """

    def __init__(self, case: Case) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            policy = CausalPolicy(weights="random")
        self.rollouts = responses(policy)
        model = copy.deepcopy(policy.model)
        self.algorithm = case.model(policy=policy, samples=G, temperature=TEMPERATURE, max_new_tokens=T, **case.ours)
        lengths = {"max_completion_length": T, "temperature": TEMPERATURE}
        # two steps on the same responses: else TRL's GRPO keeps no old log-probabilities
        steps = {"gradient_accumulation_steps": case.microbatches, "num_iterations": 2}
        kind, rows = GivenRLOO if case.model is RLOO else GivenGRPO, len(self.rollouts) // case.microbatches
        self.trainer = make_trainer(kind, model, policy.tokenizer, G, rows, **lengths, **steps, **case.theirs)
        self.trainer.current_gradient_accumulation_steps = self.microbatches = case.microbatches
        if self.trainer.ref_model is not None:  # loaded from where the model's configuration was
            self.trainer.ref_model.load_state_dict(policy.model.state_dict())
        self.move()
        self.algorithm.prepare(self.rollouts, ROWS)
        self.examples = hand_over(self.trainer, self.rollouts)

    def move(self) -> None:
        """Adds the same noise to the weights of both, enough for clipping to act."""
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.algorithm.policy.parameters():
                parameter += 0.3 * parameter.std() * torch.randn(parameter.shape, generator=generator)
        self.trainer.model.load_state_dict(self.algorithm.policy.model.state_dict())

    def theirs(self) -> Step:
        """TRL's next step; it makes two on the same responses."""
        model = self.trainer.model
        model.zero_grad()
        loss = sum(self.trainer.training_step(model, self.examples, None) for _ in range(self.microbatches))
        return Step(float(loss), _gradient(model))

    def ours(self, rollouts: Rollouts | None = None) -> Step:
        """Our step on these rollouts; None takes the prepared ones."""
        rollouts, policy = rollouts or self.rollouts, self.algorithm.policy
        policy.zero_grad()
        loss = torch.stack(list(self.algorithm.loss(rollouts, *self.algorithm.predictions(rollouts)).values())).sum()
        loss.backward()
        return Step(loss.item(), _gradient(policy))


def responses(policy: CausalPolicy) -> Rollouts:
    """G responses to each of 3 prompts of different lengths, some truncated, with made-up rewards in 0..1."""
    examples = [GSM8KStyle(steps=steps, train_size=1).prompts("train")[0] for steps in (2, 3, 4)]
    prompts = [policy.encode_prompt(example["prompt"]) for example in examples]
    plan = SamplingPlan(samples=G, temperature=TEMPERATURE, max_new_tokens=T)
    rollouts = LocalSampler().sample(policy, prompts, plan, [(0, i) for i in range(len(prompts))])
    rollouts.rewards = (rollouts.response_ids * rollouts.mask).sum(1) % 7 / 6
    rollouts.examples = examples
    return rollouts


class Found(NamedTuple):
    """A step of both.

    Attributes:
        distance: |their gradient - ours| / |ours|.
        unexplained: the same, ours on the rollouts that explain what differs.
        loss: |their loss - that of the explained rollouts| / mean |advantage|.
        clipped: the share of tokens whose gradient our clipping removes.
    """

    distance: float
    unexplained: float
    loss: float
    clipped: float


def compare(case: Case) -> list[Found]:
    """The first step, on the weights that sampled, and a second one on the same responses with moved weights."""
    pair, found = Pair(case), []
    for _ in range(2):
        theirs, ours = pair.theirs(), pair.ours()
        explained = ours if case.explain is None else pair.ours(case.explain(pair))
        table, algorithm = pair.rollouts, pair.algorithm
        removed = clipped_fraction(
            _logprobs(pair), table.old_logprobs, table.advantages, table.mask, algorithm.clip_low, algorithm.clip_high
        )
        loss = abs(theirs.loss - explained.loss) / float(table.advantages.abs().mean())
        found.append(Found(_distance(theirs, ours), _distance(theirs, explained), loss, float(removed)))
        pair.move()
    return found


def _distance(theirs: Step, ours: Step) -> float:
    return float((theirs.gradient - ours.gradient).norm() / ours.gradient.norm())


def _gradient(model: Any) -> Tensor:
    return torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])


# ---- what differs ---------------------------------------------------------------------------------------------------


def epsilon(pair: Pair) -> Rollouts:
    """TRL's advantages are ours times s / (s + 1e-4), s the group's standard deviation."""
    table = copy.copy(pair.rollouts)
    deviation = torch.stack([group.std() for group in table.rewards.split(G)])[table.group]
    table.advantages = table.advantages * (deviation / (deviation + EPSILON))[:, None]
    return table


def no_truncated_tokens(pair: Pair) -> Rollouts:
    """Truncated responses stay in their group's mean and among the rows, without a token in the loss."""
    table = copy.copy(pair.rollouts)
    table.mask = table.mask & ~table.truncated[:, None]
    return table


def microbatch_means(pair: Pair) -> Rollouts:
    """The mean over tokens is each micro-batch's own."""
    table = copy.copy(pair.rollouts)
    batches = [batch["completion_ids"] for batch in pair.trainer._buffered_inputs]
    member = torch.stack([(ids[:, None] == table.response_ids).all(-1).any(0) for ids in batches])  # [batches, N]
    share = (member * table.lengths).sum(1) / table.lengths.sum()
    table.advantages = table.advantages * (member / share[:, None] / len(batches)).sum(0)[:, None]
    return table


def sequence_ratio(pair: Pair) -> Rollouts:
    """One ratio a response, the product of its tokens'; beyond the clipping range the whole response is left out."""
    logprobs = _logprobs(pair)
    # summed before they are subtracted, as TRL does: in float32 that rounds
    ratio = (logprobs.sum(1) - pair.rollouts.old_logprobs.sum(1)).exp()[:, None]
    return _on_policy(pair, logprobs, ratio * _unclipped(ratio, pair.rollouts.advantages))


def ratio_in_the_penalty(pair: Pair) -> Rollouts:
    """The penalty's gradient, d psi with d = log pi / pi_ref, is multiplied by the ratio of the token."""
    logprobs, table = _logprobs(pair), pair.rollouts
    ratio = (logprobs - table.old_logprobs).exp()
    penalty = ratio * pair.algorithm.kl_coefficient * (logprobs - table.reference_logprobs)
    table = _on_policy(pair, logprobs, ratio * _unclipped(ratio, table.advantages))
    table.advantages, table.reference_logprobs = table.advantages - penalty, logprobs
    return table


def _logprobs(pair: Pair) -> Tensor:
    with torch.no_grad():
        return pair.algorithm.policy(pair.rollouts, TEMPERATURE)


def _unclipped(ratio: Tensor, advantages: Tensor) -> Tensor:
    return torch.where(advantages > 0, ratio <= 1.2, ratio >= 0.8)


def _on_policy(pair: Pair, logprobs: Tensor, weight: Tensor) -> Rollouts:
    """Rollouts as if sampled by the present weights, their advantages times ``weight``."""
    table = copy.copy(pair.rollouts)
    table.advantages, table.old_logprobs = table.advantages * weight, logprobs
    return table


RAW, TOKENS, NONE = {"scale_by_std": False}, {"normalizer": "token_mean"}, {"scale_rewards": "none"}
PENALTY = {**RAW, "kl_coefficient": 0.04}
ADDED = {"differs": "TRL adds 1e-4 to the standard deviation", "explain": epsilon}
MASKED = {"differs": "TRL leaves out truncated responses; ours trains on them", "explain": no_truncated_tokens}
SEQUENCE = {
    "model": RLOO,
    "differs": "TRL clips one ratio per response; ours has one per token, not clipped",
    "explain": sequence_ratio,
    "same_loss": False,
}
CASES = [
    Case({}, TOKENS, **ADDED),
    Case({"epsilon_high": 0.28}, {**TOKENS, "clip_high": 0.28}, **ADDED),
    Case({"loss_type": "grpo"}, {}, **ADDED),
    Case({"loss_type": "dr_grpo"}, {"normalizer": "constant"}, **ADDED),
    Case({"loss_type": "grpo", **NONE}, RAW),
    Case({"loss_type": "dr_grpo", **NONE}, {**RAW, "normalizer": "constant"}),
    Case({"loss_type": "bnpo", **NONE}, {**RAW, **TOKENS}, microbatches=1),
    Case(
        {"loss_type": "bnpo", **NONE},
        {**RAW, **TOKENS},
        "TRL takes the mean over the tokens of each micro-batch; ours over those of the optimizer step",
        microbatch_means,
    ),
    Case({**NONE, "mask_truncated_completions": True}, {**RAW, **TOKENS}, **MASKED),
    Case({"loss_type": "grpo", **NONE, "mask_truncated_completions": True}, RAW, **MASKED),
    Case(
        {"loss_type": "grpo", **NONE, "beta": 0.04},
        {**PENALTY, "kl": "k2_loss"},
        "TRL's penalty is k3 times the ratio; its gradient is that of k2 times the ratio",
        ratio_in_the_penalty,
        same_loss=False,
    ),
    Case({"loss_type": "grpo", **NONE, "beta": 0.04, "use_bias_correction_kl": False}, {**PENALTY, "kl": "k3_loss"}),
    Case({"beta": 0.0}, {}, **SEQUENCE),
    Case({}, {"kl_coefficient": 0.05}, **SEQUENCE),
]
