"""The command line of the benchmarks; what they measure is no test's concern."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.measure import Line, rate
from benchmarks.report_text import text

COMMITTED = Path(__file__).parents[1] / "results/performance"


def test_a_mistake_is_one_line(capsys):
    assert main(["speed"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_lines_come_as_a_list_of_objects(capsys, monkeypatch):
    line = rate("ours beside a peer", 2.0, lambda: 6.0, lambda: 2.0, 3)
    monkeypatch.setattr("benchmarks.__main__.ALL", {"one": lambda: [line]})
    assert main(["--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["name"], found["ours"], found["peer"], found["ratio"]) == ("ours beside a peer", 6.0, 2.0, 3.0)


@pytest.mark.parametrize(("ratio", "missed"), [(1.0, True), (2.0, False)])
def test_a_report_says_what_was_missed(ratio, missed):
    tables = {
        "phases": [],
        "operators": [],
        "scaling": [{"rows": 1}],
        "kappa": [{"model": "a"}],
    }
    report = text([Line("a: b", 1.0, 1.0, "s", ratio, 2.0)], tables, "a machine")
    assert ("missed" in report) == missed and "a machine" in report


def test_the_committed_report_comes_from_the_files_beside_it(tmp_path):
    folder = tmp_path / "performance"
    shutil.copytree(COMMITTED, folder)
    (folder / "report.md").unlink()
    assert main(["--rewrite", str(folder)]) == 0
    assert (folder / "report.md").read_text() == (COMMITTED / "report.md").read_text()


def test_a_report_without_its_files_is_one_line(tmp_path, capsys):
    assert main(["--rewrite", str(tmp_path)]) == 2
    assert "machine.json" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_benchmark_by_name_changes_its_own_lines_alone(tmp_path, monkeypatch):
    folder = tmp_path / "performance"
    shutil.copytree(COMMITTED, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    lines = [Line(**each) for each in json.loads(before["lines.json"])]
    again = Line(lines[1].name, 5.0, 10.0, lines[1].unit, 2.0, 0.0)
    other = Line("ours: a peer of its own", 1.0, 3.0, "s", 3.0, 0.0)
    monkeypatch.setattr("benchmarks.__main__.ALL", {"one": lambda: [other, again]})
    monkeypatch.setattr("benchmarks.__main__.NEEDS", {})
    assert main(["one", "--report", str(folder)]) == 0
    found = [Line(**each) for each in json.loads((folder / "lines.json").read_text())]
    assert found == [lines[0], again, *lines[2:], other]
    assert "a peer of its own" in (folder / "report.md").read_text()
    changed = {path.name for path in folder.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {"lines.json", "report.md"}


def test_lines_without_a_report_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.__main__.ALL", {"one": lambda: pytest.fail("measured in vain")})
    assert main(["one", "--report", str(tmp_path)]) == 2
    assert "machine.json" in capsys.readouterr().err and not list(tmp_path.iterdir())
