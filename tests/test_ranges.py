"""Numbers out of their ranges, and what a range says of itself."""

import math

import pytest
from lightning import Trainer
from range_cases import inside, outside, settings

from lit_rl.algorithms import GRPO, REINFORCE
from lit_rl.commands.cli import CLI
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.errors import UsageError
from lit_rl.functional.losses import Normalizer
from lit_rl.policy import CausalPolicy, TabularPolicy
from lit_rl.ranges import Count, Number, Positive, Range, Ranged, Share, check_classes, fault
from lit_rl.tasks import KeyToken

ALL = [each for each in settings() if each.cls is not None and issubclass(each.cls, Ranged)]


@pytest.mark.parametrize("setting", ALL, ids=str)
def test_a_constructor_refuses_what_is_out_of_range_and_names_it(setting):
    for value in outside(setting.hint):
        with pytest.raises(UsageError, match=rf"^{setting.key} is .*must be") as caught:
            setting.cls(**{setting.name: value})
        assert "\n" not in str(caught.value)
    assert not any(fault(value, setting.hint) for value in inside(setting.hint))


def test_a_range_knows_its_ends_and_says_them():
    assert 0 in Range(0, 1) and 1 in Range(0, 1)
    assert 0 not in Range(0, 1, above=True) and 1 not in Range(0, 1, below=True)
    for each in (Range(), Range(0), Range(0, infinite=True)):
        assert math.nan not in each
    assert math.inf not in Range(0) and math.inf in Range(0, infinite=True) and -math.inf not in Range(0, infinite=True)
    assert repr(Range(0, 1)) == "at least 0 and at most 1" and repr(Range(0, above=True)) == "above 0"


@pytest.mark.parametrize("value", ["1", True, None, [1], 1.0])
def test_a_count_is_an_integer(value):
    assert fault(value, Count) and fault(1, Count) is None


def test_a_choice_is_one_of_those_there_are():
    assert fault("token_mean", Normalizer) is None and fault(None, Normalizer) and fault("mean", Normalizer)
    with pytest.raises(UsageError, match=r"^model\.normalizer is None; it must be one of row_sum, "):
        GRPO(normalizer=None)
    model = {"class_path": "lit_rl.algorithms.GRPO", "init_args": {"normalizer": None}}
    with pytest.raises(UsageError, match=r"^model\.normalizer is None"):
        check_classes({"model": model})


def test_optional_and_several_numbers():
    assert fault(None, Share | None) is None and fault(2.0, Share | None)
    assert fault((0.5, 2.0), tuple[Share, Share]) and fault((0.5, 1), tuple[Share, Share]) is None
    assert fault([1, 0], list[Count]) and fault([1, 2, 3], list[Count]) is None
    assert fault(math.inf, Number) and fault(-1e300, Number) is None


def test_positional_arguments_and_those_that_a_subclass_passes_on_are_checked():
    class Mine(GRPO):
        def __init__(self, mine: Positive = 1.0, **kwargs) -> None:
            raise AssertionError("nothing is built")

    for wrong in ({"mine": 0.0}, {"learning_rate": -1.0}, {"samples": 1}):
        with pytest.raises(UsageError, match=rf"^model\.{next(iter(wrong))} is"):
            Mine(**wrong)
    with pytest.raises(UsageError, match=r"^model\.mine is"):
        Mine(math.nan)
    with pytest.raises(UsageError, match=r"^data\.prompts_per_iteration is 0"):
        RolloutDataModule(None, None, 0)


@pytest.mark.parametrize(
    "args",
    [
        ("--model.clip_low=.nan",),
        ("--model.betas=[0.9,1.0]",),
        ("--model.learning_rate=-1",),
        ("--model=TRePO", "--model.cuts=Stride", "--model.cuts.every=0"),
        ("--model.policy=TokenTransformer", "--model.policy.heads=0"),
        ("--data.sampler.batch_rows=-1",),
        ("--data.task.train_size=0",),
        ("--data.stream=-1",),
        ("--transcripts.responses=-1",),
        ("--checkpoint.save_top_k=-2",),
        ("--trainer.gradient_clip_val=-1",),
        ("--trainer.accumulate_grad_batches=0",),
        ("--seed_everything=4294967296",),
        ("--trainer.precision=64-true",),
    ],
    ids=lambda args: args[-1],
)
def test_the_command_line_refuses_it_before_a_model_is_loaded(lit_rl, monkeypatch, tmp_path, args):
    def load(cli):
        raise AssertionError("classes were built")

    monkeypatch.setattr(CLI, "instantiate_classes", load)
    code, _, err = lit_rl("fit", *args)
    said = [line for line in err.splitlines() if line.startswith("lit_rl: ")]
    assert code == 2 and len(said) == 1 and said[0].startswith(f"lit_rl: {args[-1][2:].split('=')[0]} "), err
    assert not list(tmp_path.iterdir())


def test_help_shows_ranges(lit_rl):
    _, out, _ = lit_rl("fit", "--model.help", "GRPO")
    words = " ".join(out.split())
    assert "int at least 2, default: 4" in words and "Annotated" not in words
    _, out, _ = lit_rl("fit-reward", "--help")
    assert "float at least 0 and at most 1" in " ".join(out.split())


@pytest.mark.parametrize(
    "flag", [{"gradient_clip_val": -1.0}, {"accumulate_grad_batches": 0}, {"precision": "64-true"}]
)
def test_a_trainer_made_in_python_is_refused_before_the_first_iteration(flag):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(**{**TRAINER_DEFAULTS, "max_epochs": 1, **quiet, **flag})
    algorithm = REINFORCE(TabularPolicy(4, 2), max_new_tokens=2)
    with pytest.raises(UsageError, match=f"^trainer.{next(iter(flag))} "):
        trainer.fit(algorithm, datamodule=RolloutDataModule(KeyToken(4, 2)))


def test_float16_weights_are_refused_for_what_is_wrong_with_them():
    with pytest.raises(UsageError, match=r"^model\.policy\.dtype float16.*scales the loss"):
        CausalPolicy(dtype="float16")
