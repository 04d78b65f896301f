"""The documentation is built without a warning, and no link into the repository is dead."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lit_rl import algorithms

ROOT = Path(__file__).resolve().parents[1]
ALGORITHMS = (ROOT / "docs/algorithms.md").read_text()
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("examples/*.md"),
    *ROOT.glob("configs/*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("results/**/*.md"),
    *ROOT.glob("data/*/README.md"),
]


def dead_links(page: Path) -> list[str]:
    """The links of a Markdown file to files that are not there."""
    text = re.sub(r"^(```+).*?^\1`*$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", text) + re.findall(r"(?:src|href)=\"([^\"#]+)", text)
    return [link for link in links if "://" not in link and not (page.parent / link).exists()]


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('[a](page.md) [b](https://example.org) ![c](none.png) [d](page.md#d) <img src="gone.svg">\n')
    assert dead_links(page) == ["none.png", "gone.svg"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page):
    assert not dead_links(page)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_needs_no_network(site):
    pages = [path.read_text() for path in site.rglob("*.html")]
    assert pages and not any(re.search(r'<(script|link|img)\b[^>]*(src|href)="?(https?:)?//', page) for page in pages)


def test_formulas_are_shown(site):
    """Each has become MathML, of commands that are known."""
    for source in ROOT.glob("docs/*.md"):
        page = (site / f"{source.stem}.html").read_text()
        assert "arithmatex" not in page and not re.search(r"<m[io]>\s*\\", page), source.name


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {str(path.relative_to(ROOT / "docs")) for path in ROOT.glob("docs/**/*.md")}
    assert pages == {page for page in listed if not page.startswith("repository/")}


def test_what_is_quoted_from_the_certificate_stands_there():
    rows = json.loads((ROOT / "results/certificate/certificate.json").read_text())
    known = {(row["estimator"], row["task"]): row for row in rows}
    quoted = re.findall(
        r"^\| (.+) \| (\w+ V=.+?) \| (.+?) \| (.+?) \| .+? \| (.+?) \| (.+?) \|$", ALGORITHMS, re.MULTILINE
    )
    assert {name for name in algorithms.__all__ if any(re.match(rf"{name}\b", row[0]) for row in quoted)} == {
        *algorithms.__all__
    } - {"Algorithm", "Supervised"}
    for estimator, task, expected, bias, variance, tokens in quoted:
        row = known[estimator, task]
        assert row["expected"] == expected
        assert float(bias) == pytest.approx(row["relative_bias"], abs=6e-4)
        assert float(tokens) == pytest.approx(row["tokens"], abs=0.06)
        assert variance == "-" or float(variance) == pytest.approx(row["relative_variance"], abs=6e-3)


def test_intervals_are_quoted_from_reports():
    reports = "".join(page.read_text() for page in ROOT.glob("results/*/report.md"))
    known = {(float(low), float(high)) for low, high in re.findall(r"\[[+x]?(-?[\d.]+), [+x]?(-?[\d.]+)\]", reports)}
    quoted = re.findall(r"[(,] ?\n? *(-?\d+\.\d+) to (-?\d+\.\d+)", ALGORITHMS)
    pairs = {(float(low), float(high)) for low, high in quoted}
    assert len(pairs) > 10 and pairs <= known, pairs - known


def test_every_algorithm_has_a_section_with_its_paper_code_and_command():
    sections = dict(re.findall(r"^## (\w+)\n(.+?)(?=^## |\Z)", ALGORITHMS, re.DOTALL | re.MULTILINE))
    assert set(sections) == {*algorithms.__all__} - {"Algorithm"}
    for name, text in sections.items():
        assert f"python -m lit_rl fit --model {name} " in text and "**Code**" in text and "$$" in text, name
        assert "**Paper**" in text or name == "Supervised"


@pytest.mark.parametrize("package", ["algorithms", "callbacks", "data", "policy", "sampling", "tasks"])
def test_what_a_package_exports_is_in_the_reference(site, package):
    module = importlib.import_module(f"lit_rl.{package}")
    pages = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    shown = set(re.findall(r'id="lit_rl\.[\w.]+\.(\w+)"', pages))
    exported = {name for name in module.__all__ if callable(getattr(module, name))}
    assert exported - shown <= {"Progress", "Split", "Example"}  # names of types
