"""Partial configurations of lit_rl's command line, written over each other."""

from typing import Any

from lit_rl.commands.options import same_class
from lit_rl.errors import UsageError

Config = dict[str, Any]


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
