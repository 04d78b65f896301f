"""Partial configurations of lit_rl's command line, written over each other."""

from collections.abc import Mapping
from typing import Any

from lit_rl.commands.options import same_class
from lit_rl.errors import UsageError

Config = dict[str, Any]
CLASSES = ("model", "model.policy", "model.cuts", "model.placement", "data.task", "data.sampler")


def nested(settings: Mapping[str, Any]) -> Config:
    """Settings by names as on the command line, such as ``model.samples``, as a configuration file nests them.

    The name of a class stands for itself (``{"data.task": "KeyToken", "data.task.length": 8}``). What is nested already
    stays as it is.

    Raises:
        UsageError: as from :func:`merge`.
    """
    config: Config = {}
    for name, value in settings.items():
        if name in CLASSES and isinstance(value, str):
            value = {"class_path": value}
        *folders, last = name.split(".")
        found: Config = {last: value}
        for depth in range(len(folders), 0, -1):
            key = ".".join(folders[:depth])
            found = {folders[depth - 1]: {"init_args": found} if key in CLASSES else found}
        config = merge(config, found)
    return config


def merge(base: Config, changes: Config) -> Config:
    """``base`` with ``changes`` written over it, dictionaries within dictionaries; neither is modified.

    Raises:
        UsageError: a class is written over another one, whose settings it would inherit.
    """
    merged = dict(base)
    for key, value in changes.items():
        mergeable = isinstance(value, dict) and isinstance(merged.get(key), dict)
        if mergeable and merged[key].get("init_args"):
            own, other = merged[key].get("class_path"), value.get("class_path")
            if own and other and not same_class(own, other):
                raise UsageError(f"{key}: {other} would take over what is set for {own}; set that arm by arm")
        merged[key] = merge(merged[key], value) if mergeable else value
    return merged


def filled(config: Any, folders: dict[str, str]) -> Any:
    """The settings with each ``{name}`` of a stage replaced by its folder."""
    if isinstance(config, dict):
        return {key: filled(value, folders) for key, value in config.items()}
    if isinstance(config, str):
        for name, folder in folders.items():
            config = config.replace(f"{{{name}}}", folder)
    return config
