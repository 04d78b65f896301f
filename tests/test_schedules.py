"""The learning rate over a run's budget, and other optimizers than AdamW."""

from functools import partial

import pytest
import ranks
import torch
from lightning import Callback, Trainer
from torch import optim
from training import train

from lit_rl.algorithms import PPO, RLOO, OnlineDPO, Supervised
from lit_rl.algorithms.optimization import UNFIT
from lit_rl.algorithms.schedules import share_spent
from lit_rl.callbacks import Budget, GradientVariance, IterationCheckpoint, RewardCallback
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.errors import UsageError
from lit_rl.policy import TokenTransformer
from lit_rl.tasks import KeyToken

RATE = 2e-3  # of tests/training.py
TASK = KeyToken(length=6)
OPTIMIZERS = {
    cls.__name__: cls
    for cls in vars(optim).values()
    if isinstance(cls, type) and issubclass(cls, optim.Optimizer) and cls is not optim.Optimizer
}
ONCE = {"Muon"}  # for matrices alone


class Rates(Callback):
    """The rates of each optimizer step, a list for each parameter group, and the tokens generated when it is taken."""

    def __init__(self):
        self.rates, self.tokens, self.logged = [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append([group["lr"] for group in optimizer.param_groups])
        self.tokens.append(trainer.datamodule.generated)

    def on_train_epoch_end(self, trainer, pl_module):
        self.logged.append(float(trainer.callback_metrics["progress/learning_rate"]))


def rates_of(algorithm, iterations, *callbacks, **settings):
    """The rates of one optimizer step an iteration, by parameter group."""
    seen = Rates()
    train(algorithm, TASK, iterations, callbacks=(seen, *callbacks), **{"samples": 1, "warmup_steps": 0, **settings})
    return list(zip(*seen.rates, strict=True)), seen


def of_torch(scheduler, iterations, rate):
    """The same rates by a scheduler of torch."""
    optimizer = optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    schedule = scheduler(optimizer)
    found = []
    for _ in range(iterations):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


ORACLES = {
    "constant": lambda n: partial(optim.lr_scheduler.ConstantLR, factor=1.0),
    "linear": lambda n: partial(optim.lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.0, total_iters=n),
    "cosine": lambda n: partial(optim.lr_scheduler.CosineAnnealingLR, T_max=n),
}


@pytest.mark.parametrize("schedule", ORACLES)
def test_rates_over_the_iterations_are_those_of_torch_and_a_critic_follows(schedule):
    [policy, critic], seen = rates_of(PPO, 5, schedule=schedule, critic_learning_rate=1e-2)
    assert policy == pytest.approx(of_torch(ORACLES[schedule](5), 5, RATE))
    assert critic == pytest.approx(of_torch(ORACLES[schedule](5), 5, 1e-2))
    assert seen.logged == pytest.approx(policy)


def test_a_schedule_multiplies_the_warmup_and_waits_for_no_critic():
    """The critic is warmed up from the first step on, the policy from its own first; both fall with the budget."""
    options = {"critic_pretraining": 2, "pretraining_passes": 1, "critic_learning_rate": RATE}
    constant, _ = rates_of(PPO, 6, warmup_steps=3, **options)
    linear, _ = rates_of(PPO, 6, warmup_steps=3, schedule="linear", **options)
    assert constant[0] != constant[1]
    falls, _ = rates_of(RLOO, 6, samples=2, schedule="linear")
    for own, flat in zip(linear, constant, strict=True):
        assert own == pytest.approx([a * b / RATE for a, b in zip(flat, falls[0][::2], strict=True)])


def test_tokens_are_a_budget_as_iterations_are_and_the_largest_share_counts():
    _, free = rates_of(RLOO, 4, samples=2)
    budget = free.tokens[-1] - 1  # reached in the last of four iterations
    first = [0, *free.tokens[1::2]][:4]
    [rates], seen = rates_of(RLOO, -1, Budget(generated_tokens=budget), samples=2, schedule="linear")
    assert rates[::2] == rates[1::2] == pytest.approx([RATE * (1 - spent / budget) for spent in first])
    assert seen.tokens == free.tokens  # one run, whatever its rates: one token ends it as well as another
    [both], _ = rates_of(RLOO, 3, Budget(generated_tokens=10 * budget), samples=2, schedule="linear")
    [iterations], _ = rates_of(RLOO, 3, samples=2, schedule="linear")
    assert both == iterations


class Shares(Callback):
    """The signal-to-noise ratio that is logged for an iteration's mean gradient."""

    def __init__(self):
        self.snr = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.snr.append(float(trainer.callback_metrics["gradient/snr"]))


def test_a_rate_goes_by_the_noise_of_earlier_iterations_at_the_size_of_a_step():
    """After one measurement alone, the logged ratio of signal to noise tells the rate."""
    rates, snr = {}, []
    for accumulate in (2, 4):  # an iteration of 16 prompts and 64 responses, in passes of 16
        seen = Shares()
        callbacks = (GradientVariance(1000), seen)
        settings = {"schedule": "snr", "trainer": {"accumulate_grad_batches": accumulate}}
        [rates[accumulate]], _ = rates_of(RLOO, 3, *callbacks, samples=4, **settings)
        snr += seen.snr[:1]
    whole, half = rates[4], rates[2]
    assert whole[0] == half[0] == half[1] == 0 < whole[1] == whole[2] and len({*half[2:]}) == 1
    assert snr[0] == pytest.approx(snr[1]) and whole[1] == pytest.approx(RATE * snr[0] / (1 + snr[0]), rel=1e-5)
    assert RATE / half[2] - 1 == pytest.approx(2 * (RATE / whole[1] - 1), rel=1e-5)  # noise over signal


def test_a_rate_by_noise_follows_new_measurements_and_lies_between_0_and_the_whole():
    [rates], _ = rates_of(RLOO, 5, GradientVariance(1), samples=4, schedule="snr")
    first, later = rates[:4], rates[4:]  # of the first iteration's four steps, and of the others
    assert first == (0, 0, 0, 0) and all(0 < rate < RATE for rate in later) and len({*later}) == 4


class Clock(Callback):
    """A clock on which an iteration takes 2 seconds."""

    def __init__(self):
        self.now = 1e6

    def on_train_epoch_start(self, trainer, pl_module):
        self.now += 2


def test_seconds_are_a_budget(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("lit_rl.callbacks.budget.time.perf_counter", lambda: clock.now)
    [rates], _ = rates_of(RLOO, -1, clock, Budget(seconds=8.0), samples=2, schedule="cosine")
    assert rates[::2] == pytest.approx(of_torch(ORACLES["cosine"](4), 4, RATE))


@pytest.mark.parametrize("name", ["RTO", "ABC", "OnlineDPO", "Supervised"])
def test_every_kind_of_algorithm_takes_a_schedule_and_an_optimizer(name, tmp_path):
    ranks.ingredients(tmp_path)
    make = partial(ranks.make, name, tmp_path)
    seen = Rates()
    options = {**TRAINER_DEFAULTS, "max_epochs": 2, "limit_val_batches": 0, "accelerator": "cpu", "logger": False}
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(**options, **quiet, callbacks=[RewardCallback(), seen])
    algorithm = make(schedule="linear", optimizer=partial(optim.SGD, momentum=0.9), warmup_steps=0)
    task = ranks.Told(vocabulary=5, length=ranks.LENGTH, eos=True)
    trainer.fit(algorithm, datamodule=RolloutDataModule(task, prompts_per_iteration=4, rows_per_microbatch=4, seed=0))
    assert isinstance(trainer.optimizers[0], optim.SGD)
    first, last = seen.rates[0], seen.rates[-1]
    assert last == pytest.approx([rate / 2 for rate in first]) and first[0] == algorithm.learning_rate


class Stop(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


def resumable(folder, optimizer, *callbacks, resumed=None, schedule="cosine"):
    """Weights after two iterations on a schedule, or after the first, or after the second alone."""
    torch.manual_seed(0)
    policy = TokenTransformer(TASK.vocabulary, TASK.length, TASK.eos_id is not None, hidden_size=16, layers=1)
    saved = IterationCheckpoint(dirpath=folder, save_on_train_epoch_end=True, every_n_epochs=1, save_last=True)
    options = {**TRAINER_DEFAULTS, "max_epochs": 2, "limit_val_batches": 0, "accelerator": "cpu", "logger": False}
    callbacks = [RewardCallback(), saved, Budget(generated_tokens=150), *callbacks]
    trainer = Trainer(**options, enable_progress_bar=False, callbacks=callbacks)
    data = RolloutDataModule(TASK, prompts_per_iteration=8, rows_per_microbatch=8, seed=0)
    settings = {"max_new_tokens": TASK.length, "learning_rate": 1e-2, "schedule": schedule, "reference": False}
    model = PPO(policy=policy, samples=2, optimizer=optimizer, **settings)
    trainer.fit(model, datamodule=data, ckpt_path=resumed)
    assert trainer.current_epoch == (1 if Stop in map(type, callbacks) else 2)
    spent = share_spent(trainer, model)
    return model.state_dict(), spent


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - UNFIT.keys() - ONCE))
def test_a_run_with_any_optimizer_of_torch_goes_on_bitwise(name, tmp_path):
    cls = OPTIMIZERS[name]
    whole, spent = resumable(tmp_path / "whole", cls)
    resumable(tmp_path / "part", cls, Stop())
    part, again = resumable(tmp_path / "part", cls, resumed=tmp_path / "part" / "last.ckpt")
    assert all(torch.equal(value, part[key]) for key, value in whole.items()) and spent == again
    assert not torch.equal(*(w["policy.model.lm_head.weight"] for w in (whole, resumable(tmp_path / "x", None)[0])))


def test_what_was_measured_of_the_noise_goes_on_bitwise(tmp_path):
    def run(name, *callbacks, resumed=None):
        measured = GradientVariance(1)
        weights, _ = resumable(tmp_path / name, None, measured, *callbacks, resumed=resumed, schedule="snr")
        return weights, measured.state_dict()

    whole, measured = run("whole")
    assert run("part", Stop())[1] != measured
    part, again = run("part", resumed=tmp_path / "part" / "last.ckpt")
    assert again == measured and all(torch.equal(value, part[key]) for key, value in whole.items())


class Own(RLOO):
    def configure_optimizers(self):
        return optim.SGD(self.parameters(), lr=0.5)


def test_an_algorithm_may_configure_its_optimizer_itself():
    seen = Rates()
    seen.on_train_epoch_end = lambda *_: None  # no rate of ours to log
    train(Own, TASK, 2, callbacks=(seen,), samples=2)
    assert seen.rates == [[0.5]] * 4


def test_what_cannot_train_is_a_line():
    for optimizer in (*(OPTIMIZERS[name] for name in UNFIT), optim.Muon, partial(optim.SGD, momentum=-1), 3):
        with pytest.raises(UsageError, match="^model.optimizer"):
            train(OnlineDPO, TASK, 1, optimizer=optimizer, reference=True)
    for given in ({"weight_decay": 0.1}, {"betas": (0.8, 0.9)}):
        with pytest.raises(UsageError, match=r"model.optimizer.\*"):
            RLOO(optimizer=optim.SGD, **given)


def test_a_schedule_needs_a_budget():
    with pytest.raises(UsageError, match="model.schedule linear .* set trainer.max_epochs"):
        train(RLOO, TASK, -1, schedule="linear", samples=2)
    with pytest.raises(UsageError, match="of an algorithm that samples"):
        train(Supervised, ranks.Told(5, 6, True), -1, callbacks=(Budget(100),), schedule="linear")


@pytest.mark.parametrize(
    "args, said",
    [
        (["--optimizer", "SGD"], "optimizer is no setting; set --model.optimizer"),
        (["--lr_scheduler=torch.optim.lr_scheduler.StepLR"], "lr_scheduler is no setting; set --model.schedule"),
        (["--config=lightning.yaml"], "optimizer is no setting; set --model.optimizer"),
        (["--model.optimizer=SGDD"], "model.optimizer: no class 'SGDD' (did you mean SGD?)"),
        (["--model.optimizer=torch.optim.Nope"], "model.optimizer: no class 'torch.optim.Nope'; choose one of"),
        (["--model.optimizer=torch.nn.Linear"], "model.optimizer: Expected 'torch.nn.Linear' to be a subclass"),
        (["--model.optimizer=SGD", "--model.optimizer.momentum=a"], "model.optimizer.momentum is a; choose a number"),
        (
            ["--model.optimizer=SGD", "--model.optimizer.lr=1"],
            "model.optimizer.lr is no setting; set --model.learning_",
        ),
        (["--model.optimizer=SGD", "--model.optimizer.momentun=1"], "model.optimizer.momentun is not a setting"),
        (["--model.optimizer=Muon"], "model.optimizer can't train this model: Muon only supports 2D"),
        (["--model.schedule=exponential"], "model.schedule is exponential; choose constant, linear, cosine or snr"),
        (["--model.schedule=linear", "--trainer.max_epochs=-1"], "model.schedule linear falls with the run's budget"),
        (["--model.schedule=snr", "--gradient_variance.every_n_iterations=0"], "model.schedule snr goes by the noise"),
        (
            ["--model.schedule=snr", "--data.prompts_per_iteration=1", "--data.rows_per_microbatch=4"],
            "model.schedule snr goes by the noise that",
        ),
    ],
)
def test_a_mistake_is_one_line_and_no_run_is_made(args, said, lit_rl, tmp_path):
    small = ["--model=RLOO", "--data.task=KeyToken", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    (tmp_path / "lightning.yaml").write_text("optimizer: {class_path: torch.optim.SGD}")
    code, _, err = lit_rl("fit", *small, "--checkpoint.dirpath=checkpoints", *args)
    [line] = [line for line in err.splitlines() if line.startswith("lit_rl:")]
    assert code == 2 and said in line and not (tmp_path / "checkpoints").exists()


def test_the_settings_of_an_optimizer_have_a_help(lit_rl):
    code, out, _ = lit_rl("fit", "--model.optimizer.help=SGD")
    assert code == 0 and "--optimizer.momentum MOMENTUM" in out
