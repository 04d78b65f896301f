"""Scores of a whole table of responses, and the one check of them, whoever gives them."""

import inspect
from collections.abc import Callable
from decimal import Decimal
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from lit_rl.errors import UsageError
from lit_rl.rollouts import Rollouts
from lit_rl.tasks.base import Example, Task

Score = Callable[[Example, Tensor, str], Any]
LARGEST = 1e15  # of a score's size: float32, which rewards are kept in, can still add up the squares of a million such


def score_rows(
    score: Score,
    rollouts: Rollouts,
    texts: list[str],
    setting: str,
    progress: Callable[[int, int], Any] | None = None,
) -> Tensor:
    """``score(example, ids, text)`` of every row, probes included: [N] float32 on the rollouts' device.

    Args:
        score: gives a number: a Python, NumPy or PyTorch one, or a bool.
        rollouts: N rows.
        texts: of the rows' responses.
        setting: that ``score`` comes from, for messages.
        progress: called with the rows done and their number.

    Raises:
        UsageError: ``score`` raised anything but what interrupts a run, or gave what is no number of at most
            LARGEST in size. It names the setting, the row, the prompt and the response.
    """
    ids, lengths, group = rollouts.response_ids.cpu(), rollouts.lengths.tolist(), rollouts.group.tolist()
    scores = []
    for row, text in enumerate(texts):
        example = rollouts.examples[group[row]]
        try:
            value = score(example, ids[row, : lengths[row]], text)
        except (KeyboardInterrupt, UsageError):
            raise
        except BaseException as error:  # SystemExit would end the process as a success
            if isinstance(error, SystemExit) and type(error) is not SystemExit:
                raise  # not the reward's: a signal has come
            reason = f"{type(error).__name__} ({shown(error, str)})"
            raise UsageError(f"{setting} raised {reason} {_where(row, example, text)}; fix it") from error
        found = number(value)
        if not abs(found) <= LARGEST:
            raise UsageError(f"{setting} returned {shown(value)} {_where(row, example, text)}; {_ADVICE}")
        scores.append(found)
        if progress is not None:
            progress(row + 1, len(texts))
    return torch.tensor(scores, dtype=torch.float32, device=rollouts.group.device)


def scores_of(
    task: Task,
    rollouts: Rollouts,
    texts: list[str],
    flexible: bool = False,
    progress: Callable[[int, int], Any] | None = None,
) -> Tensor:
    """The task's scores of every row: [N]. Where an environment has paid for turns, a row's is their sum.

    Args:
        flexible: the more lenient scores.
    """
    if rollouts.turn_rewards is not None:
        # a float32 sum would depend on the width of the table
        return rollouts.turn_rewards.double().sum(1).to(rollouts.turn_rewards)
    score = task.score_flexible if flexible else task.score
    return score_rows(score, rollouts, texts, task.scored_by, progress)


def check_scores(scores: Tensor, rollouts: Rollouts, text: Callable[[int], str], setting: str) -> None:
    """That a model's scores [N] are numbers as :func:`score_rows` wants them; ``text`` gives the response of a row.

    Raises:
        UsageError: one is not. It names the setting, the row, the prompt and the response.
    """
    odd = (~(scores.abs() <= LARGEST)).nonzero().flatten()
    if len(odd):
        row = int(odd[0])
        where = _where(row, rollouts.examples[int(rollouts.group[row])], text(row))
        raise UsageError(f"{setting} returned {float(scores[row])} {where}; {_ADVICE}")


def check_call(score: Score, setting: str) -> None:
    """That a score can be called as ``(example, ids, text)``, as far as it says what it takes.

    Raises:
        UsageError: it takes something else.
    """
    try:
        signature = inspect.signature(score)
    except ValueError:
        return  # a builtin that does not say
    try:
        signature.bind({}, torch.zeros(0, dtype=torch.long), "")
    except TypeError:
        given = f"{getattr(score, '__name__', type(score).__name__)}{signature}"
        raise UsageError(f"{setting}: {given} is called as (example, ids, text); change it") from None


def texts_of(rollouts: Rollouts, decode: Callable[[Tensor], str]) -> list[str]:
    """The text of every row's response."""
    ids, lengths = rollouts.response_ids.cpu(), rollouts.lengths.tolist()
    return [decode(row[:length]) for row, length in zip(ids, lengths, strict=True)]


def shown_turns(rollouts: Rollouts, decode: Callable[[Tensor], str]) -> list[str]:
    """:func:`texts_of`, where an environment has spoken with a line before each turn that says whose it is."""
    if rollouts.spoken is None:
        return texts_of(rollouts, decode)
    found = []
    ids, spoken = rollouts.response_ids.cpu(), rollouts.spoken.cpu()
    for row, length in enumerate(rollouts.lengths.tolist()):
        whose, counts = spoken[row, :length].unique_consecutive(return_counts=True)
        parts = zip(whose.tolist(), ids[row, :length].split(counts.tolist()), strict=True)
        found.append("\n".join(f"[{'environment' if theirs else 'policy'}]\n{decode(part)}" for theirs, part in parts))
    return found


_ADVICE = f"a score is a number of at most {LARGEST:g} in size, and no text"


def number(value: Any) -> float:
    """The value as a float; NaN where it is no number."""
    try:
        item = value.item() if isinstance(value, Tensor) or type(value).__module__ == "numpy" else value
        return float(item) if isinstance(item, Real | Decimal) else float("nan")
    except Exception:  # of tensors with several elements, of integers beyond all floats, of the user's own types
        return float("nan")


def _where(row: int, example: Example, text: str) -> str:
    return f"for row {row + 1} (prompt {prompt_of(example)}, response {shown(text)})"


def prompt_of(example: Example) -> str:
    """An example's last message, for messages to the user."""
    turns = example.get("prompt")
    return shown(
        turns[-1].get("content") if isinstance(turns, list) and turns and isinstance(turns[-1], dict) else turns
    )


def shown(value: Any, write: Callable[[Any], str] = repr, width: int = 80) -> str:
    """The value on one line, cut in the middle to ``width`` characters."""
    try:
        text = " ".join(write(value).split())
    except Exception:  # of the user's own types
        text = f"a {type(value).__name__} that cannot be printed"
    return text if len(text) <= width else f"{text[: width // 2]} ... {text[-width // 2 :]}"
