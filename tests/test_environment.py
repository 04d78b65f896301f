"""The two ways to install are one."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_conda_environment_installs_what_make_installs():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    install = (ROOT / "Makefile").read_text().partition("$(READY): ")[2]
    extra = re.search(r"pip install .*-e '(\.\[\w+\])'", install)[1]
    assert pip == ["-c constraints.txt", f"-e {extra}"]
    version = next(d for d in conda if d.startswith("python=")).split("=")[1]
    least = PROJECT["requires-python"].removeprefix(">=")
    assert [int(x) for x in version.split(".")] >= [int(x) for x in least.split(".")]


def test_every_dependency_is_pinned_within_its_range():
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().lower().splitlines() if "==" in line
    )
    wanted = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    for requirement in (w for w in wanted if not w.startswith("lit-rl")):
        name, least = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", requirement).groups()
        key = lambda version: [int(x) for x in version.split(".")]
        assert key(pins[name]) >= key(least), requirement
