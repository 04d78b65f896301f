"""The command line of the benchmarks; what they measure is no test's concern."""

import json

import pytest

from benchmarks.__main__ import main
from benchmarks.measure import Line, rate
from benchmarks.report import text


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
    assert ("missed" in text([Line("a: b", 1.0, 1.0, "s", ratio, 2.0)], tables)) == missed
