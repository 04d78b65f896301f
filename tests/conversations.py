"""Environments for the tests, and responses of several turns written without a cache, a batch or padding."""

from dataclasses import dataclass, field

import numpy as np
import torch

from lit_rl.policy import CausalPolicy
from lit_rl.rollouts import Rollouts
from lit_rl.sampling import LocalSampler, SamplingPlan
from lit_rl.tasks import Environment, Turn
from lit_rl.tasks.stepping import Environments, Stepper

STREAMS = [(5, 2), (5, 0), (5, 9)]
QUESTIONS = ["How many?", "Ann has 12 pens. Ann buys 3 more. How many pens does Ann have now?", "12+3="]
EXAMPLES = [{"prompt": [{"role": "user", "content": text}], "most": n + 2} for n, text in enumerate(QUESTIONS)]


class Counting(Environment):
    """Says how long all turns were, pays for the last one, and is done at one in four lengths or after some turns."""

    def reset(self, example):
        self.said, self.most = [], example["most"]
        return example["prompt"]

    def step(self, text):
        self.said.append(len(text))
        total = sum(self.said)
        says = {"role": "user", "content": f"{total} " * (1 + total % 3)}
        return Turn([says], len(text) / 8, total % 4 == 3 or len(self.said) == self.most)


class Dice(Counting):
    """Says a number that it draws, and is done when that is a six."""

    def step(self, text):
        drawn = self.random.randint(1, 6)
        return Turn([{"role": "user", "content": str(drawn)}], drawn, drawn == 6)


class Endless(Environment):
    def reset(self, example):
        return example["prompt"]

    def step(self, text):
        return Turn([{"role": "user", "content": "go on"}], 1.0)


def sampled(
    policy: CausalPolicy,
    plan: SamplingPlan,
    sampler: LocalSampler | None = None,
    make=Counting,
    turns: int = 16,
    some: slice = slice(None),
    seconds: float = 60.0,
) -> Rollouts:
    """Responses to the examples."""
    stepper = Stepper(lambda example: make(), 3, seconds, turns)
    openings = stepper.open(EXAMPLES[some], STREAMS[some])
    prompts = [policy.encode_prompt(opening.messages) for opening in openings]
    sampler = sampler or LocalSampler()
    return sampler.sample(policy, prompts, plan, STREAMS[some], environments=Environments(stepper, openings))


@dataclass
class Written:
    """A response, token by token."""

    ids: list[int] = field(default_factory=list)
    spoken: list[bool] = field(default_factory=list)
    paid: list[float] = field(default_factory=list)  # of each token
    truncated: bool = True


@torch.no_grad()
def simply(
    policy: CausalPolicy, group: int, stream: tuple[int, ...], plan: SamplingPlan, turns: int, prefix: Written
) -> Written:
    """What the sampler's documentation says of a row, or of a continuation of the prefix; for :class:`Counting`.

    The embedded chat template is written out by hand.
    """
    example, environment = EXAMPLES[group], Counting()
    question = environment.reset(example)[0]["content"]
    prompt = policy.tokenizer.encode(f"<user>{question}<assistant>", add_special_tokens=False)
    numbers = np.random.default_rng(stream).random(plan.max_new_tokens, np.float32)
    found = Written(list(prefix.ids), list(prefix.spoken), list(prefix.paid))
    begin, taken = 0, 0
    for i, spoken in enumerate(found.spoken):  # play the prefix's turns
        if spoken and not found.spoken[i - 1]:
            environment.step(policy.decode(torch.tensor(found.ids[begin:i])))
            taken += 1
        begin = i + 1 if spoken else begin
    own = found.spoken.count(False)
    while True:
        logits = policy.model(input_ids=torch.tensor([[*prompt, *found.ids]])).logits[0, -1] / plan.temperature
        cumulative = logits.softmax(-1).cumsum(-1)
        token = int((cumulative <= float(numbers[own]) * cumulative[-1]).sum())
        found.ids.append(token)
        found.spoken.append(False)
        found.paid.append(0.0)
        own += 1
        stopped = token in policy.stop_ids.tolist()
        if not stopped and own < plan.max_new_tokens:
            continue
        turn = environment.step(policy.decode(torch.tensor(found.ids[begin:])))
        taken += 1
        found.paid[-1] = turn.reward
        found.truncated = not (turn.done and stopped)
        if turn.done or not stopped or own == plan.max_new_tokens or taken == turns:
            return found
        text = f"<user>{turn.messages[0]['content']}<assistant>"
        said = policy.tokenizer.encode(text, add_special_tokens=False)
        found.ids += said
        found.spoken += [True] * len(said)
        found.paid += [0.0] * len(said)
        begin = len(found.ids)
