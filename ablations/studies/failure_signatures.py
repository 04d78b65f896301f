"""Do the warnings warn? Runs with a fault provoked on purpose, beside healthy twins."""

from typing import Any

from ablations.config import Config
from ablations.metric_names import FLAGGED
from ablations.studies.parts import POLICY, QUIET, SMALL_MODELS, WORDS, cuts, position_credit
from ablations.study import SMOKE, Arm, Comparison, Fault, Reading, Stage, Study

KEY, TASKS = "KeyToken", ("KeyToken", "GSM8KStyle")
LENGTH, POSITION = 8, 5  # of KeyToken's responses, and of the token that decides
CRITIC, FEW, BASELINE = "PPO, critic started wrong", "TRePO, one continuation", "REINFORCE, constant baseline"
HACKED, FAST = "RLOO, weak reward model", "GRPO, rate too high"
TWINS = {
    CRITIC: ("critic started wrong", "critic_initialisation", "PPO"),
    FEW: ("one continuation", "insufficient_sampling", "TRePO, enough samples"),
    BASELINE: ("constant baseline", "poor_baseline", "RLOO"),
    HACKED: ("weak reward model", "kl_collapse", f"{HACKED}, KL"),
    FAST: ("rate too high", "kl_collapse", "GRPO"),
}
BECAUSE = {
    CRITIC: "its bias is what is measured",
    FEW: "one draw's error is as large as what it should take away",
    BASELINE: "most of the noise is the constant's",
    HACKED: "nothing holds the policy near its start",
    FAST: "the policy loses its variety, or turns to noise",
}


def _task(task: str, rare: bool = False) -> Config:
    """Success is rare with more tokens to choose from, or with more steps than the start was taught."""
    if task == KEY:
        return position_credit(KEY, _sizes(rare), {"position": POSITION})
    harder: Config = {"data.task.most_steps": 4} if rare else {}
    return {"data.task": WORDS, "data.task.steps": 2, **harder, "model.max_new_tokens": 128 if rare else 64}


def _sizes(rare: bool = False) -> Config:
    return {"vocabulary": 16 if rare else 4, "length": LENGTH}


def _arm(task: str, name: str, model: str, prompts: int, rare: bool = False, **arguments: Any) -> Arm:
    """At a rate at which the twin learns: one update an iteration on KeyToken, and one for 16 responses on words."""
    rate, rows = {KEY: 1e-2, WORDS: 3e-4}[task], prompts * arguments.get("samples", 1)
    config = {
        "model": {"class_path": model, "init_args": {"learning_rate": rate, **arguments}},
        "data.prompts_per_iteration": prompts,
        "data.rows_per_microbatch": rows if task == KEY else 16,
        **_task(task, rare),
    }
    return Arm(f"{task} {name}", config, f"{task} RLOO", task=task)


def _weak(task: str) -> Stage:
    """A reward model from few responses, a part of whose labels are wrong; for each seed its own."""
    policy: Config = {"hidden_size": POLICY["hidden_size"], "layers": POLICY["layers"], "heads": POLICY["heads"]}
    own = {
        KEY: {
            "--model.policy": "lit_rl.policy.TokenTransformer",
            **{f"--model.policy.{key}": value for key, value in (policy | _sizes()).items()},
            **{f"--data.task.{key}": value for key, value in (_sizes() | {"position": POSITION}).items()},
        },
        WORDS: {"--data.task.steps": 2, "--max_new_tokens": 64},
    }[task]
    settings = {
        "--output": "{folder}",
        "--data.task": task,
        **own,
        "--prompts": {KEY: 8, WORDS: 32}[task],
        "--eval_prompts": 32,
        "--label_noise": 0.3,
        "--seed_everything": "{seed}",
    }
    args = [str(part) for pair in settings.items() for part in pair]
    return Stage(f"weak_reward-{task}", ("fit-reward", *args), ("--epochs", "1"))


