"""The unbiased estimators side by side: their gradients' noise at frozen policies, and what six of them learn."""

from typing import Any

from ablations.metric_names import END, NOISE, TOKEN
from ablations.studies.parts import (
    BESIDE,
    ONE_START,
    QUIET,
    SMALL_MODELS,
    TEST,
    TWO_STEPS,
    UNLIMITED,
    WORDS,
    Algorithm,
    budget,
    control_comparisons,
    controls,
    cuts,
)
from ablations.studies.sampling_budget import GROUPS, PRETRAINING, SAMPLES, TASKS, credited, measured
from ablations.study import SMOKE, Arm, Comparison, Reading, Study, Tuning

BASELINE, START = "RLOO", f"{WORDS} start"
WEIGHTED = "OptimalBaseline per prefix"
STRIDE, STRIDE_IN_WORDS = 4, 16  # of TRePO's cuts: about half of a task's response, a third of a word problem's
PROMPTS, TOKENS, UPDATES = 8, 1456, 20  # of an update, of it at the start, and of a run: binary_math's


def _estimators(stride: int) -> dict[str, Algorithm]:
    """With as many responses as RLOO; P3O's come in pairs."""

    def of(model: str, samples: int = SAMPLES, **arguments: Any) -> Algorithm:
        return Algorithm(model, GROUPS * SAMPLES // samples, {"samples": samples, **arguments})

    forked: dict[str, Any] = {"cuts": cuts("Stride", every=stride), "continuations": 1}
    return {
        "REINFORCE": of("REINFORCE"),
        BASELINE: of("RLOO"),
        "ReMax": of("ReMax"),
        "P3O": of("P3O", samples=2),
        "OptimalBaseline": of("OptimalBaseline"),
        "OptimalBaseline per token": of("OptimalBaseline", per="token"),
        WEIGHTED: of("OptimalBaseline", per="prefix"),
        "PPO": of("PPO"),
        "PPO, pretrained": of("PPO", critic_pretraining=PRETRAINING),
        "TRePO": of("TRePO", **forked),
        "TRePO, paid root": of("TRePO", **forked, root="continuations"),
        "TRePO, reuse": of("TRePO", **forked, reuse=True),
    }


def _frozen() -> list[Arm]:
    arms = [credited(label, task, named) for label, task in TASKS.items() for named in _estimators(STRIDE).items()]
    # the exact credit is sampling_budget's
    arms = [arm.but(arm.name, {"credit.every_n_iterations": 0}, trial=True) for arm in arms]
    return arms + [measured(WORDS, named, TWO_STEPS) for named in _estimators(STRIDE_IN_WORDS).items()]


# of equal prompts and generated tokens: ReMax's greedy response and TRePO's continuations take the place of responses
LEARNERS = {
    "REINFORCE": Algorithm("REINFORCE", PROMPTS, {"samples": 4}),
    BASELINE: Algorithm("RLOO", PROMPTS, {"samples": 4}),
    "ReMax": Algorithm("ReMax", PROMPTS, {"samples": 3}),
    WEIGHTED: Algorithm("OptimalBaseline", PROMPTS, {"samples": 4, "per": "prefix"}),
    "PPO": Algorithm("PPO", PROMPTS, {"samples": 4}),
    "TRePO": Algorithm(
        "TRePO", PROMPTS, {"samples": 2, "cuts": cuts("Stride", every=STRIDE_IN_WORDS), "continuations": 1}
    ),
}


def _trained(name: str) -> Arm:
    config = {
        **LEARNERS[name].config(),
        **TWO_STEPS,
        **budget(TOKENS, UPDATES, looks=2),
        "model.schedule": "linear",
        "data.eval_prompts": 256,
    }
    return Arm(f"{WORDS} {name}, trained", config, START, tuned_as=name, task=WORDS)


def _controls() -> tuple[Comparison, ...]:
    """Of what is trained, by accuracy."""
    found = control_comparisons(f"{BASELINE}, trained", "start", (WORDS,))
    return tuple(each._replace(metric=TEST) for each in found)


def _noise(arm: str, predicted: Any, because: str) -> Comparison:
    return Comparison.between(arm, BASELINE, predicted, because, f"noise: {arm} against {BASELINE}", tasks=TASKS)


def _learning(arm: str, predicted: Any, because: str) -> Comparison:
    name = f"learning: {arm} against {BASELINE}"
    return Comparison.between(
        f"{arm}, trained", f"{BASELINE}, trained", predicted, because, name, metric=TEST, tasks=(WORDS,)
    )


STUDY = Study(
    name="estimators",
    question="Of the estimators that are unbiased, which has the least noise for what it costs, and does less noise "
    "teach more?",
    source="2506.02553 names these families. P3O (2310.00212), OBLR-PO (2511.23310) and the optimal token baseline "
    "(2602.07078) propose further ones. That all of them are unbiased is enumerated (results/certificate).",
    baseline=f"{WORDS} {BASELINE}",
    primary_metric=f"{NOISE}{TOKEN}",
    beside=BESIDE,
    comparisons=(
        _noise("ReMax", "above", "the greedy reward is not the mean, and a response that is not trained on is paid"),
        _noise("P3O", "above", "the mean of one other response has three times the variance of that of three"),
        _noise(WEIGHTED, "equal", "of responses of one length, norms of scores are about equal, too"),
        _learning("ReMax", "below", "its baseline is 0 or 1, and it has three responses instead of four"),
        _learning(WEIGHTED, "", "responses of unequal length weigh differently, but three make a noisy mean"),
        _learning("REINFORCE", "", "binary_math found less noise at the start, but there is more once most are right"),
    ),
    controls=_controls(),
    arms=(*_frozen(), *map(_trained, LEARNERS), *controls(_trained(BASELINE), START)),
    base={
        **QUIET,
        "model.reference": False,
        "trainer.accelerator": "cpu",
        "trainer.max_epochs": 1000,
        "trainer.check_val_every_n_epoch": 1000,
    },
    seeds=tuple(range(10, 20)),
    tuning=Tuning((5e-4, 1e-3, 2e-3, 4e-3), (100, 101, 102), f"{END}val/accuracy_sampled"),
    hours=1.0,
    reading=Reading(
        "On five small tasks no estimator without a critic or continuations has less noise per generated token than "
        "RLOO: ReMax has 1.96 times as much, P3O 1.53, and baselines of least variance change nothing that matters. A "
        "pretrained critic, if its pretraining is free, has 0.58 to 0.85 times RLOO's noise; TRePO has 0.70 times "
        "where an early token decides, and more elsewhere. On word problems the six that were trained rank by sampled "
        "accuracy as by noise at the start, but for PPO: REINFORCE ends 7.7 points above RLOO, with 0.74 times its "
        "noise, ReMax 10.9 below, with 1.8 times, and PPO at 73% against 70%, with REINFORCE's noise. Greedy accuracy "
        "ranks otherwise. RLOO against itself differs by -0.9 points (-6.0 to 4.3), so that the 4.2 points of "
        "OptimalBaseline above RLOO, with as much noise, show little.",
        ("above", "above", "equal", "below", "above", "above"),
    ),
    smoke={**SMOKE, **UNLIMITED, "trainer.check_val_every_n_epoch": 1000},
    notes=(
        f"{SMALL_MODELS} Here: half-trained transformers of one layer over 4 tokens and responses of 8, one a seed and "
        f"task, and on {WORDS} the embedded policy of 0.4M parameters.",
        ONE_START,
        f"Frozen: {GROUPS} prompts an iteration with {SAMPLES} responses each, P3O {2 * GROUPS} with 2. On {WORDS} "
        "more prompts with fewer responses have less noise (binary_math).",
        f"TRePO cuts every {STRIDE} of 8 tokens, on {WORDS} every {STRIDE_IN_WORDS} of about 45, with one continuation "
        "each; sampling_budget has other settings. PPO's critic is as large as the policy; pretrained: "
        f"{PRETRAINING} earlier iterations, not charged.",
        f"On the weights that sampled, P3O is {BASELINE} with 2 responses. OptimalBaseline weighs by scores as "
        "functions of the logits.",
        f"Trained: {PROMPTS} prompts and about {TOKENS:,} generated tokens an update, one optimizer step each, "
        f"{UPDATES} updates. Rates, the best of four on three other seeds, fall linearly to 0.",
    ),
)
