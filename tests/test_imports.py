"""Arrows of import run down only, from room to room."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"lit_rl.errors"},
    {"lit_rl.ranges"},
    {"lit_rl.rollouts", "lit_rl.functional", "lit_rl.tracking", "lit_rl.checkpoint_io"},
    {"lit_rl.tasks", "lit_rl.policy", "lit_rl.strategy"},
    {"lit_rl.sampling"},
    {"lit_rl.algorithms"},
    {"lit_rl.exact"},
    {"lit_rl.callbacks"},
    {"lit_rl.data", "lit_rl.estimate"},
    {"lit_rl.commands"},
    {"lit_rl.__main__"},
    {"ablations.config", "ablations.metric_names"},
    {"ablations.metric_units", "ablations.arms"},
    {"ablations.study"},
    {"ablations.arm_colours", "ablations.grid"},
    {"ablations.records", "ablations.studies"},
    {"ablations.analysis", "ablations.sweep", "ablations.exact"},
    {"ablations.report"},
    {"ablations.__main__"},
]


def place(module: str) -> tuple[int, str]:
    """The module's layer, and the package of the layer that it belongs to."""
    return next(
        (i, package)
        for i, layer in enumerate(LAYERS)
        for package in layer
        if module == package or module.startswith(package + ".")
    )


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            found |= (
                {f"{node.module}.{a.name}" for a in node.names}
                if node.module in ("lit_rl", "ablations")
                else {node.module}
            )
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob("lit_rl/**/*.py"), *ROOT.glob("ablations/**/*.py")]),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_nothing_imports_what_stands_above_it(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if module in ("lit_rl.__init__", "ablations.__init__"):
        return
    for name in imports(path):
        if name.split(".")[0] in ("lit_rl", "ablations"):
            (above, own), (below, other) = place(module), place(name)
            assert below < above or other == own, name


def test_functional_imports_torch_alone_and_tasks_no_lightning():
    allowed = {"torch", "lit_rl", *sys.stdlib_module_names}
    for path in ROOT.glob("lit_rl/functional/*.py"):
        assert {name.split(".")[0] for name in imports(path)} <= allowed
    for path in ROOT.glob("lit_rl/tasks/*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"lightning", "mlflow", "transformers"}
