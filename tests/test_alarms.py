"""What is said of warnings: on hand-made runs, against brute force, and with calibration kept apart."""

import csv
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ablations.analysis import alarms
from ablations.analysis.alarms import Rule, harmed
from ablations.analysis.statistics import auc_interval, rate_interval
from ablations.analysis.verdicts import verdicts
from ablations.metric_names import FLAGGED, SECONDS
from ablations.records import diagnostic_curves, study_results
from ablations.records.cell_result import CellResult
from ablations.records.study_results import StudyResults
from ablations.report import figures, page, study_report
from ablations.study import Arm, Comparison, Fault, Study
from lit_rl.errors import UsageError
from lit_rl.functional.warning_rules import LIMITS, SIGNS, badness

SEEDS, OTHERS, STEPS = range(8), range(100, 110), range(1, 13)
FAULT = Fault("made up", "kl_collapse", "x bad", "x good")


def curve(*values: float) -> dict[int, float]:
    return {3 * i: v for i, v in enumerate(values)}


@pytest.mark.parametrize(
    ("own", "twin", "at"),
    [
        ((0.4, 0.6, 0.8, 0.9), None, None),
        ((0.4, 0.6, 0.3, 0.3), None, 6),
        ((0.4, 0.6, 0.3, 0.6), None, None),  # it comes back
        ((0.4, 0.6, 0.6, 0.3), None, None),  # one validation alone
        ((0.4, 0.6, 0.3, 0.6, 0.2, 0.1), None, 12),  # the fall that lasts
        ((0.4, 0.4, 0.4, 0.4), (0.4, 0.45, 0.6, 0.8), 6),  # it never rises
        ((0.4, 0.4, 0.4, 0.8), (0.4, 0.45, 0.6, 0.8), None),
        ((0.4, 0.31, 0.32, 0.31), None, None),  # less than what counts
        ((0.1, 0.3, 0.5), (0.4, 0.5, 0.9), 0),
    ],
)
def test_harm_is_a_fall_that_lasts_or_staying_behind(own, twin, at):
    assert harmed(curve(*own), None if twin is None else curve(*twin)) == at


def cell(arm: str, seed: int, accuracy: dict[int, float], **diagnostics: dict[int, float]) -> CellResult:
    curves = {"val/accuracy_sampled": accuracy, SECONDS: {1: 1.0, 12: 2.5}}
    curves["tokens/generated"] = {step: 10.0 * step for step in (0, *accuracy)}
    last = accuracy[max(accuracy)]
    metrics = {"test/accuracy_sampled": last, "tokens/generated": 120.0, "time/fit": 3.0}
    return CellResult(arm, seed, 12, "commit", "hash", f"{arm}{seed}", metrics, curves, diagnostics)


def made(seed: int, flags_at: int | None = 4) -> list[CellResult]:
    """A run that collapses at 9 and loses variety before, and one that succeeds and loses it where it is right."""
    rng = np.random.default_rng(seed)
    noise = lambda low, high: {step: float(x) for step, x in zip(STEPS, rng.uniform(low, high, 12), strict=True)}
    lost = {step: 0.1 if flags_at and step >= flags_at else 0.9 for step in STEPS}
    flag = {step: float(bool(flags_at) and step >= flags_at) for step in STEPS}
    signs = {"flag/kl_collapse": flag, "entropy_ratio": lost, "distinct": lost, "length_ratio": noise(0.9, 1.1)}
    bad = cell("x bad", seed, curve(0.4, 0.5, 0.75, 0.1, 0.0), **signs, entropy_ratio_all=lost, distinct_all=lost)
    well = {"flag/kl_collapse": dict.fromkeys(STEPS, 0.0), "entropy_ratio": noise(0.5, 1), "distinct": noise(0.6, 1)}
    sunk = {step: 1 - step / 12 for step in STEPS}
    good = cell("x good", seed, curve(0.4, 0.6, 0.8, 0.9, 1.0), **well, entropy_ratio_all=sunk, distinct_all=sunk)
    return [bad, good]


@pytest.fixture
def results():
    arms = tuple(Arm(f"x {name}", {}, "x good", task="x") for name in ("good", "bad"))
    flagged, tested = f"{FLAGGED}kl_collapse", "test/accuracy_sampled"
    study = Study(
        "s",
        "?",
        "here",
        arms,
        primary_metric=flagged,
        comparisons=(Comparison.between("x bad", "x good", "above", metric=flagged, matters=20),),
        controls=(Comparison.between("x bad", "x good", "below", metric=tested),),
        faults=(FAULT,),
        seeds=tuple(SEEDS),
        calibration=tuple(OTHERS),
    )
    # as they are loaded: arm by arm
    own, others = (
        tuple(made(seed, flags_at=4 if seed else None)[which] for which in (1, 0) for seed in seeds)
        for seeds in (SEEDS, OTHERS)
    )
    return StudyResults(study, False, own, 0, calibration=others)


