"""The enumerated noise of multi_turn: against simulated games, whose estimates know no exact value."""

import random
import re
from itertools import pairwise

import pytest

from ablations.exact.multi_turn import Game, State, games, grow, noise, rows, tokens, worth
from ablations.studies.multi_turn import AT_STRIDES, AT_TURNS, GUESS, STUDY, TASKS
from ablations.studies.parts import cuts
from lit_rl.tasks import GuessNumber

TASK = GuessNumber(largest=4, guesses=3)


def chances(said):
    """Uneven, and other ones after each hint."""
    weights = [1 + (3 * guess + 5 * len(said) + sum(map(len, said))) % 4 for guess in range(TASK.largest)]
    return [weight / sum(weights) for weight in weights]


NUMBERS = [list(games(grow(TASK, number, chances))) for number in (1, 3)]
ROOTS = [grow(TASK, number, chances) for number in (1, 3)]


def play(state, rng):
    """A response from a state on: its guesses' chances and squared score functions, the states, and the reward."""
    states, scores = [], []
    while isinstance(state, State):
        states.append(state)
        guess = rng.choices(range(len(state.chances)), state.chances)[0]
        psi = [(i == guess) - chance for i, chance in enumerate(state.chances)]
        scores += [sum(x * x for x in psi), 0.0]
        state = state.ends[guess]
    return states, scores, state


def simulated(root, every, samples, k, rng):
    """A group's sum over tokens of A^2 |psi|^2, a response, by other responses and by continuations."""
    group = [play(root, rng) for _ in range(samples)]
    rewards = [reward for _, _, reward in group]
    total = 0.0
    for i, (states, scores, reward) in enumerate(group):
        at = [0, *range(every, len(scores), every)]
        values = [(sum(rewards) - rewards[i]) / (samples - 1)]
        for cut in at[1:]:  # before a guess, or behind one that has decided where to go on
            behind = (
                states[cut // 2] if cut % 2 == 0 else states[cut // 2 + 1] if cut // 2 + 1 < len(states) else reward
            )
            values.append(sum(play(behind, rng)[2] for _ in range(k)) / k)
        ends = [*at, len(scores)]
        for (here, there), (before, after) in zip(pairwise(ends), pairwise([*values, reward]), strict=True):
            total += (after - before) ** 2 * sum(scores[here:there])
    return total / samples


@pytest.mark.parametrize(("every", "samples", "k"), [(99, 3, 1), (2, 4, 1), (3, 2, 2), (1, 3, 2)])
def test_the_enumerated_noise_is_that_of_simulated_games(every, samples, k):
    rng = random.Random(0)
    found = [simulated(root, every, samples, k, rng) for root in ROOTS for _ in range(6000)]
    arguments = {"samples": samples}
    if every < 99:
        rule = cuts("Turns") if every == 2 else cuts("Stride", every=every)
        arguments |= {"cuts": rule, "continuations": k}
    mean = sum(found) / len(found)
    error = (sum((x - mean) ** 2 for x in found) / len(found) ** 2) ** 0.5
    assert abs(noise(NUMBERS, "TRePO" if every < 99 else "RLOO", arguments) - mean) < 4 * error


def test_games_are_all_there_with_the_values_of_the_task():
    """Of guesses that depend on what is left alone, the task knows the value itself."""
    uniform = GuessNumber(largest=5, guesses=2)
    strategy = lambda low, high, left: [1 / (high - low + 1)] * (high - low + 1)

    def heeding(said):
        low, high = 1, 5
        for guess, hint in zip(said[1::2], said[2::2], strict=True):
            low, high = (int(guess) + 1, high) if hint == "higher" else (low, int(guess) - 1)
        return [float(low <= n <= high) / max(1, high - low + 1) for n in range(1, 6)]

    roots = [grow(uniform, number, heeding) for number in range(1, 6)]
    assert sum(root.value for root in roots) / 5 == pytest.approx(uniform.value(1, 5, 2, strategy))
    for root in roots:
        found = list(games(root))
        assert sum(game.probability for game in found) == pytest.approx(1)
        assert sum(game.probability * game.values[-1] for game in found) == pytest.approx(root.value)
        assert all(len(game.values) == len(game.scores) + 1 for game in found)
    assert worth(0.5) == 0.5 and worth(roots[0]) == roots[0].value


def test_continuations_are_counted_from_their_cuts_to_the_ends():
    six = Game(1.0, (0.5,) * 7, (1.0, 0.0) * 3)
    assert tokens([[six]], {"samples": 4}) == 6
    assert tokens([[six]], {"cuts": cuts("Turns"), "continuations": 2}) == 6 + 2 * (4 + 2)
    assert tokens([[six]], {"cuts": cuts("Stride", every=3), "continuations": 1}) == 6 + 3


def test_the_study_says_what_is_enumerated():
    predicted = {row["arm"]: row["predicted noise per token"] for row in rows(smoke=False)}
    arms = (f"{AT_TURNS}, K={TASKS[GUESS].at_turns}", AT_STRIDES)
    found = [f"{predicted[f'{GUESS} {name}, frozen']:.1f}" for name in arms]
    assert re.findall(r"([\d.]+) times", STUDY.exactly) == found
