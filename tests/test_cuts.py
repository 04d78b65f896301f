"""Cut rules against plain expectations, and whether a prefix alone decides where it is cut."""

import math

import pytest
import torch

from lit_rl.errors import UsageError
from lit_rl.functional.cuts import Bernoulli, Boundary, Entropy, Relative, Stride, cut_positions

N, T, V = 40, 11, 5
RULES = [Stride(), Stride(1), Stride(3), Bernoulli(), Bernoulli(1), Entropy(0.7), Boundary((1, 4)), Relative()]
DECIDABLE = RULES[:-1]


def responses(seed=0):
    """Random ids, lengths and entropies."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(V, (N, T), generator=generator)
    lengths = torch.randint(1, T + 1, (N,), generator=generator)
    return ids, lengths, torch.rand(N, T, generator=generator) * math.log(V)


def spoken(rule, ids, lengths=None, entropy=None):
    """The chances of one response, as a list."""
    width = len(ids)
    entropy = torch.tensor([entropy if entropy is not None else [0.0] * width])
    return rule.chances(torch.tensor([ids]), torch.tensor([lengths or width]), entropy)[0].tolist()


@pytest.mark.parametrize(
    "rule, expected",
    [
        (Stride(1), [1, 1, 1, 1, 1, 1, 1]),
        (Stride(3), [1, 0, 0, 1, 0, 0, 1]),
        (Stride(6), [1, 0, 0, 0, 0, 0, 1]),
        (Stride(7), [1, 0, 0, 0, 0, 0, 0]),
        (Bernoulli(0.25), [0.25] * 7),
        (Entropy(1.0), [1, 0, 0, 1, 0, 0, 1]),
        (Boundary((4,)), [0, 0, 0, 1, 1, 0, 0]),
        (Boundary((4, 0)), [0, 0, 0, 1, 1, 0, 1]),
        (Boundary((2,)), [0, 0, 0, 0, 0, 0, 0]),
        (Relative(2), [0, 0, 0, 1, 0, 0, 0]),
        (Relative(3), [0, 0, 1, 0, 1, 0, 0]),
    ],
)
def test_one_response_by_hand(rule, expected):
    """Seven tokens; the last one's own boundary would lie behind the response."""
    entropy = [1.5, 0.2, 1.0, 1.25, 0.0, 0.9, 1.0625]
    assert spoken(rule, [1, 3, 4, 4, 1, 0, 4], 7, entropy) == expected


@pytest.mark.parametrize("every", [1, 2, 3, 8, 100])
def test_stride_counts_tokens(every):
    found = Stride(every).chances(*responses())
    for row in found.tolist():
        assert [t for t in range(T) if row[t] == 1] == list(range(0, T, every)) and set(row) <= {0, 1}


def test_entropy_is_above_the_threshold():
    ids, lengths, entropy = responses()
    found = Entropy(0.7).chances(ids, lengths, entropy)
    assert found.tolist() == [[1.0 if h > 0.7 else 0.0 for h in row] for row in entropy.tolist()]


@pytest.mark.parametrize("tokens", [(0,), (1, 4), (0, 1, 2, 3, 4), (77,), [2, 3]])
def test_boundary_lies_behind_its_tokens(tokens):
    ids, lengths, entropy = responses()
    found = Boundary(tokens).chances(ids, lengths, entropy)
    for row, chances in zip(ids.tolist(), found.tolist(), strict=True):
        assert chances == [float(t > 0 and row[t - 1] in tokens) for t in range(T)]


@pytest.mark.parametrize("segments", [2, 3, 4, 20])
def test_relative_cuts_the_finished_response_in_parts(segments):
    ids, lengths, entropy = responses()
    found = Relative(segments).chances(ids, lengths, entropy)
    for length, chances in zip(lengths.tolist(), found.tolist(), strict=True):
        expected = {math.floor(length * j / segments + 1e-9) for j in range(1, segments)}
        assert {t for t in range(T) if chances[t] == 1} == expected and set(chances) <= {0, 1}


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chances_are_probabilities_of_each_token(rule, dtype):
    ids, lengths, entropy = responses()
    found = rule.chances(ids, lengths, entropy.to(dtype))
    assert found.shape == (N, T) and found.dtype == dtype and 0 <= float(found.min()) <= float(found.max()) <= 1


def test_only_entropy_needs_the_entropy():
    assert [rule for rule in RULES if rule.needs_entropy] == [Entropy(0.7)]
    ids, lengths, entropy = responses()
    for rule in RULES:
        blank = rule.chances(ids, lengths, torch.zeros_like(entropy))
        assert torch.equal(blank, rule.chances(ids, lengths, entropy)) == (not rule.needs_entropy)


def otherwise(t, lengths_too=True):
    """The responses with another future: other tokens at and behind t, other entropies behind t, other lengths."""
    ids, lengths, entropy = responses()
    other_ids, other_lengths, other_entropy = responses(seed=1)
    behind = torch.arange(T) >= t
    return (
        torch.where(behind, (ids + 1 + other_ids % (V - 1)) % V, ids),
        other_lengths if lengths_too else lengths,
        torch.where(torch.arange(T) > t, other_entropy, entropy),
    )


@pytest.mark.parametrize("rule", DECIDABLE, ids=repr)
def test_a_prefix_decides_where_it_is_cut(rule):
    before = rule.chances(*responses())
    for t in range(T):
        assert torch.equal(rule.chances(*otherwise(t))[:, : t + 1], before[:, : t + 1])


@pytest.mark.parametrize("segments", [2, 4])
def test_relative_looks_ahead(segments):
    rule = Relative(segments)
    before = rule.chances(*responses())
    after = [rule.chances(*otherwise(t)) for t in range(T)]
    assert all(not torch.equal(after[t][:, : t + 1], before[:, : t + 1]) for t in range(T))
    assert all(torch.equal(rule.chances(*otherwise(t, lengths_too=False)), before) for t in range(T))


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_row_is_cut_whatever_stands_beside_it(rule):
    ids, lengths, entropy = responses()
    together = rule.chances(ids, lengths, entropy)
    for row in range(0, N, 7):
        some = slice(row, row + 1)
        assert torch.equal(rule.chances(ids[some], lengths[some], entropy[some])[0], together[row])


@pytest.mark.parametrize("chance", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("rows, width", [(1, 1), (1, 6), (30, 11)])
def test_cut_positions_are_the_trues_and_0(chance, rows, width):
    mask = torch.rand(rows, width, generator=torch.Generator().manual_seed(rows)) < chance
    given = mask.clone()
    found = cut_positions(mask).tolist()
    plain = [[0, *(t for t in range(1, width) if row[t])] for row in mask.tolist()]
    longest = max(map(len, plain))
    assert found == [row + [-1] * (longest - len(row)) for row in plain]
    assert torch.equal(mask, given)


@pytest.mark.parametrize(
    "make, argument",
    [
        (lambda: Stride(0), "every"),
        (lambda: Stride(-8), "every"),
        (lambda: Bernoulli(0.0), "probability"),
        (lambda: Bernoulli(-0.1), "probability"),
        (lambda: Bernoulli(1.01), "probability"),
        (lambda: Bernoulli(math.nan), "probability"),
        (lambda: Boundary(), "token_ids"),
        (lambda: Boundary(()), "token_ids"),
        (lambda: Relative(1), "segments"),
        (lambda: Relative(-1), "segments"),
    ],
)
def test_bad_arguments_are_named_in_one_line(make, argument):
    with pytest.raises(UsageError) as error:
        make()
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"model.cuts.{argument} is ")
