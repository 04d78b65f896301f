"""Fill rules against their definitions, token by token in fractions, and the properties that the definitions have."""

import random
from fractions import Fraction
from itertools import pairwise, product
from typing import get_args

import pytest
import torch

from lit_rl.functional.cuts import cut_positions
from lit_rl.functional.prefix_values import Fill, exact_probability, exact_tokens, prefix_advantages

FILLS = get_args(Fill)
T = 9


def random_row(rng, stride=None):
    """A response: its return, its prefixes [(cut, value)], the columns of its tokens, and their probabilities.

    Cuts count the response's own tokens; the columns between these are an environment's.
    """
    length = rng.randint(1, T)
    chance = rng.choice([0.1, 0.5, 0.9])
    cuts = [t for t in range(length) if t == 0 or (t % stride == 0 if stride else rng.random() < chance)]
    columns = rng.choice([list(range(length)), sorted(rng.sample(range(T), length))])

    def number():
        return Fraction(rng.randint(-64, 64), 16)

    return number(), [(c, number()) for c in cuts], columns, [Fraction(rng.randint(1, 8), 8) for _ in columns]


def random_rows(seed, stride=None, count=60):
    rng = random.Random(seed)
    return [random_row(rng, stride) for _ in range(count)]


def tensors(rows, dtype=torch.float64, garbage=(7.0, float("nan"), -1e30)):
    """What ``prefix_advantages`` takes: rewards, cuts, values, mask. Garbage stands where cuts are padded."""
    width = max(len(prefixes) for _, prefixes, _, _ in rows)
    cuts, values = [], []
    for i, (_, prefixes, columns, _) in enumerate(rows):
        padding = width - len(prefixes)
        cuts.append([columns[c] if c else 0 for c, _ in prefixes] + [-1] * padding)
        values.append([float(m) for _, m in prefixes] + [garbage[i % len(garbage)]] * padding)
    rewards = torch.tensor([float(row[0]) for row in rows], dtype=dtype)
    mask = torch.tensor([[t in row[2] for t in range(T)] for row in rows])
    return rewards, torch.tensor(cuts), torch.tensor(values, dtype=dtype), mask


def plainly(row, fill, mix=Fraction(0)):
    """The advantages of a row by the module's table, segment by segment."""
    reward, prefixes, columns, p = row
    end = len(columns)
    segments = list(pairwise([*prefixes, (end, reward)]))
    exact = {start: after - before for (start, before), (stop, after) in segments if stop - start == 1}
    advantages = []
    for (start, before), (stop, after) in segments:
        for t in range(start, stop):
            alpha = Fraction(t - start, stop - start)
            advantages.append(
                {
                    "segment_td": after - before,
                    "hold_mc": reward - before,
                    "mix": (after - before) + mix * (reward - after),
                    "all_positions": after - before,
                    "linear_value_mc": reward - ((1 - alpha) * before + alpha * after),
                    "linear_value_td": (after - before) / (stop - start),
                    "linear_advantage": between(exact, t),
                    "masked_advantage": exact[t] / p[t] if t in exact else 0,
                }[fill]
            )
    return [float(advantages[columns.index(t)]) if t in columns else 0.0 for t in range(T)]


def between(known, t):
    """The value at t of the polygon through the known points, held outside of them; 0 if there are none."""
    if not known:
        return Fraction(0)
    for (x0, y0), (x1, y1) in pairwise(sorted(known.items())):
        if x0 <= t <= x1:
            return y0 + (y1 - y0) * Fraction(t - x0, x1 - x0)
    return known[min(known) if t < min(known) else max(known)]


def settings(fill, rows, mix=Fraction(3, 8)):
    table = torch.zeros(len(rows), T)
    for p, (_, _, columns, chances) in zip(table, rows, strict=True):
        p[columns] = torch.tensor([float(x) for x in chances])
    return {"mix": float(mix), "selection_probability": table}


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("seed", range(5))
def test_fills_are_their_definitions(fill, seed):
    rows = random_rows(seed, stride=1 if fill == "all_positions" else None)
    found = prefix_advantages(*tensors(rows), fill, **settings(fill, rows))
    expected = [plainly(row, fill, Fraction(3, 8)) for row in rows]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fill", FILLS)
def test_float32_values_give_float32(fill):
    rows = random_rows(7, stride=1)
    found = prefix_advantages(*tensors(rows, torch.float32), fill, **settings(fill, rows))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([plainly(row, fill, Fraction(3, 8)) for row in rows]))


