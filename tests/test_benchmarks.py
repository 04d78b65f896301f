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
