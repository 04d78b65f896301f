"""Trees in which each token is read once, beside rows read whole, and iterations that train on continuations."""

from statistics import median

from torch import Tensor

from benchmarks.measure import Line, fit, problems, seconds
from lit_rl.algorithms import GRPO, TRePO
from lit_rl.functional.cuts import Stride
from lit_rl.policy import CausalPolicy
from lit_rl.policy.pieces import of_logits
from lit_rl.policy.reading import whole_inputs
from lit_rl.rollouts import Rollouts
from lit_rl.sampling import LocalSampler, SamplingPlan

GROUP, ROUNDS = 8, 7
SHAPES = {"embedded": (8, 64, 2.2), "embedded-mid": (4, 160, 1.7)}  # prompts, most tokens of a response, target
ITERATIONS, STEPS = 5, 12  # tokens between two cuts: three are forked in a response of 46 tokens


def reading() -> list[Line]:
    lines = [_update(name, *shape) for name, shape in SHAPES.items()]
    arms = {
        "ours": lambda: TRePO(samples=4, max_new_tokens=64, cuts=Stride(STEPS), continuations=2, reuse=True),
        "peer": lambda: GRPO(samples=4, max_new_tokens=64),
    }
    times = {name: median(fit(build(), 32, 128, ITERATIONS)) for name, build in arms.items()}
    ratio = times["peer"] / times["ours"]
    name = "TRePO with reuse (M = 3, K = 2), an iteration of 128 samples: GRPO"
    return [*lines, Line(name, times["ours"], times["peer"], "s", ratio, 1 / 1.6)]


def _update(name: str, prompts: int, most: int, target: float) -> Line:
    """A forward and backward pass over groups of eight, at the lengths that responses have."""
    policy = CausalPolicy(name)
    plan = SamplingPlan(samples=GROUP, max_new_tokens=most)
    rollouts = LocalSampler().sample(policy, problems(policy, prompts)[1], plan, [(i,) for i in range(prompts)])
    whole = lambda: _whole(policy, rollouts).sum().backward()  # noqa: E731
    trees = lambda: policy(rollouts, 1.0).sum().backward()  # noqa: E731
    whole(), trees()
    pairs = [(seconds(trees), seconds(whole)) for _ in range(ROUNDS)]
    ours, peer = (median(values) for values in zip(*pairs, strict=True))
    label = f"forward and backward, {prompts} groups of {GROUP}, {name}: rows read whole"
    return Line(label, ours, peer, "s", median(b / a for a, b in pairs), target)


def _whole(policy: CausalPolicy, rollouts: Rollouts) -> Tensor:
    width = rollouts.response_ids.shape[1]
    logits = policy.model(**whole_inputs(rollouts), use_cache=False, logits_to_keep=width + 1).logits[:, :-1]
    flat = of_logits(logits.flatten(0, 1), rollouts.response_ids.flatten(), entropy=False)[0]
    return flat.view_as(rollouts.mask) * rollouts.mask