def _arms(task: str) -> tuple[Arm, ...]:
    many, rate = (8, 3.0) if task == KEY else (16, 9e-3)  # prompts with four responses each; far above the others' rate
    stride = cuts("Stride", every=2 if task == KEY else 24)
    hard = task == KEY  # else one update solves it, at whatever rate
    weak = _weak(task)
    hacked: Config = {"reward.model": f"{{{weak.name}}}"}
    forked: dict[str, Any] = {"model": "TRePO", "rare": True, "cuts": stride}
    ppo: dict[str, Any] = {"lambda_actor": 0.95}
    rloo = _arm(task, "RLOO", "RLOO", many, samples=4)
    return (
        rloo,
        _arm(task, "GRPO", "GRPO", many, hard, samples=4),
        _arm(task, "PPO", "PPO", 4 * many, **ppo),
        _arm(task, TWINS[FEW][2], prompts=many // 2, samples=4, continuations=4, **forked),
        rloo.but(
            f"{task} {HACKED}, KL", {**hacked, "model.kl_coefficient": 0.1 if task == KEY else 0.05}, stages=(weak,)
        ),
        _arm(task, CRITIC, "ablations.studies.faults.ShiftedCritic", 4 * many, offset=-3.0, **ppo),
        _arm(task, FEW, prompts=many // 2, samples=2, continuations=1, **forked),
        _arm(task, BASELINE, "ablations.studies.faults.ConstantBaseline", many, samples=4, baseline=-2.0),
        rloo.but(f"{task} {HACKED}", hacked, stages=(weak,)),
        _arm(task, FAST, "GRPO", many, hard, samples=4, learning_rate=rate),
    )


STUDY = Study(
    name="failure_signatures",
    question="When a run draws one of the four warnings, how often is it right, and how long before the harm?",
    source="The failure signatures of 2506.02553. Five faults are provoked on purpose, each beside a healthy twin.",
    baseline=f"{KEY} RLOO",
    primary_metric=f"{FLAGGED}kl_collapse",
    comparisons=tuple(
        Comparison.between(
            arm,
            twin,
            "above",
            BECAUSE[arm],
            f"{warning}: {name}",
            f"{FLAGGED}{warning}",
            TASKS,
            matters=20.0,
        )
        for arm, (name, warning, twin) in TWINS.items()
    ),
    controls=tuple(
        Comparison.between(
            arm,
            twin,
            "below",
            "the fault does harm",
            name,
            "test/accuracy_sampled",
            TASKS,
        )
        for arm, (name, _, twin) in TWINS.items()
    ),
    arms=tuple(arm for task in TASKS for arm in _arms(task)),
    faults=tuple(
        Fault(name, warning, f"{task} {arm}", f"{task} {twin}")
        for arm, (name, warning, twin) in TWINS.items()
        for task in TASKS
    ),
    calibration=tuple(range(100, 110)),
    base={
        **QUIET,
        "diagnostics.every_n_iterations": 1,
        "diagnostics.probe_every_n_iterations": 5,
        "diagnostics.probe_prompts": 8,
        "diagnostics.probe_samples": 8,
        "data.eval_prompts": 256,
        "trainer.max_epochs": 20,
        "trainer.check_val_every_n_epoch": 3,
        "trainer.accelerator": "cpu",
    },
    seeds=tuple(range(20)),
    hours=2,
    reading=Reading(
        "With limits set on other seeds critic_initialisation, insufficient_sampling and poor_baseline are each drawn "
        "by all runs with their fault, 3, 9 and 3 iterations before the harm, and by 2%, 2% and 12% of their twins. "
        "kl_collapse is drawn by 65% and 6%, in time by 28% of harmed runs. By rules of thumb every healthy PPO run "
        "draws critic_initialisation: its critic, at 0, is wrong, too.",
        ("equal", "above", "above", "above", "above"),
    ),
    smoke={**SMOKE, "diagnostics.probe_every_n_iterations": 2, "trainer.max_epochs": 3},
    notes=(
        f"{SMALL_MODELS} The faults are crass, one at a time.",
        "Faults: a critic that starts at -3; one continuation a cut and two samples, where one response in 16 earns or "
        "problems have up to four steps; a baseline of -2; a reward model of 32 (KeyToken) or 128 responses, 30% of "
        "labels wrong, without KL penalty (twin: 0.1 or 0.05); 300 (KeyToken, one in 16 earns) or 30 times the rate.",
        "Harm is dated to three iterations. Without probes a constant baseline draws no warning.",
        "Limits are set on seeds 100 to 109, which are in no other number. A first rule fitted length_ratio and "
        "clip_fraction to what suits these runs alone: now no limit gets stricter.",
        "All false alarms of kl_collapse are of GSM8KStyle RLOO with weak reward model and KL penalty, of which 7 of "
        "20 runs fell. On GSM8KStyle a critic that started wrong delays: 3 of 20 runs end harmed.",
    ),
)
