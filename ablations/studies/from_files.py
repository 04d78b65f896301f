"""A study from configuration files of ``python -m lit_rl fit``: each file is an arm, the first one the baseline."""

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ablations.config import Config
from ablations.metric_names import MEMORY, OVER_SECONDS, OVER_TOKENS
from ablations.metric_units import matters_fault
from ablations.study import Arm, Comparison, Study
from lit_rl.errors import UsageError

MOST = 7  # files, whose six comparisons with the first one are adjusted together
FIT = ("seed_everything", "ckpt_path", "weights_only", "verbose", "config", "print_config")  # of a command, not an arm
METRICS = {  # that a comparison may be decided by, the default first
    "test/accuracy_sampled": "sampled test accuracy",
    "test/accuracy": "greedy test accuracy",
    "test/accuracy_flexible": "test accuracy by a lenient reading",
    f"{OVER_TOKENS}val/accuracy_sampled": "validation accuracy over the budget of tokens",
    f"{OVER_SECONDS}val/accuracy_sampled": "validation accuracy over the budget of seconds",
    MEMORY: "peak memory",
}
DEFAULT = next(iter(METRICS))


def compared(
    files: Sequence[str], name: str | None, metric: str, taken: Collection[str], matters: float | None = None
) -> Study:
    """The study that compares each file with the first one, on five seeds.

    The seed, logger and folder of checkpoints of a file are left out: a study sets its own.

    Args:
        name: of the study; None makes one of the files' names.
        metric: that decides, one of ``METRICS``.
        taken: names that are other studies'.
        matters: the smallest difference that would matter, in the metric's unit; None takes the unit's.

    Raises:
        UsageError: a file can't be read or can't be an arm, or there are too few or too many.
    """
    if not 2 <= len(files) <= MOST:
        raise UsageError(f"compare takes two to {MOST} files, the first of which is the baseline; given: {len(files)}")
    twice = [file for i, file in enumerate(files) if file in files[:i]]
    if twice:
        raise UsageError(f"{twice[0]} is given twice; compare takes different files")
    stems = [Path(file).stem for file in files]
    names = stems if len(set(stems)) == len(stems) else [str(Path(file).with_suffix("")) for file in files]
    if name is not None and (not re.fullmatch(r"[\w.-]+", name) or name in taken):
        why = "is a study of the package" if name in taken else "is no name of a folder"
        raise UsageError(f"--name {name} {why}; results and runs go by it, take letters, digits, - and _")
    if matters is not None and (wrong := matters_fault(matters, metric)):
        raise UsageError(f"--matters: {wrong}")
    baseline, *others = names
    return Study(
        name=name or re.sub(r"[^\w.-]+", "-", "-".join(["compare", *names]))[:100],
        question=f"Does {_either(others)} differ from {baseline} in {METRICS[metric]}?",
        source=f"Settings of {', '.join(files)}.",
        arms=tuple(Arm(each, _settings(file)) for each, file in zip(names, files, strict=True)),
        primary_metric=metric,
        comparisons=tuple(Comparison.between(each, baseline, matters=matters) for each in others),
        seeds=tuple(range(5)),
        notes=("The files decide what the arms have in common: tokens, responses or seconds may differ between them.",),
        command=" ".join(
            [
                "compare",
                *map(shlex.quote, files),
                *([f"--name {name}"] if name else []),
                *([f"--metric {metric}"] if metric != DEFAULT else []),
                *([f"--matters {matters:g}"] if matters is not None else []),
            ]
        ),
    )


def check_same_problems(study: Study, complete: Mapping[str, Config]) -> None:
    """That all arms are tested on the same problems.

    Args:
        complete: the settings of each arm, with defaults.

    Raises:
        UsageError: two differ.
    """
    baseline = study.arm_names[0]
    first = _problems(complete[baseline])
    for name in study.arm_names[1:]:
        for key, value in _problems(complete[name]).items():
            if value != first.get(key):
                raise UsageError(
                    f"{key} is {first.get(key)} in {baseline} and {value} in {name}; accuracies compare on the same "
                    "problems, set both to the same"
                )


def _problems(config: Config) -> dict[str, Any]:
    data = config["data"]
    task: dict[str, Any] = data.get("task") or {}
    own = {f"data.task.{key}": value for key, value in (task.get("init_args") or {}).items()}
    return {"data.task": task.get("class_path"), **own, "data.eval_prompts": data["eval_prompts"]}


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _settings(file: str) -> Config:
    try:
        config = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}); give files of settings of lit_rl fit") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{file} is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(config, dict) or not config:
        raise UsageError(f"{file} holds no settings by name; `python -m lit_rl fit --print_config` shows such a file")
    if config.get("ckpt_path"):
        raise UsageError(
            f"{file}: ckpt_path is {config['ckpt_path']}, but every seed starts anew; leave it out, or start from its "
            "weights with model.start"
        )
    kept = {key: value for key, value in config.items() if key not in FIT}
    for group, names in {"trainer": ("logger", "enable_progress_bar"), "checkpoint": ("dirpath",)}.items():
        if isinstance(kept.get(group), dict):
            kept[group] = {key: value for key, value in kept[group].items() if key not in names}
    return kept
