"""The settings of a study's arms, looked at before anything of it runs: a mistake is told once, and nothing is made."""

import json
from collections.abc import Iterator
from typing import Any

from ablations.config import Config, merge
from ablations.grid import cell
from ablations.study import Study
from ablations.sweep.workers import aside, warm_up
from lit_rl.commands.early import checked
from lit_rl.errors import UsageError, usage_error


def complete(study: Study, smoke: bool) -> dict[str, Config]:
    """The settings of each arm, with all defaults.

    Raises:
        UsageError: those of an arm can't do.
    """
    first = [cell(study, arm, study.seeds[0], smoke) for arm in study.arms]
    for each in first:
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
            check_trainer(cli.trainer, cli.model.plan, data.prompts_per_iteration, data.rows_per_microbatch)
    except (Exception, SystemExit) as error:
        usage = usage_error(error)
        return " ".join(str(usage or f"{type(error).__name__}: {error}").split())
    return cli.config.as_dict()