def test_detection_false_alarms_and_time(results):
    (rule,) = (each for each in alarms.rules() if each.warning == "kl_collapse")
    found = alarms.judged(rule, alarms.of(results))
    assert (found.pairs, found.harmed, found.twins_fallen) == (8, 8, 0)
    assert found.detected.mean == found.in_time.mean == 7 / 8 and found.false.mean == 0 and found.precision == 1
    assert found.leads == (5.0,) * 7 and found.lead.mean == 5
    (whole,) = (each for each in alarms.unconditional() if each.warning == "kl_collapse")
    assert alarms.judged(whole, alarms.of(results)).false.mean == 1  # success looked like failure
    assert alarms.judged(whole, alarms.of(results)).precision == pytest.approx(7 / 15)
    assert not alarms.judged(alarms.rules()[0], alarms.of(results)).pairs  # no critic


def test_a_rule_is_raised_where_enough_signs_are_beyond_at_once():
    limits = {name: alarms.RULES_OF_THUMB[name] for name in SIGNS["kl_collapse"]}
    rule = Rule("kl_collapse", "", limits)
    apart = {"entropy_ratio": {1: 0.1, 2: 0.9, 4: 0.1}, "distinct": {1: 0.9, 2: 0.1, 4: 0.1}}
    assert rule.first(cell("x bad", 0, curve(0, 0), **apart)) == 4
    del apart["distinct"][4]
    assert rule.first(cell("x bad", 0, curve(0, 0), **apart)) == np.inf
    assert Rule("", "", {"distinct": 0.5}).first(cell("x bad", 0, curve(0, 0), **apart)) == 2


def test_flagged_shares_are_compared_by_seed(results):
    (verdict,) = verdicts(results, results.study.comparisons)
    assert verdict.differences == (0.0, *[1.0] * 7) and verdict.matters == 20 and verdict.found == "above"
    assert verdicts(results, results.study.controls)[0].as_predicted


# ---- curves and limits ----------------------------------------------------------------------------------------------


