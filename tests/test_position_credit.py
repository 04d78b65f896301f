"""Position tasks against plain definitions over every response."""

from itertools import pairwise as neighbours
from itertools import product

import numpy as np
import pytest
import torch

from lit_rl.errors import UsageError
from lit_rl.tasks.position_credit import (
    Additive,
    Bottleneck,
    KeyToken,
    Pairwise,
    Parity,
    PositionTask,
)


def additive(task, text):
    return sum(task.token_rewards.tolist()[t][a] for t, a in enumerate(text))


def key_token(task, text):
    return dict(enumerate(text)).get(task.position) == task.target


def bottleneck(task, text):
    return {t for t, a in enumerate(text) if a == task.target} >= set(task.positions)


def pairwise(task, text):
    cycle = [*range(task.actions), 0]
    steps = list(neighbours(cycle))
    return sum(pair in steps for pair in neighbours(text)) / (task.length - 1)


def parity(task, text):
    odd = False
    for token in text:
        odd ^= token == task.token
    return odd


CASES = [
    (Additive, {"seed": 3}, additive),
    (KeyToken, {}, key_token),
    (KeyToken, {"position": 2, "target": 0}, key_token),
    (Bottleneck, {}, bottleneck),
    (Bottleneck, {"positions": (0, 1, 3), "target": 0}, bottleneck),
    (Pairwise, {}, pairwise),
    (Parity, {}, parity),
    (Parity, {"token": 0}, parity),
]
SHAPES = [(2, 4, False), (3, 4, False), (4, 5, False), (3, 4, True), (4, 5, True)]


def responses(task):
    """Every response there is: lists of ids, EOS included."""
    cut = set()
    for ids in product(range(task.vocabulary), repeat=task.length):
        cut.add(ids[: ids.index(task.eos_id) + 1] if task.eos_id in ids else ids)
    return sorted(map(list, cut))


def table(rows, width, fill=0):
    """Ids [N, width] with ``fill`` behind each response, and lengths [N]."""
    ids = torch.tensor([row + [fill] * (width - len(row)) for row in rows])
    return ids, torch.tensor([len(row) for row in rows])


def earned(task):
    rows = responses(task)
    return rows, task.returns(*table(rows, task.length))


each_case = pytest.mark.parametrize("kind, settings, plain", CASES)
each_shape = pytest.mark.parametrize("vocabulary, length, eos", SHAPES)


@each_case
@each_shape
def test_returns_are_the_plain_definition_on_every_response(kind, settings, plain, vocabulary, length, eos):
    task = kind(vocabulary=vocabulary, length=length, eos=eos, **settings)
    rows, returns = earned(task)
    expected = [float(plain(task, [a for a in row if a != task.eos_id])) for row in rows]
    assert returns.dtype == torch.float64 and returns.shape == (len(rows),)
    np.testing.assert_allclose(returns.numpy(), expected, rtol=0, atol=1e-15)


@each_case
@each_shape
def test_rewards_fill_0_to_1_exactly(kind, settings, plain, vocabulary, length, eos):
    _, returns = earned(kind(vocabulary=vocabulary, length=length, eos=eos, **settings))
    assert returns.min() == 0 and returns.max() == 1


@each_case
@pytest.mark.parametrize("eos", [False, True])
@pytest.mark.parametrize("fill", [-100, 0, 1, 3, 99])
@pytest.mark.parametrize("width", [4, 7])
def test_tokens_behind_the_length_are_ignored(kind, settings, plain, eos, fill, width):
    task = kind(length=4, eos=eos, **settings)
    rows = [row[:n] for row in responses(task) for n in (1, len(row))]
    assert torch.equal(task.returns(*table(rows, width, fill)), task.returns(*table(rows, width, 2)))


@each_case
def test_tokens_behind_eos_are_ignored(kind, settings, plain):
    task = kind(length=4, eos=True, **settings)
    full = torch.tensor(list(product(range(4), repeat=4)))
    cut = [row[: row.index(3) + 1] if 3 in row else row for row in full.tolist()]
    assert torch.equal(task.returns(full, torch.full((len(full),), 4)), task.returns(*table(cut, 4)))


