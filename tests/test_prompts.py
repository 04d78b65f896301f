"""What can be known before the first iteration is told there: prompts too long, cuts beyond a response."""

import pytest
from datasets import Dataset
from lightning import Trainer, seed_everything

from lit_rl.algorithms import REINFORCE, TRePO
from lit_rl.callbacks import Credit, RewardCallback, ValueAccuracy
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.data.prompts import Prompts
from lit_rl.errors import UsageError
from lit_rl.functional.cuts import Bernoulli, Boundary, Entropy, Stride
from lit_rl.policy import TabularPolicy, TokenTransformer
from lit_rl.sampling import LocalSampler
from lit_rl.tasks import KeyToken, Task


class Digits(Task):
    """Prompts of so many tokens each, the same in every split; the reward is the number of zeros."""

    def __init__(self, *lengths: int) -> None:
        chats = [[{"role": "user", "content": " ".join("0" * n)}] for n in lengths]
        self.rows = Dataset.from_dict({"prompt": chats, "length": lengths})

    def prompts(self, split):
        return self.rows

    def score(self, example, ids, text):
        return float((ids == 0).sum())


def never(rollouts):
    raise AssertionError("an iteration began")


def trained(task, callbacks=(), algorithm=None, iterations=1, **data):
    """Fits for some iterations with a policy of 9 positions, of which responses take up to 4."""
    seed_everything(0, verbose=False)
    policy = TokenTransformer(4, 8, hidden_size=16, layers=1, heads=1)
    algorithm = algorithm or REINFORCE(policy, max_new_tokens=4, reference=False)
    module = RolloutDataModule(task, prompts_per_iteration=4, rows_per_microbatch=4, **data)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(
        **TRAINER_DEFAULTS | {"max_epochs": iterations, **quiet}, callbacks=[RewardCallback(), *callbacks]
    )
    trainer.fit(algorithm, datamodule=module)
    return trainer, module


def test_a_prompt_too_long_is_told_before_the_first_iteration(monkeypatch):
    monkeypatch.setattr(REINFORCE, "advantages", lambda self, rollouts: never(rollouts))
    with pytest.raises(UsageError, match=r"1 of 3 prompts of the split train .* 6 tokens.*data\.too_long drop"):
        trained(Digits(5, 6, 1))
    with pytest.raises(
        UsageError, match=r"^model\.max_new_tokens is 4: with the shortest prompt .* 6 tokens.*lower it"
    ):
        trained(Digits(6, 7), too_long="drop")


def test_too_long_prompts_are_left_out_of_every_split_and_counted(capsys):
    seen = []

    class Look(RewardCallback):
        def on_train_epoch_start(self, trainer, pl_module):
            seen.extend(example["length"] for example in trainer.datamodule.rollouts.examples)

    trainer, module = trained(Digits(5, 6, 1, 9, 2), callbacks=[Look()], iterations=3, too_long="drop")
    assert {split: len(module.prompts.of(split)) for split in ("train", "val")} == {"train": 3, "val": 3}
    assert sorted(seen) == [1] * 4 + [2] * 4 + [5] * 4  # three iterations of four: each prompt four times
    assert trainer.callback_metrics["prompts/too_long"] == 4
    said = capsys.readouterr().err.splitlines()
    assert "lit_rl: data.too_long drop leaves out 2 of 5 prompts of the split train, longer than 5 tokens" in said
    trainer.test(trainer.lightning_module, datamodule=module, verbose=False)
    assert module.prompts.left_out["test"] == 2


def test_evaluation_looks_at_the_prompts_it_takes():
    prompts, policy = Prompts(Digits(5, 6, 9), "error"), TokenTransformer(4, 8, hidden_size=16, layers=1, heads=1)
    prompts.look("val", policy, LocalSampler(), 4, first=1, tell=False)
    with pytest.raises(UsageError, match="1 of 2 prompts of the split val"):
        prompts.look("val", policy, LocalSampler(), 4, first=2, tell=False)


def test_prompts_that_surely_fit_are_not_encoded(policy, task, monkeypatch):
    monkeypatch.setattr(type(policy), "encode_prompt", lambda self, messages: never(messages))
    prompts = Prompts(task, "error")
    prompts.look("train", policy, LocalSampler(), 48, first=None, tell=False)
    assert len(prompts.of("train")) == 256 and prompts.left_out == {"train": 0}


@pytest.mark.parametrize(
    "cuts, named",
    [(Stride(4), "every is 4"), (Entropy(1.4), r"threshold is 1\.4"), (Boundary((1, 4)), "token_ids has 4")],
    ids=str,
)
def test_cuts_that_no_response_can_have(cuts, named):
    with pytest.raises(UsageError, match=rf"^model\.cuts\.{named}"):
        TRePO(policy=TabularPolicy(4, 4), max_new_tokens=4, cuts=cuts)


def test_cuts_that_a_response_can_have():
    for cuts in (None, Stride(3), Entropy(1.38), Boundary((1, 3)), Bernoulli(0.1)):
        TRePO(policy=TabularPolicy(4, 4), max_new_tokens=4, cuts=cuts)


@pytest.mark.parametrize(
    "callback, named", [(Credit(1), "credit.every_n_iterations"), (ValueAccuracy(1, stride=4), "value_accuracy.stride")]
)
def test_observers_say_at_once_what_they_cannot_observe(callback, named, monkeypatch):
    monkeypatch.setattr(REINFORCE, "advantages", lambda self, rollouts: never(rollouts))
    with pytest.raises(UsageError, match=f"^{named}"):
        trained(KeyToken(4, 8), callbacks=[callback])
