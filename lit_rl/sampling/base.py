"""What an algorithm asks a sampler for."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature

from lit_rl.errors import UsageError
from lit_rl.functional.cuts import CutRule
from lit_rl.policy.causal import CausalPolicy
from lit_rl.ranges import Ranged
from lit_rl.rollouts import Rollouts
from lit_rl.tasks.stepping import Environments

Progress = Callable[[int, int], None]  # (tokens of a response done, at most)


@dataclass(frozen=True)
class SamplingPlan:
    """The rows of each prompt's group, declared by the algorithm and read by the data module.

    Attributes:
        samples: independent responses, trained on (G).
        greedy: adds one greedy response, a probe.
        demonstrations: the task's own demonstration instead of samples, trained on.
        cuts: where each sample is cut, so that continuations start there.
        continuations: from each cut (K).
        fork_root: whether the prompt is such a cut too.
        reuse: whether continuations are trained on.
        pairs: two of the samples are trained on together; which two is decided by their rewards.
        temperature: logits are divided by it, here and in every log-probability.
        max_new_tokens: the most tokens that the policy writes in a response, in all its turns.
    """

    samples: int = 1
    greedy: bool = False
    demonstrations: bool = False
    cuts: CutRule | None = None
    continuations: int = 0
    fork_root: bool = False
    reuse: bool = False
    pairs: bool = False
    temperature: float = 1.0
    max_new_tokens: int = 192

    def __post_init__(self) -> None:
        if self.continuations and self.cuts is None:
            raise ValueError("continuations need cuts to start from")

    @property
    def rows(self) -> int:
        """Rows a prompt, continuations left out: their number depends on the responses."""
        return self.samples + self.greedy

    @property
    def trained_rows(self) -> int:
        """Rows a prompt that are trained on, continuations left out."""
        return 1 if self.demonstrations else 2 if self.pairs else self.samples


class Sampler(Ranged, ABC, setting="data.sampler"):
    """Whatever generates tokens. Nothing else does.

    Attributes:
        max_model_len: the longest prompt with its response that it takes, in tokens; None takes what the model has
            positions for.
    """

    max_model_len: int | None = None

    @abstractmethod
    def sample(
        self,
        policy: CausalPolicy,
        prompts: Sequence[Sequence[int]],
        plan: SamplingPlan,
        streams: Sequence[tuple[int, ...]],
        progress: Progress | None = None,
        environments: Environments | None = None,
    ) -> Rollouts:
        """Responses to P prompts: each prompt's samples, then its greedy response, prompt by prompt.

        The continuations of the samples, K from each of a sample's cuts, stand after all of these.

        Args:
            policy: that is sampled from.
            prompts: token ids of each prompt.
            plan: which rows are wanted.
            streams: for each prompt, integers that name its random stream, all of one length. Up to rounding, sample g
                of prompt p is a function of the weights, the prompt and ``(*streams[p], g)`` alone, not of its batch or
                rank. So is its continuation k = 1..K from cut c, of its prefix and ``(*streams[p], g, c, k)``. A cut's
                continuations stand in the order of k.
            progress: called as the work goes on.
            environments: what speaks between the policy's turns; None where a response is one turn. What they do then
                belongs to a row's prompt: their random numbers come from the row's stream.

        Returns:
            P * plan.rows rows and the continuations, with ``examples`` left empty.
        """


def check_environments(sampler: Sampler) -> None:
    """That a sampler, maybe of the user's own, can let an environment speak.

    Raises:
        UsageError: its ``sample`` takes none.
    """
    try:
        signature(sampler.sample).bind_partial(environments=None)
    except TypeError:
        raise UsageError(
            f"data.sampler: {type(sampler).__name__}.sample takes no environments, and data.task has one; take "
            "LocalSampler, or a task without"
        ) from None


def positions(policy: CausalPolicy, sampler: Sampler | None = None) -> int | None:
    """The longest prompt with its response, in tokens, that the model can read and the sampler takes.

    None if there is no limit.
    """
    of_model = getattr(policy.model.config, "max_position_embeddings", None)
    limits = (of_model, None if sampler is None else sampler.max_model_len)
    return min((most for most in limits if most is not None), default=None)


def too_much(policy: CausalPolicy, sampler: Sampler, mend: str) -> str:
    """What says of a length that it is beyond :func:`positions`, and what mends that."""
    most = positions(policy, sampler)
    if most == positions(policy):
        return f"that is more than the {most} tokens that the model can read; {mend}"
    return f"that is more than the {most} tokens of data.sampler.max_model_len; raise that, or {mend}"


def check_length(
    policy: CausalPolicy, sampler: Sampler, prompts: Sequence[Sequence[int]], max_new_tokens: int, setting: str
) -> None:
    """That the model and the sampler have positions for the longest response to each prompt.

    Args:
        setting: what ``max_new_tokens`` is called on the command line.

    Raises:
        UsageError: one of them has not.
    """
    longest, most = max(map(len, prompts)), positions(policy, sampler)
    if most is not None and longest + max_new_tokens > most:
        said = too_much(policy, sampler, "lower it")
        raise UsageError(f"{setting} is {max_new_tokens}: with a prompt of {longest} tokens {said}")