@each_case
@pytest.mark.parametrize("eos", [False, True])
def test_score_is_the_return_of_one_response(kind, settings, plain, eos):
    task = kind(length=4, eos=eos, **settings)
    rows, returns = earned(task)
    for row, value in list(zip(rows, returns.tolist(), strict=True))[::7]:
        score = task.score({}, torch.tensor(row), "")
        assert type(score) is float and score == value == task.score_flexible({}, torch.tensor(row), "")


@each_case
def test_responses_without_tokens_that_earn(kind, settings, plain):
    task = kind(length=4, eos=True, **settings)
    assert task.score({}, torch.tensor([3]), "") == 0
    assert task.score({}, torch.zeros(0, dtype=torch.long), "") == 0
    assert task.returns(torch.zeros(0, 4, dtype=torch.long), torch.zeros(0, dtype=torch.long)).shape == (0,)


@each_case
@each_shape
def test_what_tokens_earn_sums_to_the_return_and_is_known_at_once(kind, settings, plain, vocabulary, length, eos):
    task = kind(vocabulary=vocabulary, length=length, eos=eos, **settings)
    rows, returns = earned(task)
    paid = task.earned(*table(rows, length + 1, fill=vocabulary - 1))
    assert paid.dtype == torch.float64 and paid.shape == (len(rows), length + 1)
    np.testing.assert_allclose(paid.sum(1).numpy(), returns.numpy(), rtol=0, atol=1e-15)
    known = {}
    for row, earnings in zip(rows, paid.tolist(), strict=True):
        assert not any(earnings[len(row) :])
        for t in range(len(row)):
            assert known.setdefault(tuple(row[: t + 1]), earnings[t]) == earnings[t]


def test_where_tasks_pay():
    def paid(task, *ids):
        return task.earned(torch.tensor([ids]), torch.tensor([len(ids)]))[0].tolist()

    additive = Additive(length=4)
    assert paid(additive, 3, 1, 0, 2) == additive.token_rewards[range(4), [3, 1, 0, 2]].tolist()
    assert paid(KeyToken(length=4, position=2), 1, 1, 1, 1) == [0, 0, 1, 0]
    assert paid(Bottleneck(length=4, positions=(0, 2)), 1, 3, 1, 1) == [0, 0, 1, 0]
    assert paid(Bottleneck(length=4, positions=(0, 2)), 2, 3, 1, 1) == [0, 0, 0, 0]
    assert paid(Pairwise(length=3), 0, 1, 2) == [0, 0.5, 0.5] and paid(Pairwise(length=3), 0, 0, 1) == [0, 0, 0.5]
    assert paid(Parity(length=3), 1, 0, 0) == [0, 0, 1] and paid(Parity(eos=True), 1, 3, 0) == [0, 1, 0]


# ---- single tasks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("vocabulary, length, eos", [(2, 1, False), (3, 1, True), (4, 8, True), (16, 200, False)])
def test_additive_table_is_scaled_exactly(seed, vocabulary, length, eos):
    task = Additive(vocabulary, length, eos, seed=seed)
    w = task.token_rewards
    assert w.shape == (length, vocabulary) and w.dtype == torch.float64
    if eos:
        assert (w[:, -1] == 0).all()
    own = w[:, : vocabulary - eos]
    assert (own.amin(1) == 0).all() and ((own == 0).sum(1) == 1).all()
    best = own.argmax(1)
    assert sum(own.amax(1).tolist()) == 1 == sum(own.amax(1).flip(0).tolist())
    assert task.score({}, best, "") == 1
    assert task.score({}, best[:-1], "") < 1 and task.score({}, own.argmin(1), "") == 0


def test_additive_table_is_its_seeds():
    first, again, other = (Additive(seed=seed).token_rewards for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(Additive(vocabulary=5, eos=True).token_rewards[:, :4], first)


def test_additive_table_does_not_touch_the_global_generator():
    before = torch.get_rng_state()
    Additive()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "length, positions", [(1, [0]), (2, [0, 1]), (3, [0, 2]), (4, [1, 3]), (8, [2, 6]), (100, [25, 75])]
)
def test_bottleneck_default_positions(length, positions):
    assert Bottleneck(length=length).positions == positions


def test_bottleneck_takes_positions_in_any_order():
    assert Bottleneck(positions=[4, 1, 4]).positions == [1, 4]


def test_a_response_that_ends_before_its_key_token_earns_nothing():
    key, neck = KeyToken(length=3, eos=True, position=1), Bottleneck(length=3, eos=True, positions=(0, 1))
    for ids, value in [([1, 3], 0), ([1, 1], 1), ([1, 1, 3], 1), ([1, 1, 2], 1), ([1], 0)]:
        assert key.score({}, torch.tensor(ids), "") == neck.score({}, torch.tensor(ids), "") == value


