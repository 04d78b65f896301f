"""multi_turn, enumerated: the gradient noise of its arms in all games of GuessNumber that its start can play."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

import torch

from ablations.exact.rows import Row
from ablations.metric_names import PREDICTED
from ablations.studies.multi_turn import BASELINE, GUESS, POLICY, STUDY
from lit_rl.policy import CausalPolicy
from lit_rl.tasks import GuessNumber
from lit_rl.tasks.environment import Message

Chances = Callable[[tuple[str, ...]], list[float]]  # of the guesses, from all that was said, in order


@dataclass
class State:
    """Where a guess is due.

    Attributes:
        chances: of the guesses, from 1 on.
        ends: what each leads to: another state, or the reward.
    """

    chances: Sequence[float]
    ends: "Sequence[State | float]"

    @cached_property
    def value(self) -> float:
        return sum(chance * worth(end) for chance, end in zip(self.chances, self.ends, strict=True))


class Game(NamedTuple):
    """A response, whose turns are a guess and the token that ends the turn.

    Attributes:
        probability: of the response.
        values: V before each of the policy's tokens, and the reward behind the last one.
        scores: squared length of each token's score function at the logits.
    """

    probability: float
    values: tuple[float, ...]
    scores: tuple[float, ...]


def worth(end: State | float) -> float:
    return end.value if isinstance(end, State) else end


def rows(smoke: bool) -> list[Row]:
    """A row an arm; with ``smoke`` of the first three.

    Turns other than a number are left out: the start has hardly any.
    """
    task, policy = GuessNumber(), CausalPolicy(**POLICY["init_args"])
    chances = guesses(policy, task.largest)
    numbers = [list(games(grow(task, number, chances))) for number in range(1, task.largest + 1)]
    arms = {arm.name: arm.config["model"] for arm in STUDY.arms if arm.frozen and arm.task == GUESS}
    found = {name: noise(numbers, model["class_path"], model["init_args"]) for name, model in arms.items()}
    most = {name: tokens(numbers, model["init_args"]) for name, model in arms.items()}
    other = f"{GUESS} {BASELINE}, frozen"
    lines: list[Row] = []
    for name, predicted in found.items():
        if predicted is None:
            continue
        ratio = predicted / (found[other] or 1.0)
        line: Row = {"task": GUESS, "arm": name, "generated tokens per response": most[name]}
        lines.append({**line, PREDICTED: ratio, "predicted noise per token": ratio * most[name] / most[other]})
    return lines[:3] if smoke else lines


def guesses(policy: CausalPolicy, largest: int) -> Chances:
    """What the policy guesses."""
    texts = [policy.encode_text(str(guess)) for guess in range(1, largest + 1)]
    assert all(len(ids) == 1 for ids in texts)
    tokens = torch.tensor(texts).squeeze(1)

    @cache
    @torch.no_grad()
    def chances(said: tuple[str, ...]) -> list[float]:
        messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
        logits = policy.model(input_ids=torch.tensor([policy.encode_prompt(messages)])).logits[0, -1]
        return logits.double()[tokens].softmax(0).tolist()

    return chances


def grow(task: GuessNumber, number: int, chances: Chances) -> State:
    """The first state of all games for a number, as the task's environment plays them."""
    example = {"prompt": task.prompts("train")[0]["prompt"], "number": number}
    game = task.environment(example)

    def state(messages: Sequence[Message], before: Any) -> State:
        ends: list[State | float] = []
        for guess in range(1, task.largest + 1):
            game.restore(before)
            turn = game.step(str(guess))
            said = [*messages, {"role": "assistant", "content": str(guess)}, *turn.messages]
            ends.append(turn.reward if turn.done else state(said, game.state()))
        return State(chances(tuple(message["content"] for message in messages)), ends)

    return state(game.reset(example), game.state())


def games(
    state: State, probability: float = 1.0, values: tuple[float, ...] = (), scores: tuple[float, ...] = ()
) -> Iterator[Game]:
    """All responses from a state on; the arguments are of what comes before."""
    together = sum(chance**2 for chance in state.chances)
    for chance, end in zip(state.chances, state.ends, strict=True):
        known = *values, state.value, worth(end)
        own = *scores, 1 - 2 * chance + together, 0.0  # what ends the turn is certain
        if isinstance(end, State):
            yield from games(end, probability * chance, known, own)
        else:
            yield Game(probability * chance, (*known, end), own)


def noise(numbers: Sequence[Sequence[Game]], model: str, arguments: dict[str, Any]) -> float | None:
    """E[sum_t A_t^2 |psi_t|^2] of a response, the mean over numbers; None for an estimator that is not known.

    It is the noise of a table that plays as the policy does, up to the square of its gradient. Values are exact, and
    errors of their estimates independent: Var r / (G - 1) at the prompt, V (1 - V) / K at a cut.
    """
    if model not in ("REINFORCE", "RLOO", "TRePO"):
        return None

    def of(number: Sequence[Game]) -> float:
        root = number[0].values[0]
        total = 0.0
        for game in number:
            *_, reward = game.values
            if model == "REINFORCE":
                total += game.probability * reward**2 * sum(game.scores)
                continue
            ends = [0, *_cuts(game, arguments), len(game.scores)]
            errors = [game.values[t] * (1 - game.values[t]) / arguments.get("continuations", 1) for t in ends]
            errors[0], errors[-1] = root * (1 - root) / (arguments["samples"] - 1), 0.0
            for (here, there), error in zip(pairwise(ends), map(sum, pairwise(errors)), strict=True):
                change = game.values[there] - game.values[here]
                total += game.probability * (change**2 + error) * sum(game.scores[here:there])
        return total

    return fmean(map(of, numbers))


def tokens(numbers: Sequence[Sequence[Game]], arguments: dict[str, Any]) -> float:
    """Generated tokens of a response with its continuations, the mean over numbers."""

    def of(game: Game) -> float:
        length, copies = len(game.scores), arguments.get("continuations", 0)
        return length + copies * sum(length - cut for cut in _cuts(game, arguments))

    return fmean(sum(game.probability * of(game) for game in number) for number in numbers)


def _cuts(game: Game, arguments: dict[str, Any]) -> range:
    """Where the response is cut, the prompt left out."""
    if "cuts" not in arguments:
        return range(0)
    every = 2 if arguments["cuts"]["class_path"].endswith("Turns") else arguments["cuts"]["init_args"]["every"]
    return range(every, len(game.scores), every)
