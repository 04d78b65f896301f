"""The certificate as text: lines for a terminal, and a report in Markdown. Its words are in ``report_text.py``."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from lit_rl.algorithms import TRePO
from lit_rl.exact import report_text
from lit_rl.exact.certificate import Certificate, Claim, describe, examine, position_shares
from lit_rl.exact.small_tasks import KEY_EOS, LONG, SUM_EOS
from lit_rl.exact.theorem import Line
from lit_rl.functional.cuts import Bernoulli, Stride
from lit_rl.tasks import Pairwise

HEADER = """Expected gradient G of each estimator against the exact gradient g of J = E[reward], on small tasks.
  bias: |G - g| / |g|. cosine: of G and g. variance: trace of the covariance of one prompt's gradient.
  rel var: variance / |G|^2. tokens: sampled for one prompt. expected: what G should be. error: |G - expected| / |g|.
""" + (
    f"{'estimator':40} {'task':34} {'bias':>7} {'cosine':>6} {'variance':>8} {'rel var':>7} {'tokens':>6}  "
    f"{'expected':29} {'error':>7}"
)
FAILED_OWN = (
    "The expected gradient is not the exact one. A cosine of 1.000 means that it is only rescaled, which the learning "
    "rate can make up for; below 1 its direction differs."
)
NOT_FINITE = (
    "The estimate is not a number. Are --model.samples enough for the baseline, and is something divided by zero, such "
    "as a standard deviation or the number of the other responses?"
)
# page one: algorithm, its row in the certificate (default settings where nothing else is said), the row's task
FIRST = (
    ("REINFORCE", "REINFORCE", SUM_EOS),
    ("RLOO", "RLOO G=3", SUM_EOS),
    ("ReMax", "ReMax", SUM_EOS),
    ("P3O", "P3O", SUM_EOS),
    ("OptimalBaseline", "OptimalBaseline G=3", SUM_EOS),
    ("GRPO", "GRPO as published, G=3", KEY_EOS),
    ("GRPO, not divided by std and length", "GRPO without std, G=3", SUM_EOS),
    ("GSPO", "GSPO, G=3", KEY_EOS),
    ("CISPO", "CISPO, G=2", SUM_EOS),
    ("RL-ZVP", "RLZVP, G=3", KEY_EOS),
    ("REINFORCE++", "REINFORCEPlusPlus, G=2", SUM_EOS),
    ("PPO", "PPO", SUM_EOS),
    ("PPO, lambda = 0.5", "PPO lambda=0.5", SUM_EOS),
    ("TRePO", "TRePO segment_td", SUM_EOS),
    ("TRePO, interpolated advantages", "TRePO linear_advantage", LONG),
    ("OnlineDPO", "OnlineDPO G=2", SUM_EOS),
    ("RTO", "RTO, reward-to-go", SUM_EOS),
    ("ABC", "ABC, reward-to-go", SUM_EOS),
)
FILLS: dict[str, dict[str, Any]] = {
    "segment_td": {},
    "hold_mc": {},
    "linear_value_mc": {},
    "linear_value_td": {},
    "linear_advantage": {},
    "linear_advantage, random cuts": {"fill": "linear_advantage", "cuts": Bernoulli(0.5)},
    "masked_advantage, random cuts": {"fill": "masked_advantage", "cuts": Bernoulli(0.5)},
}


def line(found: Certificate) -> str:
    """One row for a terminal."""
    mark = "ok" if found.holds else "FAILS"
    error = f" (se {found.standard_error:.0e})" if found.standard_error is not None else ""
    return (
        f"{found.estimator:40} {found.task:34} {_short(found.relative_bias):>7} {_number(found.cosine):>6} "
        f"{found.trace_cov:8.4f} {_number(found.relative_variance):>7} {found.tokens:6.1f}  {found.expected:29} "
        f"{_short(found.distance_to_expected):>7}{error}  {mark}"
    )


def theorem_line(statement: Line) -> str:
    """One identity for a terminal."""
    return f"{'proved' if statement.holds else 'FAILS '}  {statement.name}: {statement.claim}  [{statement.sizes}]"


def as_json(certificates: Sequence[Certificate]) -> str:
    """A list of objects, one per certificate."""
    return json.dumps([asdict(each) for each in certificates], indent=1)


def write_report(folder: Path, certificates: Sequence[Certificate], statements: Sequence[Line], samples: int) -> None:
    """Writes ``report.md`` and ``certificate.json`` into a folder, which is made.

    Args:
        samples: groups that were sampled where there were too many outcomes to enumerate.
    """
    parts = [
        report_text.FIRST_PAGE.format(
            folder=folder.as_posix(), table=_first_table(certificates), verdict=_verdict(certificates, statements)
        ),
        report_text.METHOD.format(samples=samples),
        _interpolation(),
        report_text.THEOREM,
        "\n".join(f"- {'' if s.holds else '**FAILS** '}{s.name} ({s.sizes}): `{s.claim}`" for s in statements) + "\n",
        report_text.LEGEND.format(rows=_legend(certificates)),
        report_text.ALL_ROWS,
        _table(certificates),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text("\n".join(parts) + "\n")
    (folder / "certificate.json").write_text(as_json(certificates) + "\n")


def _verdict(certificates: Sequence[Certificate], statements: Sequence[Line]) -> str:
    rows, identities = [each.holds for each in certificates], [each.holds for each in statements]
    return (
        f"{sum(rows)} of {len(rows)} rows agree with what theory predicts for them, and {sum(identities)} of "
        f"{len(identities)} identities around the policy gradient theorem are proved."
    )


def _first_table(certificates: Sequence[Certificate]) -> str:
    found = {(each.estimator, each.task): each for each in certificates}
    rows = ["| algorithm | task | bias | cosine | tokens | relative variance | expected gradient |", "|" + "---|" * 7]
    for algorithm, estimator, task in FIRST:
        if each := found.get((estimator, describe(task))):
            numbers = [_short(each.relative_bias), _number(each.cosine), f"{each.tokens:.1f}"]
            cells = [algorithm, each.task, *numbers, _number(each.relative_variance), each.expected]
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _table(certificates: Sequence[Certificate]) -> str:
    names = ("estimator", "task", "bias", "cosine", "variance", "relative variance", "tokens", "expected gradient")
    rows = ["| " + " | ".join([*names, "error", ""]) + " |", "|" + "---|" * 10]
    for each in certificates:
        error = f" (se {each.standard_error:.1e})" if each.standard_error is not None else ""
        cells = [
            each.estimator,
            each.task,
            _short(each.relative_bias),
            _number(each.cosine),
            f"{each.trace_cov:.4f}",
            _number(each.relative_variance),
            f"{each.tokens:.1f}",
            each.expected,
            _short(each.distance_to_expected) + error,
            "ok" if each.holds else "**fails**",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _legend(certificates: Sequence[Certificate]) -> str:
    names = {each.expected for each in certificates}
    return "\n".join(f"| {name} | {meaning} |" for name, meaning in report_text.MEANINGS.items() if name in names)


def _interpolation() -> str:
    task = Pairwise(2, 4)
    rows = ["| rule (`fill`) | " + " | ".join(f"t = {t + 1}" for t in range(task.length)) + " |", "|---" * 5 + "|"]
    shared = {"samples": 1, "continuations": 1, "root": "continuations", "cuts": Stride(2)}
    for name, settings in FILLS.items():
        build = partial(TRePO, **{**shared, "fill": name, **settings})
        shares = position_shares(*examine(Claim(name, build, task)))
        rows.append(f"| `{name}` | " + " | ".join(f"{abs(x) if abs(x) < 5e-4 else x:.3f}" for x in shares) + " |")
    return report_text.INTERPOLATION.format(task="Pairwise V=2 T=4", table="\n".join(rows))


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.3f}"


def _short(x: float | None) -> str:
    return "-" if x is None else f"{x:.3f}" if x >= 0.001 else f"{x:.0e}"
