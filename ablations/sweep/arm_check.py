"""The settings of a study's arms, looked at before anything of it runs: a mistake is told once, and nothing is made."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ablations.config import Config, merge
from ablations.grid import cell
from ablations.records.study_results import NAMES, known
from ablations.records.trials import with_choice
from ablations.study import Arm, Choice, Study
from ablations.sweep.workers import aside, warm_up
from lit_rl.commands.early import checked
from lit_rl.errors import UsageError, usage_error


def complete(study: Study, smoke: bool) -> dict[str, Config]:
    """The settings of each arm, with all defaults; of an arm with allocations, those with each of them.

    Raises:
        UsageError: those of an arm can't do, two arms have the same, or the study names a metric that no cell has.
    """
    check_metrics(study)
    arms = list(_to_check(study))
    first = [cell(study, arm, study.seeds[0], smoke) for arm in arms]
    seen: dict[tuple[str, bool], str] = {}
    for arm, each in zip(arms, first, strict=True):
        other = seen.setdefault((each.hash, arm.tuned_as is None), arm.name)
        if other != arm.name and not smoke:  # whose sizes may be all that differs
            raise UsageError(f"{study.name}: {other} and {arm.name} have the same settings; leave one out")
        try:
            checked(["fit", *_options(each.config)])  # what is told at once, with what may have been meant
        except UsageError as error:
            raise UsageError(f"{study.name}, arm {each.arm}: {error}") from None
    warm_up()
    found = aside(_read, [(each.config, not each.preparations) for each in first])
    for each, settings in zip(first, found, strict=True):
        if isinstance(settings, str):
            raise UsageError(f"{study.name}, arm {each.arm}: {settings}")
    return {each.arm: settings for each, settings in zip(first, found, strict=True)}


def check_metrics(study: Study) -> None:
    """Raises UsageError where the study names a metric that no cell has."""
    pairs = (*study.comparisons, *study.controls, *study.exploratory)
    named = {"primary_metric": study.primary_metric, "the metric of its tuning": study.deciding_metric}
    named |= {f"the metric of {pair}": study.metric_of(pair) for pair in pairs}
    for what, metric in named.items():
        if not known(metric):
            near = difflib.get_close_matches(metric, NAMES, 1, cutoff=0.0)
            raise UsageError(f"{study.name}: {what} is {metric}, which no run has (did you mean {near[0]}?)")


def _to_check(study: Study) -> Iterator[Arm]:
    """The arms; one that takes what trials choose with each of its allocations, at the first learning rate."""
    for arm in study.arms:
        if study.tuning is None or arm.tuned_as is None:
            yield arm
            continue
        for name in arm.allocations or ("",):
            tried = with_choice(arm, Choice(name, study.tuning.rates_of(arm)[0]))
            yield replace(tried, name=f"{arm.name}, {name}" if name else arm.name)


def _options(config: Config, key: str = "") -> Iterator[str]:
    """The settings as options of the command line."""
    for name, value in config.items():
        path = key if name == "init_args" else f"{key}.{name}".lstrip(".")
        if name == "class_path":
            yield f"--{key}={value}"
        elif isinstance(value, dict):
            yield from _options(value, path)
        else:
            yield f"--{path}={value if isinstance(value, str) else json.dumps(value)}"


def _read(configs: list[tuple[Config, bool]]) -> list[Config | str]:
    """In a worker, which has imported what is slow: of each, its settings, or what is wrong with them."""
    import torch

    from ablations.sweep.cell import be_silent

    be_silent()
    torch.set_num_threads(1)
    return [_settings(config, built) for config, built in configs]


def _settings(config: Config, built: bool) -> Any:
    """Args:
    built: whether policy, task and Trainer are built, too, which an arm with stages can't be yet.
    """
    from lit_rl.commands.cli import CLI
    from lit_rl.data.trainer_flags import check_trainer

    class Parsed(CLI):
        def instantiate_classes(self) -> None:
            if built:
                super().instantiate_classes()

    quiet = {"enable_progress_bar": False, "logger": False}
    try:
        cli = Parsed(args=merge(config, {"trainer": quiet}), run=False)
        if built:
            data = cli.datamodule
            sizes = data.prompts_per_iteration, data.rows_per_microbatch, data.tokens_per_microbatch
            check_trainer(cli.trainer, cli.model.plan, *sizes)
    except (Exception, SystemExit) as error:
        usage = usage_error(error)
        return " ".join(str(usage or f"{type(error).__name__}: {error}").split())
    return cli.config.as_dict()
