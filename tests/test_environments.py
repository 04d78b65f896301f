"""Environments: what they keep, and what is said where one goes wrong."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conversations import EXAMPLES, Counting, Dice, Endless

from lit_rl.errors import UsageError
from lit_rl.tasks import Environment, Task, Turn, stepping
from lit_rl.tasks.stepping import Stepper

STREAMS = [(1,), (2,), (3,)]


def begun(make, workers=3):
    stepper = Stepper(lambda example: make(), workers, 60.0, 16)
    return stepper, stepper.begin(stepper.open(EXAMPLES, STREAMS))


class Live(Counting):
    """Hands out its own list, and takes what it is given for its own; says all in one message, which it changes."""

    def reset(self, example):
        self.says = {"role": "user", "content": "?"}
        return super().reset(example)

    def step(self, text):
        turn = super().step(text)
        self.says |= turn.messages[0]
        return replace(turn, messages=[self.says])

    def state(self):
        return self.said

    def restore(self, state):
        self.said = state


@pytest.mark.parametrize("make", [Counting, Live])
def test_siblings_share_nothing(make):
    stepper = Stepper(lambda example: make(), 3, 60.0, 16)
    siblings = stepper.begin(stepper.open(EXAMPLES[2:], STREAMS[2:]) * 3)
    for text in ("12345", "a"):
        one, *others = stepper.step(siblings, [text] * 3, STREAMS, keep=True)
        assert others == [one, one]
    assert [[message["content"][:2] for message in each.messages[2::2]] for each in siblings] == [["5 ", "6 "]] * 3


@pytest.mark.parametrize("make", [Counting, Live])
def test_forks_stand_where_the_turn_began_and_leave_the_origin_alone(make):
    stepper, conversations = begun(make)
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


def stepped_threads(stepper, conversations, message):
    """The threads that step, after a message has been told."""
    before = set(threading.enumerate())
    with pytest.raises(UsageError, match=message):
        stepper.step(conversations, ["x"] * 3, STREAMS, keep=False)
    return set(threading.enumerate()) - before


def test_one_that_hangs_ends_the_run_and_holds_up_no_exit():
    """No other begins, even when it goes on at last."""
    hang, begins = threading.Event(), []

    def hanging():
        begins.append(1)
        hang.wait()
        return RIGHT

    stepper, conversations = begun(wrong(hanging), workers=1)
    stepper.seconds = 0.05
    threads = stepped_threads(stepper, conversations, r"data.environment_seconds is 0.05: .* in turn 1")
    assert len(threads) == 1 and all(thread.daemon for thread in threads)
    hang.set()
    for thread in threads:
        thread.join()
    assert len(begins) == 1


def test_one_that_is_late_ends_the_run_though_it_returns(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(stepping, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def late():
        now[0] += 61
        return RIGHT

    stepper, conversations = begun(wrong(late), workers=1)
    stepped_threads(stepper, conversations, r"data.environment_seconds is 60: .* in turn 1")


def test_none_begins_after_an_error():
    begins = []

    def failing():
        begins.append(1)
        raise KeyError("price")

    stepper, conversations = begun(wrong(failing), workers=1)
    for thread in stepped_threads(stepper, conversations, "raised KeyError"):
        thread.join()
    assert len(begins) == 1


class Locked(Counting):
    def reset(self, example):
        self.lock = threading.Lock()
        return super().reset(example)


def test_a_state_that_cannot_be_copied_names_the_methods_that_mend_it():
    with pytest.raises(UsageError, match=r"cannot be copied .*lock.* at the start .*; give it methods state\(\) and"):
        begun(Locked)

    class Mended(Locked):
        state, restore = Live.state, Live.restore

    stepper, conversations = begun(Mended)
    stepper.step(conversations, ["12"] * 3, STREAMS, keep=True)
    forks = stepper.fork(conversations, [1] * 3)
    assert [fork.environment.said for fork in forks] == [[2]] * 3 and all(fork.environment.lock for fork in forks)


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
