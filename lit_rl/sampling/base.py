"""What an algorithm asks of a sampler."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lit_rl.policy.causal import CausalPolicy
from lit_rl.rollouts import Rollouts

Progress = Callable[[int, int], None]  # (tokens of a response done, at most)


@dataclass(frozen=True)
class SamplingPlan:
    """The rows of each prompt's group, declared by the algorithm and read by the data module.

    Attributes:
        samples: independent responses, trained on (G).
        greedy: one greedy response, a probe.
        demonstrations: the task's own demonstration instead of samples, trained on.
        temperature: logits are divided by it, here and in every log-probability.
        max_new_tokens: the longest response.
    """

    samples: int = 1
    greedy: bool = False
    demonstrations: bool = False
    temperature: float = 1.0
    max_new_tokens: int = 192

    @property
    def rows(self) -> int:
        """Rows a prompt."""
        return self.samples + self.greedy

    @property
    def trained_rows(self) -> int:
        """Rows a prompt that are trained on."""
        return 1 if self.demonstrations else self.samples


class Sampler(ABC):
    """Whatever generates. Nothing else does."""

    @abstractmethod
    def sample(
        self,
        policy: CausalPolicy,
        prompts: Sequence[Sequence[int]],
        plan: SamplingPlan,
        streams: Sequence[tuple[int, ...]],
        progress: Progress | None = None,
    ) -> Rollouts:
        """Responses to P prompts given as token ids: each prompt's samples, then its greedy probe, prompt by prompt.

        Args:
            streams: for each prompt, integers that name its random stream. Up to rounding, sample g of prompt p is a
                function of the weights, the prompt and ``(*streams[p], g)`` alone: not of its batch or its rank.
            progress: called as the work goes on.

        Returns:
            N = P * plan.rows rows with ``examples`` left empty.
        """