BY_HAND = {
    "segment_td": [1, 1, 2, 4, 0],
    "hold_mc": [7, 7, 6, 4, 0],
    "mix": [4, 4, 4, 4, 0],
    "linear_value_mc": [7, 6.5, 6, 4, 0],
    "linear_value_td": [0.5, 0.5, 2, 4, 0],
    "linear_advantage": [2, 2, 2, 4, 0],
    "masked_advantage": [0, 0, 8, 16, 0],
}


@pytest.mark.parametrize("fill", BY_HAND)
def test_four_tokens_by_hand(fill):
    """Cuts before tokens 0, 2 and 3 with the values 1, 2 and 4, and a return of 8."""
    cuts, values = torch.tensor([[0, 2, 3, -1]]), torch.tensor([[1.0, 2.0, 4.0, 99.0]])
    mask = torch.tensor([[True] * 4 + [False]])
    found = prefix_advantages(torch.tensor([8.0]), cuts, values, mask, fill, mix=0.5, selection_probability=0.25)
    assert found.tolist() == [BY_HAND[fill]]


@pytest.mark.parametrize("mix, same", [(0.0, "segment_td"), (1.0, "hold_mc")])
def test_ends_of_mix(mix, same):
    given = tensors(random_rows(11))
    torch.testing.assert_close(prefix_advantages(*given, "mix", mix=mix), prefix_advantages(*given, same))


def test_all_positions_is_segment_td_of_segments_of_one_token():
    given = tensors(random_rows(12, stride=1))
    assert torch.equal(prefix_advantages(*given, "all_positions"), prefix_advantages(*given, "segment_td"))


@pytest.mark.parametrize("fill, one_a_segment", [("segment_td", True), ("linear_value_td", False)])
def test_steps_telescope_to_the_return_over_the_prompts_value(fill, one_a_segment):
    rewards, cuts, values, mask = tensors(random_rows(13))
    t = torch.arange(T)
    mask = t <= torch.where(mask, t, 0).amax(1, keepdim=True)
    advantages = prefix_advantages(rewards, cuts, values, mask, fill)
    first = torch.zeros_like(mask)
    for row, positions in zip(first, cuts.tolist(), strict=True):
        row[[c for c in positions if c >= 0]] = True
    chosen = advantages * first if one_a_segment else advantages
    torch.testing.assert_close(chosen.sum(1), rewards - values[:, 0])


@pytest.mark.parametrize("fill", FILLS)
def test_padding_is_ignored_and_nothing_leaves_the_mask(fill):
    rows = random_rows(14, stride=1 if fill == "all_positions" else 3)
    garbage = [tensors(rows, garbage=(x,)) for x in (0.0, 1e30, float("nan"), float("inf"))]
    results = [prefix_advantages(*given, fill, **settings(fill, rows)) for given in garbage]
    assert all(torch.equal(result, results[0]) for result in results)
    assert (results[0][~garbage[0][3]] == 0).all()
    assert results[0].abs().sum() > 0


@pytest.mark.parametrize("fill", FILLS)
def test_a_row_without_tokens_gets_zeros(fill):
    empty = torch.zeros(1, 4, dtype=torch.bool)
    one, cuts = torch.ones(1), torch.tensor([[0, -1]])
    found = prefix_advantages(one, cuts, torch.ones(1, 2), empty, fill, selection_probability=0.5)
    assert found.tolist() == [[0.0] * 4]


@pytest.mark.parametrize(
    "cuts, expected",
    [
        ([0, 2, -1, -1], [0, 0, 0, 0, 0]),  # segments of two and three tokens: none is exact
        ([0, 2, 3, -1], [2, 2, 2, 2, 2]),  # token 2 alone
        ([0, 4, -1, -1], [6, 6, 6, 6, 6]),  # the last token alone
        ([0, 1, -1, -1], [1, 1, 1, 1, 1]),  # the first token alone
        ([0, 1, 4, -1], [1, 1.75, 2.5, 3.25, 4]),  # the first and the last
    ],
)
def test_linear_advantage_holds_the_nearest_exact_one(cuts, expected):
    values = torch.tensor([[1.0, 2.0, 4.0, float("nan")]], dtype=torch.float64)
    cuts, mask = torch.tensor([cuts]), torch.ones(1, 5, dtype=torch.bool)
    found = prefix_advantages(torch.tensor([8.0]), cuts, values, mask, "linear_advantage")
    assert found.tolist() == [expected]


def test_masked_advantage_takes_a_number_or_a_table():
    given = tensors(random_rows(15))
    table = torch.full(given[3].shape, 0.25)
    by_number = prefix_advantages(*given, "masked_advantage", selection_probability=0.25)
    assert torch.equal(by_number, prefix_advantages(*given, "masked_advantage", selection_probability=table))
    unweighted = prefix_advantages(*given, "masked_advantage", selection_probability=1)
    torch.testing.assert_close(by_number, unweighted * 4)


