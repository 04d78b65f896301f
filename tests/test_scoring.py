"""Scores, whoever gives them: a number, or the end of the run with one line that says where and why."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from stopping_early import NoAdvantages, NoLoss, NoPrompts, NoSamples, stop

from lit_rl.algorithms import GRPO
from lit_rl.callbacks import RewardCallback
from lit_rl.callbacks.interruption import Interrupted
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.errors import UsageError
from lit_rl.policy import RewardModel, TokenTransformer
from lit_rl.policy.reward_fitting import from_policy
from lit_rl.sampling import LocalSampler, SamplingPlan
from lit_rl.tasks import KeyToken
from lit_rl.tasks.scoring import LARGEST, check_scores, score_rows

TASK = KeyToken()
GIVEN = {"prompt": [{"role": "user", "content": "the prompt\n" * 50}]}


@pytest.fixture(scope="module")
def rollouts():
    """Two responses of bare tokens to one prompt of many lines."""
    policy = TokenTransformer(4, 8, False, hidden_size=16, layers=1)
    table = LocalSampler().sample(policy, [[0]], SamplingPlan(samples=2, max_new_tokens=8), [(0,)])
    table.examples = [GIVEN]
    return table


def odd(value):
    """A reward that is right in the first row and gives, or raises, something else in the second."""

    def reward(example, ids, text):
        if text == "first":
            return 1.0
        if isinstance(value, BaseException):
            raise value
        return value

    return reward


class Unprintable:
    def __repr__(self):
        raise RuntimeError("never")


VALUES = [
    1,
    0.25,
    True,
    -3,
    np.float32(2),
    np.bool_(True),
    np.ones(1),
    torch.tensor(0.5),
    torch.ones(1),
    torch.tensor(3),
]
VALUES += [Decimal("0.5"), Fraction(1, 4), LARGEST, -LARGEST]
NO_NUMBERS = [
    None,
    "1",
    b"1",
    np.str_("1"),
    np.array(["1"]),
    float("nan"),
    float("inf"),
    1e300,
    10**400,
    -1e16,
    1j,
    [1.0],
]
NO_NUMBERS += [torch.ones(2), torch.tensor(torch.nan), np.ones(2), Decimal("sNaN"), Unprintable(), lambda: 1.0, {}]
ERRORS = [
    StopIteration(),
    SystemExit(0),
    KeyError("gold"),
    GeneratorExit(),
    ValueError("a\nb"),
    RuntimeError("x" * 10**5),
]
ERRORS += [BaseException(), RecursionError(), MemoryError(), AssertionError(Unprintable()), EOFError()]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_score_is_any_number_and_is_kept_in_float32(rollouts, value):
    scores = score_rows(odd(value), rollouts, ["first", "second"], "reward.scorer")
    assert scores.dtype == torch.float32 and scores.tolist() == [1, np.float32(np.ravel(value)[0])]


@pytest.mark.parametrize("value", [*NO_NUMBERS, *ERRORS], ids=lambda value: type(value).__name__)
def test_a_score_that_is_no_number_is_one_line_with_row_prompt_and_response(rollouts, value):
    with pytest.raises(UsageError, match="^reward.scorer (raised|returned) ") as caught:
        score_rows(odd(value), rollouts, ["first", "the response " * 1000], "reward.scorer")
    said = str(caught.value)
    assert "for row 2 (prompt 'the prompt" in said and "response 'the response the" in said
    assert "\n" not in said and len(said) < 500
    assert not isinstance(value, Exception) or type(value).__name__ in said


def test_a_score_may_be_interrupted_and_a_task_may_name_its_own_setting(rollouts):
    for error in (KeyboardInterrupt(), Interrupted(15), UsageError("data.task.length is 3")):
        with pytest.raises(type(error)) as caught:
            score_rows(odd(error), rollouts, ["first", "second"], "data.task")
        assert caught.value is error


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -1e16])
def test_a_models_scores_are_checked_too(rollouts, value):
    texts = ["first", "the response"]
    check_scores(torch.tensor([0.0, LARGEST]), rollouts, texts.__getitem__, "reward.model")
    with pytest.raises(UsageError, match=r"^reward\.model returned .* row 2 .*'the prompt.* response 'the response'"):
        check_scores(torch.tensor([0.0, value]), rollouts, texts.__getitem__, "reward.model")


def test_a_reward_model_with_weights_that_are_no_numbers_is_refused(tmp_path):
    model = from_policy(TokenTransformer(4, 8, False, hidden_size=16, layers=1))
    model.model.score.weight.data[0, 0] = torch.nan
    model.model.save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match=r"^reward\.model: .* has weights that are no finite numbers"):
        RewardModel.load(str(tmp_path / "model"))


def test_a_function_that_takes_something_else_is_refused_before_anything_starts():
    import os

    for scorer in (os.getcwd, lambda text: 1.0, lambda example, ids, text, more: 1.0):
        with pytest.raises(UsageError, match=r"^reward\.scorer: .* is called as \(example, ids, text\)"):
            RewardCallback(scorer)
    RewardCallback(print), RewardCallback(lambda *anything: 1.0), RewardCallback(lambda example, ids, text, more=1: 1.0)


class Stops(Callback):
    """Raises StopIteration in one hook."""

    def __init__(self, hook):
        setattr(self, hook, stop)


@pytest.mark.parametrize(
    "parts, error",
    [
        ({"scorer": stop}, UsageError),
        ({"task": NoPrompts()}, RuntimeError),
        ({"sampler": NoSamples()}, RuntimeError),
        ({"algorithm": NoAdvantages}, RuntimeError),
        ({"algorithm": NoLoss}, RuntimeError),
        ({"callback": Stops("on_train_epoch_start")}, UsageError),
        ({"callback": Stops("on_train_batch_end")}, UsageError),
        ({"callback": Stops("on_train_epoch_end")}, UsageError),
        ({"callback": Stops("on_before_optimizer_step")}, UsageError),
    ],
    ids=lambda value: next(iter(value.values())).__class__.__name__ if isinstance(value, dict) else value.__name__,
)
def test_no_stop_iteration_ends_training_as_a_success(parts, error):
    policy = TokenTransformer(4, 8, False, hidden_size=16, layers=1)
    algorithm = parts.get("algorithm", GRPO)(policy=policy, max_new_tokens=8, samples=4)
    data = RolloutDataModule(
        parts.get("task", TASK), parts.get("sampler"), prompts_per_iteration=2, rows_per_microbatch=4
    )
    callbacks = [RewardCallback(parts.get("scorer")), *([parts["callback"]] if "callback" in parts else [])]
    options = {**TRAINER_DEFAULTS, "max_epochs": 2, "limit_val_batches": 0, "accelerator": "cpu", "logger": False}
    trainer = Trainer(**options, callbacks=callbacks, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.raises(error, match="StopIteration"):
        trainer.fit(algorithm, datamodule=data)
    assert trainer.state.status == "interrupted"
