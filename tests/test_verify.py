"""``python -m lit_rl verify``: the certificate holds, is told in JSON and Markdown, and judges one's own estimator."""

import io
import json
import re
import sys
from contextlib import redirect_stdout

import pytest

from lit_rl.commands.cli import main
from lit_rl.commands.verify import verify
from lit_rl.exact import certificate, claims, report_text
from lit_rl.exact.report import FIRST
from lit_rl.exact.small_tasks import GATE, PAIRS
from lit_rl.exact.theorem import Line

KEYS = {
    *("estimator", "task", "relative_bias", "cosine", "trace_cov", "relative_variance", "expected"),
    "distance_to_expected",
}

OWN = """
from lit_rl.algorithms import RLOO

class Halved(RLOO):
    def __init__(self, factor: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def advantages(self, rollouts):
        return self.factor * super().advantages(rollouts)

class DividedByZero(RLOO):
    def advantages(self, rollouts):
        return super().advantages(rollouts) / 0

class PerLength(RLOO):
    def advantages(self, rollouts):
        return super().advantages(rollouts) * (rollouts.mask.sum(1) / rollouts.lengths)[:, None]

class OneARow(RLOO):
    def advantages(self, rollouts):
        return self.returns(rollouts)

class Nameless(RLOO):
    def loss(self, minibatch, logprobs):
        return {"mine": super().loss(minibatch, logprobs)["policy"]}

class NotOne:
    pass

class Closed(RLOO):
    def __init__(self):
        super().__init__()
"""


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Exit code, JSON and the report of the whole certificate."""
    folder = tmp_path_factory.mktemp("certificate")
    with redirect_stdout(io.StringIO()) as out:
        code = verify(["--json", "--report", str(folder)])
    return code, json.loads(out.getvalue()), (folder / "report.md").read_text()


def test_everything_holds(everything):
    code, rows, _ = everything
    assert code == 0 and all(row["holds"] for row in rows)
    assert all(row.keys() >= KEYS for row in rows)
    exact = [row for row in rows if row["standard_error"] is None]
    assert len(rows) - len(exact) == 2
    assert all(row["distance_to_expected"] < 1e-9 for row in exact if row["expected"] != "no closed form")
    assert all(row["relative_bias"] < 1e-9 for row in exact if row["expected"] == "unbiased")
    assert all(row["distance_to_expected"] is None for row in rows if row["expected"] == "no closed form")
    assert all(row["relative_bias"] > 1e-3 for row in exact if row["expected"] != "unbiased")


def test_every_estimator_and_every_fill_is_there(everything):
    named = " ".join(row["estimator"] for row in everything[1])
    for name in ("REINFORCE", "RLOO", "ReMax", "GRPO with std", "GRPO without std", "Dr.GRPO", "reuse"):
        assert name in named
    for fill in ("segment_td", "hold_mc", "mix", "all_positions", "masked_advantage"):
        assert f"TRePO {fill}" in named
    for fill in ("linear_value_mc", "linear_value_td", "linear_advantage"):
        assert f"TRePO {fill}" in named
    for rule in ("Bernoulli", "entropy", "boundary", "relative", "turns"):
        assert f", {rule}" in named


def test_the_report_tells_what_interpolation_does(everything):
    _, rows, report = everything
    assert report.count("\n| ") > len(rows)
    lines = dict(re.findall(r"^\| `(.+)` \| (.+) \|$", report, re.MULTILINE))
    assert lines["segment_td"] == lines["hold_mc"] == "1.000 | 1.000 | 1.000 | 1.000"
    assert lines["linear_advantage"] == "0.000 | 0.000 | 0.000 | 0.000"
    assert "trajectory policy gradient theorem" in report and "fails" not in report


def test_the_report_says_what_each_expectation_means(everything):
    _, rows, report = everything
    assert report_text.MEANINGS.keys() == {row["expected"] for row in rows}
    first = report[: report.index("## ")]
    assert first.count("\n| ") == 1 + len(FIRST)


def few(monkeypatch, *chosen):
    monkeypatch.setattr("lit_rl.commands.verify.claims", lambda: list(chosen))
    monkeypatch.setattr("lit_rl.commands.verify.prove", list)


def run(monkeypatch, capfd, *args):
    monkeypatch.setattr(sys, "argv", ["lit_rl", "verify", *args])
    try:
        code = main()
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    return (code, *capfd.readouterr())


def test_a_claim_that_does_not_hold_is_exit_code_one(monkeypatch, capfd):
    wrong = certificate.Claim("linear", claims.trepo(fill="linear_value_mc"), GATE)
    few(monkeypatch, wrong, certificate.Claim("fine", claims.trepo(), GATE))
    code, out, err = run(monkeypatch, capfd)
    assert code == 1 and re.search(r"linear .* FAILS", out) and re.search(r"fine .* ok", out)
    assert "1 hold, 1 fail" in out
    code, out, err = run(monkeypatch, capfd, "--json")
    assert code == 1 and [row["holds"] for row in json.loads(out)] == [False, True] and "1 hold, 1 fail" in err


def test_a_theorem_that_does_not_hold_is_exit_code_one(monkeypatch, capfd):
    few(monkeypatch)
    monkeypatch.setattr("lit_rl.commands.verify.prove", lambda: [Line("x", "1 = 2", "V=2", False)])
    code, out, _ = run(monkeypatch, capfd)
    assert code == 1 and "FAILS" in out and "1 = 2" in out


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_package.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_ones_own_estimator_is_judged(own, monkeypatch, capfd):
    model = ["--model", "my_package.Halved", "--model.samples", "2"]
    code, out, _ = run(monkeypatch, capfd, "--json", *model)
    rows = json.loads(out)
    assert code == 1 and {row["estimator"] for row in rows} == {"Halved"} and len(rows) == 3
    assert all(row["relative_bias"] == pytest.approx(0.5) and row["cosine"] == pytest.approx(1) for row in rows)
    assert run(monkeypatch, capfd, *model, "--model.factor", "1")[0] == 0
    code, out, _ = run(monkeypatch, capfd, "--json", "--model", "my_package.PerLength", "--model.samples", "2")
    assert code == 1 and [row["holds"] for row in json.loads(out)] == [True, True, False]  # an environment has a length
    code, out, _ = run(monkeypatch, capfd, "--model", "my_package.DividedByZero", "--model.samples", "2")
    assert code == 1 and "The estimate is not a number" in out and "only rescaled" not in out


@pytest.mark.parametrize(
    "settings, judged, said",
    [
        (
            ["--model.samples", "2", "--model.cuts", "Turns"],
            ["TwoTurns"],
            "Additive V=3 T=3 EOS, where model.cuts makes no",
        ),
        ([], ["Pairwise", "Additive"], "TwoTurns V=2 T=4, which has too many outcomes"),
    ],
)
def test_tasks_that_judge_nothing_are_named(monkeypatch, capfd, settings, judged, said):
    code, out, err = run(monkeypatch, capfd, "--json", "--model", "TRePO", *settings)
    assert code == 0 and [row["task"].split()[0] for row in json.loads(out)] == judged
    assert f"left out: {said}" in err and ("; set --model.samples 2" in err) == (not settings)


@pytest.mark.parametrize(
    "args, message",
    [
        (["--model", "RLO"], "model: no class 'RLO' (did you mean RLOO?)"),
        (["--model", "TRePO", "--model.cuts", "Strid"], "model.cuts: no class 'Strid' (did you mean Stride?)"),
        (["--model", "TRePO", "--model.fill", "cubic"], "model.fill"),
        (["--model", "Supervised"], "model: it trains on demonstrations"),
        (["--model", "my_package.Halvd"], "model: my_package has no class 'Halvd' (did you mean Halved?); it has "),
        (["--model", "my_pakage.Halved"], "model: no module 'my_pakage'; a class of yours stands in a file of the"),
        (["--model", "my_package.Closed"], "model: my_package.Closed takes no 'policy'"),
        (["--model", "my_package.NotOne"], "model: Import path does not correspond to a subclass of Algorithm"),
        (["--model", "my_package.OneARow"], "OneARow.advantages returns the shape"),
        (["--model", "my_package.Nameless"], "model: the loss of Nameless has no term 'policy'"),
        (["--model.samples", "2"], "model"),
        (["--model", "RLOO", "--model.policy.path", "x"], "model.policy: verify uses its own policy"),
        (["--model", "TRePO", "--model.cuts", "Stride"], "model.cuts.every is 8"),
        (
            ["--model", "TRePO", "--model.cuts", "Turns"],
            "enumerate); set --model.samples 2",
        ),
        (["--model", "TRePO", "--model.cuts.every", "2"], "model.cuts: name a class; choose one of Stride"),
        (["--report", "/dev/null/x"], "--report: cannot make the folder /dev/null/x"),
        (["--model", "RLOO", "--report", "here"], "--report"),
        (["--reprot", "here"], "reprot"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(own, monkeypatch, capfd, tmp_path, args, message):
    code, out, err = run(monkeypatch, capfd, *args)
    line = err.strip().splitlines()[-1]
    assert code == 2 and line.startswith("lit_rl: ") and message in line and not (tmp_path / "here").exists()


def test_the_policy_of_a_certificate_is_the_same_whenever_it_is_drawn():
    first, second = certificate.random_policy(PAIRS), certificate.random_policy(PAIRS)
    assert (first.model.table == second.model.table).all() and first.model.table.std() > 0.5
