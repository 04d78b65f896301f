"""Responses of several turns: does TRePO pay where an environment speaks in between?

What one turn decides is known when the environment has answered. There TRePO can take the value, at turn boundaries, or
at strides that know of no turns.
"""

from dataclasses import dataclass, field
from typing import Any

from ablations.config import Config
from ablations.metric_names import END
from ablations.studies.parts import (
    BESIDE,
    ONE_START,
    QUIET,
    SMALL_MODELS,
    TEST,
    UNLIMITED,
    Algorithm,
    budget,
    control_comparisons,
    controls,
    cuts,
)
from ablations.study import SMOKE, Arm, Comparison, Prediction, Reading, Study, Tuning

POLICY: Config = {"class_path": "lit_rl.policy.CausalPolicy", "init_args": {"path": "embedded-turns"}}
ASK, GUESS = "AskForMissing", "GuessNumber"
START, BASELINE = "start", "RLOO"
RESPONSES = 8  # to a prompt; with continuations half of them
LARGER = 4  # times the prompts, where a frozen policy's gradient is measured
AT_TURNS, AT_STRIDES, TURN_REWARDS, PRETRAINED = (
    "TRePO, turns",
    "TRePO, strides",
    "GRPO, turn rewards",
    "PPO, pretrained",
)


@dataclass(frozen=True)
class Task:
    """A task, and how an update's tokens are spent on it.

    Attributes:
        longest: tokens that the policy may write in a response.
        prompts: of an update.
        tokens: of an update, at the start.
        updates: of the budget.
        at_turns: continuations per cut at turn boundaries that cost about as much as the responses.
        stride, at_strides: the same at strides, in tokens of the policy.
    """

    longest: int
    prompts: int
    tokens: int
    updates: int
    at_turns: int
    stride: int
    at_strides: int
    arguments: Config = field(default_factory=dict)

    @property
    def pretraining(self) -> int:
        """Updates of the budget that fit a critic first."""
        return self.updates // 7

    def algorithm(self, name: str) -> Algorithm:
        model, _, which = name.partition(", ")
        arguments: dict[str, Any] = {"samples": RESPONSES}
        if model == "TRePO":
            arguments = {"samples": RESPONSES // 2, "cuts": cuts("Turns"), "continuations": self.at_turns}
            if name == AT_STRIDES:
                arguments |= {"cuts": cuts("Stride", every=self.stride), "continuations": self.at_strides}
            elif name != AT_TURNS:
                arguments["continuations"] = int(which.removeprefix("turns, K="))
        if name == PRETRAINED:
            arguments["critic_pretraining"] = self.pretraining
        if name == TURN_REWARDS:
            arguments["rewards"] = "turns"
        return Algorithm(model, self.prompts, arguments)


TASKS = {
    ASK: Task(longest=96, prompts=4, tokens=1675, updates=20, at_turns=2, stride=18, at_strides=1),
    GUESS: Task(longest=16, prompts=8, tokens=338, updates=32, at_turns=1, stride=3, at_strides=2),
}
TRAINED = ("REINFORCE", BASELINE, "GRPO", TURN_REWARDS, "PPO", PRETRAINED, AT_TURNS, AT_STRIDES)
MEASURED = ("REINFORCE", BASELINE, PRETRAINED, *(f"{AT_TURNS}, K={k}" for k in (1, 2, 4)), AT_STRIDES)  # of one scale


def _settings(name: str) -> Config:
    task = TASKS[name]
    own = {f"data.task.{key}": value for key, value in task.arguments.items()}
    return {"data.task": name, **own, "model.max_new_tokens": task.longest}


def _trained(task: str, name: str) -> Arm:
    at = TASKS[task]
    config = {**at.algorithm(name).config(), **_settings(task), **budget(at.tokens, at.updates, looks=4)}
    return Arm(f"{task} {name}", config, f"{task} {START}", tuned_as=f"{task} {name}", task=task)


def _frozen(task: str, name: str) -> Arm:
    """At the start, the warm-started policy."""
    config = {**TASKS[task].algorithm(name).frozen(LARGER), **_settings(task), "trainer.check_val_every_n_epoch": 1000}
    return Arm(f"{task} {name}, frozen", config, f"{task} {BASELINE}, frozen", frozen=True, task=task)


def _arms(task: str) -> tuple[Arm, ...]:
    trained = [_trained(task, name) for name in TRAINED]
    others = controls(trained[TRAINED.index(BASELINE)], f"{task} {START}")
    return (*trained, *others, *(_frozen(task, name) for name in MEASURED))


def _planned(arm: str, against: str, tasks: tuple[str, ...], predicted: Prediction, because: str) -> Comparison:
    name = f"{arm} against {against}, {tasks[0] if len(tasks) == 1 else 'both tasks'}"
    return Comparison.between(arm, against, predicted, because, name, tasks=tasks)


STUDY = Study(
    name="multi_turn",
    question="Does TRePO pay where a response has several turns and an environment speaks in between?",
    source="The first open question of 2506.02553, for responses of several turns.",
    baseline=f"{ASK} {BASELINE}",
    primary_metric=TEST,
    beside=BESIDE,
    comparisons=(
        _planned(
            AT_TURNS,
            "GRPO",
            (ASK,),
            "below",
            "once the environment has answered, a quarter of the reward's variance is decided: continuations cost more",
        ),
        _planned(
            AT_TURNS,
            "GRPO",
            (GUESS,),
            "below",
            "the last guess decides half, and half of the tokens are continuations, which are not trained on",
        ),
        _planned(
            AT_TURNS,
            AT_STRIDES,
            (ASK,),
            "above",
            "what a turn decides is known at its end, and responses of one turn pay for no continuation",
        ),
        _planned(
            AT_TURNS,
            AT_STRIDES,
            (GUESS,),
            "below",
            "strides of 3 cut behind the second guess alone, where two continuations cost as much as one at each turn",
        ),
        _planned(
            TURN_REWARDS,
            "GRPO",
            tuple(TASKS),
            "below",
            "only last turns are paid, and each further turn is charged with the mean reward of a turn",
        ),
        _planned(
            AT_TURNS,
            "PPO",
            tuple(TASKS),
            "",
            "a critic sees what was said as well and costs no tokens, but starts at 0",
        ),
    ),
    controls=control_comparisons(BASELINE, START, tuple(TASKS)),
    arms=tuple(arm for task in TASKS for arm in _arms(task)),
    base={
        **QUIET,
        "model.policy": POLICY,
        "model.schedule": "linear",  # so that no arm collapses late at a rate that was good early
        "data.eval_prompts": 256,
        "trainer.max_epochs": 1000,
        "trainer.accelerator": "cpu",
    },
    seeds=tuple(range(10, 20)),
    tuning=Tuning(
        (2.5e-4, 5e-4, 1e-3, 2e-3), (100, 101), f"{END}val/accuracy_sampled", {GUESS: (5e-4, 1e-3, 2e-3, 4e-3)}
    ),
    exactly=f"Enumerated without training, TRePO has 2.6 times RLOO's gradient noise per generated token in {GUESS} "
    "with cuts at turns, and 1.8 times with cuts at strides.",
    exact="ablations.exact.multi_turn.rows",
    # a task has 100 trained cells, 10 of its start, 64 trials and 70 frozen cells: at 20, 2, 20 and 8 core-seconds
    # (AskForMissing), and 14, 2, 14 and 5 (GuessNumber), these are 6,500 seconds, 54 minutes of two cores
    hours=1.0,
    kappas=(1.0, 4.0),
    smoke={**SMOKE, **UNLIMITED},
    reading=Reading(
        "Measured, it has 1.3 to 1.9 times RLOO's noise on both tasks, so that it does not pay. After training, with "
        "cuts at turns, it is 4 points behind GRPO where the policy has to ask back. Where it guesses from hints it is "
        "23 points behind, but none of the three arms for which two seeds chose the higher rate, itself among them, "
        "rose above its start.",
        ("below", "below", "unresolved", "below", "unresolved", "below"),
    ),
    notes=(
        f"{SMALL_MODELS} Here it has 0.4M parameters. In {ASK} a word problem lacks a quantity: the policy may ask for "
        f"it. In {GUESS} a number from 1 to 8 is guessed in three turns, with a hint after each.",
        "The warm start was taught to ask half of the time and to heed half of the hints (data/turns/README.md).",
        ONE_START,
        f"An update has {TASKS[ASK].prompts} prompts ({ASK}) or {TASKS[GUESS].prompts}: {RESPONSES} responses each, or "
        f"{RESPONSES // 2} with their continuations. What the environment says is not counted. Critic pretraining is "
        "paid from the budget.",
        "Learning rates were chosen on two other seeds; they fall linearly to 0 over the budget.",
        f"Strides count the policy's tokens: {TASKS[ASK].stride} of up to 60 in {ASK}, {TASKS[GUESS].stride} of 6 in "
        f"{GUESS}.",
    ),
)