@pytest.mark.parametrize("vocabulary, eos", [(2, False), (4, False), (3, True), (5, True)])
def test_pairwise_optima_are_the_counting_responses(vocabulary, eos):
    task = Pairwise(vocabulary, 5, eos)
    rows, returns = earned(task)
    best = [row for row, value in zip(rows, returns.tolist(), strict=True) if value == 1]
    actions = vocabulary - eos
    assert best == [[(start + t) % actions for t in range(5)] for start in range(actions)]


def test_pairwise_does_not_add_up_over_positions():
    task = Pairwise(2, 2)
    returns = task.returns(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), torch.full((4,), 2)).tolist()
    assert returns[0] + returns[3] != returns[1] + returns[2]


@pytest.mark.parametrize("eos", [False, True])
def test_parity_flips_with_every_change_to_or_from_its_token(eos):
    task = Parity(4, 4, eos)
    ids = torch.tensor(list(product(range(3), repeat=4)))
    lengths = torch.full((len(ids),), 4)
    for t in range(4):
        changed = ids.clone()
        changed[:, t] = torch.where(ids[:, t] == 1, 0, 1)
        assert torch.equal(task.returns(changed, lengths), 1 - task.returns(ids, lengths))


def test_prompts_are_equal_rows_in_every_split():
    task = KeyToken(size=5)
    for split in ("train", "val", "test"):
        assert task.prompts(split).to_list() == [{"prompt": [{"role": "user", "content": "0"}]}] * 5


def test_eos_is_the_last_token():
    assert Parity(5, eos=True).eos_id == 4 and Parity(5).eos_id is None
    with pytest.raises(TypeError):
        PositionTask()


# ---- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Additive, KeyToken, Bottleneck, Pairwise, Parity])
@pytest.mark.parametrize(
    "name, settings",
    [
        ("vocabulary", {"vocabulary": 1}),
        ("vocabulary", {"vocabulary": 2, "eos": True}),
        ("length", {"length": 0}),
        ("size", {"size": 0}),
    ],
)
def test_shared_settings_out_of_range(kind, name, settings):
    with pytest.raises(UsageError, match=rf"^data\.task\.{name} is \d+; (it must be|choose) at least \d") as caught:
        kind(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "kind, name, settings",
    [
        (KeyToken, "position", {"position": 8}),
        (KeyToken, "position", {"position": -1}),
        (KeyToken, "target", {"target": 4}),
        (KeyToken, "target", {"target": 3, "eos": True}),
        (KeyToken, "target", {"target": -1}),
        (Bottleneck, "positions", {"positions": (1, 8)}),
        (Bottleneck, "positions", {"positions": (-1, 1)}),
        (Bottleneck, "positions", {"positions": ()}),
        (Bottleneck, "target", {"target": 3, "eos": True}),
        (Pairwise, "length", {"length": 1}),
        (Parity, "token", {"token": 4}),
        (Parity, "token", {"token": 3, "eos": True}),
    ],
)
def test_own_settings_out_of_range(kind, name, settings):
    with pytest.raises(UsageError, match=rf"^data\.task\.{name} is .*(choose|give|take|must)") as caught:
        kind(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [Additive, KeyToken, Bottleneck, Pairwise, Parity])
@pytest.mark.parametrize("vocabulary, eos", [(2, False), (3, True)])
def test_the_smallest_task_takes_every_default(kind, vocabulary, eos):
    length = 2 if kind is Pairwise else 1
    assert earned(kind(vocabulary, length, eos, 1))[1].max() == 1


@each_case
def test_too_long_a_response(kind, settings, plain):
    with pytest.raises(UsageError, match=r"^model\.max_new_tokens is at least 5: .*; set it to 4$"):
        kind(length=4, **settings).score({}, torch.zeros(5, dtype=torch.long), "")


@each_case
@pytest.mark.parametrize("token", [-1, 4])
def test_a_token_outside_the_vocabulary(kind, settings, plain, token):
    with pytest.raises(UsageError, match=rf"^data\.task\.vocabulary is 4, but a response has token {token};"):
        kind(length=4, **settings).score({}, torch.tensor([0, token, 0, 0]), "")
