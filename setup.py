"""Puts the embedded policies of ``data/`` into the wheel, as ``lit_rl/embedded``; all else is in ``pyproject.toml``."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["lit_rl*", "ablations*"]), "lit_rl.embedded"],
    package_dir={"lit_rl.embedded": "data"},
    package_data={"lit_rl.embedded": ["warmstart/*", "mid/*", "turns/*"]},
)
