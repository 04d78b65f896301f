"""A reward that adds up in part, against its two parts."""

from functools import partial

import pytest
import torch
from test_position_credit import earned, responses, table

from lit_rl.commands.parser import Parser, built
from lit_rl.errors import UsageError
from lit_rl.tasks import Additive, Bottleneck, Pairwise, Parity, PartlyAdditive, PositionTask, Task

PARTS = Pairwise, partial(Parity, token=0), partial(Bottleneck, positions=(0, 2))
SHAPES = (3, 4, False), (3, 4, True)
each_part = pytest.mark.parametrize("other", PARTS)
each_shape = pytest.mark.parametrize("sizes", SHAPES)


@each_part
@each_shape
def test_the_ends_are_the_two_tasks_to_the_last_bit(other, sizes):
    _, additive = earned(PartlyAdditive(*sizes, other=other, share=0, seed=3))
    assert torch.equal(additive, earned(Additive(*sizes, seed=3))[1])
    assert torch.equal(earned(PartlyAdditive(*sizes, other=other, share=1, seed=3))[1], earned(other(*sizes))[1])


@each_part
@each_shape
def test_between_them_every_reward_is_on_a_straight_line_within_0_to_1(other, sizes):
    start, quarter, half, end = (
        earned(PartlyAdditive(*sizes, other=other, share=share))[1] for share in (0, 0.25, 0.5, 1)
    )
    assert quarter.dtype == torch.float64
    torch.testing.assert_close(start + end, 2 * half, rtol=0, atol=1e-15)
    torch.testing.assert_close(half - quarter, quarter - start, rtol=0, atol=1e-15)
    assert half.min() >= 0 and half.max() <= 1


@each_part
@each_shape
@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_what_tokens_earn_adds_up_and_is_known_from_the_tokens_so_far(other, sizes, share):
    task = PartlyAdditive(*sizes, other=other, share=share)
    rows = responses(task)
    ids, lengths = table(rows, task.length)
    known = task.earned(ids, lengths)
    torch.testing.assert_close(known.sum(1), task.returns(ids, lengths), rtol=0, atol=1e-15)
    prefixes: dict[tuple[int, ...], float] = {}
    for row, values in zip(rows, known.tolist(), strict=True):
        for t in range(len(row) - 1):  # the last token also ends the response
            assert prefixes.setdefault(tuple(row[: t + 1]), values[t]) == values[t]


def test_the_best_reward_is_1_only_where_the_optima_agree():
    best = Additive(3, 4).token_rewards.argmax(1).tolist()
    agreeing = partial(Bottleneck, positions=(1,), target=best[1])
    opposed = partial(Bottleneck, positions=(1,), target=1 - best[1] if best[1] < 2 else 0)
    assert earned(PartlyAdditive(3, 4, other=agreeing))[1].max() == 1
    assert earned(PartlyAdditive(3, 4, other=opposed))[1].max() < 1


def test_a_part_of_ones_own_gets_the_tasks_sizes():
    seen = []

    def other(*sizes):
        seen.append(sizes)
        return Parity(*sizes)

    task = PartlyAdditive(3, 5, True, 7, other=other)
    assert seen == [(3, 5, True, 7)] and isinstance(task, PositionTask) and task.eos_id == 2


def configured(*settings):
    parser = Parser(prog="")
    parser.add_subclass_arguments(Task, "data.task")
    pairs = [f"--data.task{'.' * bool(name)}{name}={value}" for name, value in settings]
    return built(parser, parser.parse_args(["--data.task=PartlyAdditive", *pairs])).data.task


def test_on_the_command_line_the_other_task_goes_by_its_name():
    task = configured(("other", "Bottleneck"), ("other.positions", "[0, 2]"), ("share", 0.25), ("length", 4))
    _, expected = earned(PartlyAdditive(4, 4, other=partial(Bottleneck, positions=(0, 2)), share=0.25))
    assert torch.equal(earned(task)[1], expected)


@pytest.mark.parametrize(
    "settings, said",
    [
        ([("share", 1.5)], r"data\.task\.share is 1\.5"),
        ([("other", "Parity"), ("other.token", 4)], r"data\.task\.other\.token is 4"),
        ([("other", "Parity"), ("other.token", -1)], r"data\.task\.other\.token is -1"),
        ([("other", "Bottleneck"), ("other.positions", "[9]")], r"data\.task\.other\.positions is 9"),
        ([("other", "Pairwise"), ("length", 1)], r"data\.task\.length is 1"),
        ([("other", "Nothing")], r"data\.task\.other: 'Nothing'"),
    ],
)
def test_a_mistake_names_its_setting(settings, said):
    with pytest.raises(UsageError, match=rf"^{said}") as caught:
        configured(*settings)
    assert "\n" not in str(caught.value)
