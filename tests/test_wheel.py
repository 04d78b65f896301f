"""A wheel has all that a run needs."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lit_rl.policy.causal import EMBEDDED

ROOT = Path(__file__).parents[1]
PACKAGES = ("lit_rl", "ablations")
RUN = "import sys, lit_rl; print(lit_rl.__file__); from lit_rl.__main__ import main; sys.exit(main())"
COMMIT = "import ablations.records.experiment as it; print(it.__file__, it.commit(), sep='\\n')"
TINY = ["--data.prompts_per_iteration=2", "--data.rows_per_microbatch=4", "--data.eval_prompts=4"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, for building leaves folders behind; without the network."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (*PACKAGES, "data"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "smollm2"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*pip, "--wheel-dir", str(built), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [file] = built.glob("*.whl")
    return file


def test_it_has_the_code_and_the_embedded_policies_and_no_more(wheel):
    code = {str(file.relative_to(ROOT)): file for name in PACKAGES for file in (ROOT / name).rglob("*.py")}
    models = {
        f"lit_rl/embedded/{folder}/{file.name}": file
        for folder in EMBEDDED.values()
        for file in (ROOT / "data" / folder).iterdir()
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    assert found == {name: file.read_bytes() for name, file in {**code, **models}.items()}
    assert sum(name.endswith("/model.safetensors") for name in found) == len(EMBEDDED)


def test_it_trains_in_an_empty_folder_and_knows_its_version(wheel, tmp_path, monkeypatch):
    """Also where an environment lies in the repository of something else, whose commit is not the code's."""
    installed, empty = tmp_path / "environment", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "another"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setenv("PYTHONPATH", str(installed))

    def python(*args: str) -> list[str]:
        done = subprocess.run([sys.executable, *args], cwd=empty, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    where, version = python("-c", COMMIT)
    assert Path(where).is_relative_to(installed) and version == f"lit-rl {wheel.name.split('-')[1]}"
    options = [*TINY, "--model.max_new_tokens=8", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    where, *_ = python("-c", RUN, "fit", *options)
    assert Path(where).is_relative_to(installed)
    assert [each.name for each in empty.iterdir()] == ["mlruns"] and list(empty.glob("mlruns/**/last.ckpt"))
