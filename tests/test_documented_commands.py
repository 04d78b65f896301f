"""Every command that README and docs show is one that the command lines take. Nothing is trained."""

import re
import shlex
from pathlib import Path

import pytest

from ablations.__main__ import _parser
from ablations.studies import find

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md") if (ROOT / name).exists()]
PAGES += sorted(ROOT.glob("docs/*.md"))
FIT = ("fit", "validate", "test", "estimate")


def blocks(page: Path) -> list[str]:
    """The code of a page: what is indented or fenced, and what stands between backticks."""
    text = page.read_text()
    fenced = re.findall(r"^```\w*.*?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    indented = re.findall(r"(?:^ {4,}\S.*\n)+", text, re.MULTILINE)
    return [*fenced, *indented, *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)]


def commands(program: str) -> list[tuple[str, ...]]:
    """The arguments of each call of a program, variables filled in, without comments, pipes and duplicates."""
    found: dict[tuple[str, ...], None] = {}
    for page in PAGES:
        code = "\n".join(blocks(page)).replace("\\\n", " ")
        variables = {name: " ".join(value.split()) for name, value in re.findall(r'(\w+)="([^"]+)"', code)}
        for line in re.findall(rf"{re.escape(program)} ([^\n]*)", code):
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            words = shlex.split(line, comments=True)
            end = next((i for i, word in enumerate(words) if word in (">", "|", "&&", ";")), len(words))
            if words[:end] and "..." not in words[:end]:
                found[tuple(words[:end])] = None
    return list(found)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """What the commands name: the pages' own modules, and checkpoints that nothing looks into."""
    monkeypatch.syspath_prepend(tmp_path)
    for page in PAGES:
        for block in re.findall(r"^```python\n(# (\w+)\.py\n.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
            Path(f"{block[1]}.py").write_text(block[0])
    Path("config.yaml").write_text("{}\n")
    Path("configs").symlink_to(ROOT / "configs")
    for checkpoint in {word for words in commands("python -m lit_rl") for word in words if word.endswith(".ckpt")}:
        Path(checkpoint).parent.mkdir(exist_ok=True)
        Path(checkpoint).touch()


def test_commands_that_train_parse(files, lit_rl):
    calls = [words for words in commands("python -m lit_rl") if words[0] in FIT]
    assert len(calls) > 10
    for words in calls:
        shows = any(word in ("--help", "--print_config") or word.endswith(".help") for word in words)
        code, _, err = lit_rl(*words, *(() if shows else ("--print_config",)))
        assert code == 0, f"{' '.join(words)}: {err}"


@pytest.mark.parametrize("command", ["fit-reward", "export", "verify"])
def test_the_other_commands_have_the_options_that_are_shown(command, lit_rl):
    known = set(re.findall(r"--[\w.-]+", lit_rl(command, "--help")[1]))
    calls = [words for words in commands("python -m lit_rl") if words[0] == command]
    assert calls
    for words in calls:
        given = {re.sub(r"^--model\..*", "--model", word) for word in words if word.startswith("--")}
        assert given <= known | {"--help"}, words


def test_studies_that_are_named_are_there(files):
    calls = commands("python -m ablations")
    assert calls
    for words in calls:
        options = _parser().parse_args(words)
        if getattr(options, "study", "certificate") not in ("certificate", "STUDY"):
            find(options.study, options.scale)


def test_targets_that_are_named_are_there():
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for block in blocks(page) for target in re.findall(r"^make ([a-z0-9]+)", block)}
    assert named and named <= targets, named - targets