def test_area_is_the_chance_of_being_above_and_that_under_the_curve():
    rng = np.random.default_rng(0)
    bad, good = rng.integers(0, 6, 15).tolist(), rng.integers(0, 4, 20).tolist()
    chance = np.mean([(x > y) + (x == y) / 2 for x, y in product(bad, good)])
    area = auc_interval(bad, good)
    assert area.mean == pytest.approx(chance) and area.low < chance < area.high
    x, y = zip(*alarms.roc(bad, good), strict=True)
    assert np.trapezoid(y, x) == pytest.approx(chance) and (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    apart = auc_interval([2.0] * 20, [1.0] * 20)
    assert apart.mean == apart.high == 1 and 0.8 < apart.low < 1
    mirrored = auc_interval(good, bad)
    assert (1 - mirrored.mean, 1 - mirrored.high) == pytest.approx((area.mean, area.low))


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_the_interval_of_an_area_covers_it(shift):
    rng, known = np.random.default_rng(1), stats.norm.cdf(shift / np.sqrt(2))
    found = [auc_interval(rng.normal(shift, 1, 20).tolist(), rng.normal(size=20).tolist()) for _ in range(400)]
    assert np.mean([each.low <= known <= each.high for each in found]) > 0.92


def test_the_interval_of_a_share_is_that_of_the_two_tails():
    for k, n in ((0, 20), (7, 20), (20, 20)):
        found = rate_interval(k, n)
        assert found.low == 0 if k == 0 else stats.binom.sf(k - 1, n, found.low) == pytest.approx(0.025)
        assert found.high == 1 if k == n else stats.binom.cdf(k, n, found.high) == pytest.approx(0.025)
    assert np.isnan(rate_interval(0, 0)).all()


def test_a_threshold_is_the_best_that_is_allowed():
    rng = np.random.default_rng(2)
    for _ in range(20):
        good, bad = rng.normal(size=40).tolist(), rng.normal(1.5, 1, 20).tolist()
        at = alarms.threshold(bad, good)
        detected, false = (np.mean(np.array(values) > at) for values in (bad, good))
        grid = np.linspace(-4, 6, 4001)[:, None]
        shares = (np.array(good) > grid).mean(1), (np.array(bad) > grid).mean(1)
        assert false <= 0.05 and detected == shares[1][shares[0] <= 0.05].max()
    assert alarms.threshold([3.0, 4.0], [1.0, 2.0]) == 2.5
    assert alarms.threshold([1.0], [1.0, 1.0]) == 1.0 and alarms.threshold([-np.inf], [1.0]) == 1.0


def test_limits_come_from_the_seeds_that_are_not_reported_alone(results):
    grown = {"x good": 4.0, "x bad": 9.0}  # healthy responses, too, are longer than the rule of thumb takes for well
    loud = [replace(c, diagnostics=c.diagnostics | {"length_ratio": {5: grown[c.arm]}}) for c in results.calibration]
    results = replace(results, calibration=tuple(loud))
    limits = alarms.calibrated(alarms.for_limits(results))
    assert limits.keys() == {"entropy_ratio", "distinct", "length_ratio"}  # what was measured of the fault's warning
    assert limits["length_ratio"] == 6.5  # in the middle
    for metric, limit in limits.items():
        thumb, healthy = alarms.RULES_OF_THUMB[metric], [c for c in loud if c.arm == "x good"]
        worst = [badness(metric, x) for c in healthy for x in c.diagnostics[metric].values()]
        flagged = [np.mean(np.array(worst) > badness(metric, at)) for at in (thumb, limit)]
        assert flagged[1] <= 0.05 and badness(metric, limit) >= badness(metric, thumb)
        assert (limit == thumb) == (flagged[0] <= 0.05)
    changed = replace(results, cells=results.cells[:4])
    assert alarms.calibrated(alarms.for_limits(changed)) == limits
    assert not {p.faulty.seed for p in alarms.of(results)} & {p.faulty.seed for p in alarms.for_limits(results)}
    with pytest.raises(ValueError, match="seed 100 is on the wrong side"):
        replace(results, cells=(*results.cells, results.calibration[0]))
    with pytest.raises(ValueError, match="seed 0 is on the wrong side"):
        replace(results, calibration=results.cells)
    with pytest.raises(ValueError, match="seed 3 is for calibration"):
        replace(results.study, calibration=(3, 100))
    with pytest.raises(ValueError, match="no faults"):
        replace(results.study, faults=())
    with pytest.raises(ValueError, match="compares with nobody"):
        replace(results.study, faults=(FAULT._replace(twin="nobody"),))


def test_default_limits_are_those_that_the_study_set():
    table = Path(__file__).parents[1] / "results" / "failure_signatures" / "tables" / "limits.csv"
    with table.open(newline="") as file:
        found = {row["metric"]: float(f"{float(row['limit set']):.2g}") for row in csv.DictReader(file)}
    assert found == LIMITS


def test_the_docs_have_the_rates_of_the_report():
    root = Path(__file__).parents[1]
    docs = (root / "docs" / "diagnostics.md").read_text().splitlines()
    report = (root / "results" / "failure_signatures" / "report.md").read_text().splitlines()
    for warning in SIGNS:
        (measured,) = (x.split(" | ") for x in report if x.startswith(f"| {warning} | {alarms.CALIBRATED} |"))
        (told,) = (x.replace("%", "").strip("| ").split(" | ") for x in docs if x.startswith(f"| `{warning}` |"))
        assert told[2:] == [x.strip("| ") for x in (*measured[2:4], *measured[5:])]


# ---- on paper -------------------------------------------------------------------------------------------------------


def test_the_files_hold_all_and_are_read_back(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study_results, "has_database", lambda uri: False)
    monkeypatch.setattr(study_results, "find", lambda *args: args)
    with pytest.raises(UsageError, match="no finished cells"):
        study_results.load(results.study, False)
    folder = study_results.FOLDER / "s"
    folder.mkdir(parents=True)
    gaps = replace(results.cells[0], diagnostics={"cut_error": {2: 0.125, 4: 1.5}, "none": {}})
    results = replace(results, cells=(gaps, *results.cells[1:]))
    results.write_csv(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    loaded = study_results.load(results.study, False)
    loaded.write_csv(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before and diagnostic_curves.FILE in before
    assert [c.seed for c in loaded.calibration] == [*OTHERS, *OTHERS] and {c.seed for c in loaded.cells} == {*SEEDS}
    known = {(c.arm, c.seed): c.diagnostics for c in (*results.cells, *results.calibration)}
    for each in (*loaded.cells, *loaded.calibration):
        for name, values in each.diagnostics.items():
            assert values == pytest.approx(known[each.arm, each.seed][name], rel=1e-3)


def test_the_report_says_it_in_a_table_and_two_figures(results, tmp_path):
    tables = study_report.made(results)
    assert {"warnings", "roc", "limits"} < {table.name for table in tables}
    drawn = figures.draw(results, tmp_path)
    assert {"answer.png", "roc.png"} < drawn.keys() and (tmp_path / "roc.svg").is_file()
    text = page.markdown(results, tables, drawn)
    first = text[: text.index("\n## Details")]
    assert "## When it warns" in first and first.count("![") == 1
    assert "| kl_collapse | rules of thumb | 88 [47, 100] | 0 [0, 37] | 100 | 88 [47, 100] | 5.0 |" in first
    assert f"| kl_collapse | {alarms.CALIBRATED} |" in first
    study_report.write(tables, tmp_path / "tables")
    with (tmp_path / "tables" / "warnings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["warning"] for row in rows} == {"kl_collapse"} and {row["meant"] for row in rows} == {"yes"}
    (whole,) = (row for row in rows if row["limits"] == "rules of thumb, all prompts")
    assert (whole["detected (%)"], whole["false alarms (%)"]) == ("88", "100")
    assert all(f"## {table.name}.csv" in page.guide(results, tables) for table in tables)
