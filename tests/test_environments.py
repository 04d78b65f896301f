"""Environments: what they keep, and what is said where one goes wrong."""

import threading
from dataclasses import replace

import pytest
from conversations import EXAMPLES, Counting, Dice, Endless

from lit_rl.errors import UsageError
from lit_rl.tasks import Environment, Task, Turn
from lit_rl.tasks.stepping import Stepper

STREAMS = [(1,), (2,), (3,)]


def begun(make, seconds=60.0, workers=3):
    stepper = Stepper(lambda example: make(), workers, seconds, 16)
    return stepper, stepper.begin(stepper.open(EXAMPLES, STREAMS))


def test_a_restored_environment_goes_on_as_its_origin():
    one, other = Counting(), Counting()
    one.reset(EXAMPLES[2])
    one.step("12345")
    state = one.state()
    told = [one.step("a"), one.step("bc")]
    for _ in range(2):  # a state may be restored again
        other.reset(EXAMPLES[2])
        other.restore(state)
        assert [other.step("a"), other.step("bc")] == told


def test_forks_stand_where_the_turn_began_and_leave_the_origin_alone():
    stepper, conversations = begun(Counting)
    stepper.step(conversations, ["12", "1234", "1"], STREAMS, keep=True)
    second = stepper.step(conversations, ["1"] * 3, STREAMS, keep=True)
    forks = stepper.fork([*conversations, *conversations], [1, 1, 1, 0, 0, 0])
    assert [fork.messages for fork in forks[:3]] == [each.messages[:3] for each in conversations]
    assert stepper.step(forks[:3], ["1"] * 3, STREAMS, keep=False) == second
    assert [fork.environment.said for fork in forks[3:]] == [[], [], []]
    assert [each.environment.said for each in conversations] == [[2, 1], [4, 1], [1, 1]]


def test_dice_follow_the_stream_and_the_turn_alone():
    drawn = []
    for order in (slice(None), slice(None, None, -1)):
        stepper, conversations = begun(Dice, workers=1)
        drawn.append([[turn.reward for turn in stepper.step(conversations[order], ["x"] * 3, STREAMS[order], True)]][0])
        drawn.append([turn.reward for turn in stepper.step(conversations[order], ["y"] * 3, STREAMS[order], True)])
    assert drawn[0] == drawn[2][::-1] and drawn[1] == drawn[3][::-1] and drawn[0] != drawn[1]


def test_environments_of_a_batch_step_side_by_side():
    """Three that wait for each other are done together."""
    barrier = threading.Barrier(3, timeout=30)

    class Meeting(Endless):
        def step(self, text):
            barrier.wait()
            return Turn(done=True)

    stepper, conversations = begun(Meeting)
    assert [turn.done for turn in stepper.step(conversations, ["x"] * 3, STREAMS, False)] == [True] * 3


def wrong(answer):
    class Wrong(Endless):
        def step(self, text):
            return answer()

    return Wrong


def raising(error):
    def answer():
        raise error

    return answer


RIGHT = Turn([{"role": "user", "content": "more"}])
WRONGS = {
    "an error": (raising(KeyError("price")), r"raised KeyError \('price'\) in turn 1 \(prompt '.*', policy 'a try'\)"),
    "an exit": (raising(SystemExit(0)), "raised SystemExit"),
    "no turn": (lambda: "higher", "returned 'higher' in turn 1 .*; return a Turn"),
    "a semicolon": (lambda: "a; b", "returned 'a; b' in turn 1 .*; return a Turn$"),
    "silence": (Turn, "said nothing and is not done in turn 1"),
    "no messages": (lambda: replace(RIGHT, messages="higher"), "gave 'higher' as messages of step"),
    "a message without a role": (lambda: replace(RIGHT, messages=[{"content": "x"}]), "as messages of step"),
    "the policy's role": (lambda: Turn([{"role": "assistant", "content": "x"}]), "role assistant"),
    "no number": (lambda: replace(RIGHT, reward=float("nan")), "paid nan in turn 1 .*; a reward is a number"),
}


@pytest.mark.parametrize("kind", WRONGS)
def test_what_goes_wrong_is_one_line_with_the_example_and_the_turn(kind):
    answer, message = WRONGS[kind]
    stepper, conversations = begun(wrong(answer))
    with pytest.raises(UsageError, match=message) as error:
        stepper.step(conversations, ["a try"] * 3, STREAMS, keep=False)
    assert "\n" not in str(error.value) and str(error.value).startswith("data.task: its environment")


def test_one_that_hangs_ends_the_run_and_holds_up_no_exit():
    hang = threading.Event()
    stepper, conversations = begun(wrong(hang.wait), seconds=0.05)
    with pytest.raises(UsageError, match=r"data.environment_seconds is 0.05: .* in turn 1"):
        stepper.step(conversations, ["x"] * 3, STREAMS, keep=False)
    assert all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
    hang.set()


def test_a_start_that_goes_wrong_is_told():
    class Lost(Endless):
        def reset(self, example):
            return []

    with pytest.raises(UsageError, match="messages of reset at the start"):
        begun(Lost)
    with pytest.raises(UsageError, match="is None at the start .*; Task.environment has to return an Environment"):
        begun(lambda: None)


def test_a_task_has_a_score_or_an_environment():
    class Neither(Task):
        def prompts(self, split):
            return []

    class Talking(Neither):
        def environment(self, example) -> Environment:
            return Endless()

    with pytest.raises(UsageError, match="Neither has neither score nor environment"):
        Neither()
    assert Talking().converses()