def test_masked_advantage_divides_by_no_probability_of_other_tokens():
    """Only tokens 0 and 4 are exact; elsewhere the probability may be 0."""
    cuts, values = torch.tensor([[0, 1, 4]]), torch.tensor([[1.0, 2.0, 4.0]])
    mask, p = torch.ones(1, 5, dtype=torch.bool), torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.5]])
    found = prefix_advantages(torch.tensor([8.0]), cuts, values, mask, "masked_advantage", selection_probability=p)
    assert found.tolist() == [[1, 0, 0, 0, 8]]


VALID = {
    "rewards": torch.ones(2),
    "cuts": torch.tensor([[0, 1], [0, -1]]),
    "values": torch.ones(2, 2),
    "mask": torch.ones(2, 3, dtype=torch.bool),
}


@pytest.mark.parametrize(
    "changed, named",
    [
        ({"fill": "cubic"}, "cubic.*segment_td"),
        ({"cuts": torch.tensor([[0, 1], [1, 2]])}, "cuts"),
        ({"cuts": torch.tensor([[0, 1], [-1, -1]])}, "cuts"),
        ({"fill": "all_positions"}, "all_positions"),
        ({"fill": "masked_advantage"}, "selection_probability"),
    ],
)
def test_what_cannot_be_filled_is_refused(changed, named):
    prefix_advantages(**VALID)
    with pytest.raises(ValueError, match=named):
        prefix_advantages(**{**VALID, **changed})


# ---- which advantages are exact --------------------------------------------------------------------------------------

PATTERNS = torch.tensor([[True, *rest] for rest in product([False, True], repeat=3)])
UNEVEN = [0.9, 0.25, 0.6, 0.5]


def weights(chances):
    """The probability of each pattern of cuts, the first position always one."""
    ps = [1.0, *chances[1:]]
    return [
        torch.tensor([p if cut else 1 - p for p, cut in zip(ps, pattern, strict=True)]).double().prod().item()
        for pattern in PATTERNS.tolist()
    ]


each_chance = pytest.mark.parametrize("chances", [[0.3] * 4, UNEVEN, [1.0] * 4])
each_length = pytest.mark.parametrize("length", [1, 2, 3, 4])


@each_length
def test_exact_tokens_on_every_pattern_of_cuts(length):
    found = exact_tokens(PATTERNS, torch.full((len(PATTERNS),), length))
    for pattern, exact in zip(PATTERNS.tolist(), found.tolist(), strict=True):
        cuts = {t for t in range(length) if pattern[t]} | {length}
        assert exact[:length] == [{t, t + 1} <= cuts for t in range(length)]


@each_chance
@each_length
def test_exact_probability_is_that_of_exact_tokens(chances, length):
    """Summed over every pattern of cuts; the chance given for position 0 does not matter, and nothing is written."""
    found = exact_tokens(PATTERNS, torch.full((len(PATTERNS),), length)).double()
    expected = (torch.tensor(weights(chances))[:, None].double() * found).sum(0)
    given = torch.tensor([chances])
    probability = exact_probability(given, torch.tensor([length]))
    torch.testing.assert_close(probability[0, :length].double(), expected[:length], atol=1e-6, rtol=0)
    assert given.tolist() == torch.tensor([chances]).tolist()


def test_exact_probability_of_rows_of_different_lengths():
    lengths = torch.tensor([1, 2, 3, 4, 3])
    chances = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    together = exact_probability(chances, lengths)
    for row in range(5):
        assert torch.equal(together[row], exact_probability(chances[row : row + 1], lengths[row : row + 1])[0])


@each_chance
@each_length
def test_masked_advantage_is_all_positions_on_average_over_the_cuts(chances, length):
    """With the exact probability, its mean over the patterns of cuts is the exact advantage of every token."""
    truth = torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64)
    mask, n = (torch.arange(4) < length).expand(len(PATTERNS), 4), len(PATTERNS)
    positions = cut_positions(PATTERNS & mask)
    values = truth[positions.clamp(min=0)]
    rewards, lengths = torch.full((n,), 3.0).double(), torch.full((n,), length)
    p = exact_probability(torch.tensor([chances]).double().expand(n, 4), lengths)
    masked = prefix_advantages(rewards, positions, values, mask, "masked_advantage", selection_probability=p)
    mean = torch.tensor(weights(chances), dtype=torch.float64) @ masked
    every = prefix_advantages(rewards[:1], torch.arange(4)[None], truth[None], mask[:1], "all_positions")
    torch.testing.assert_close(mean, every[0], atol=1e-6, rtol=1e-6)
