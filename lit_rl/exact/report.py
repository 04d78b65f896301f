"""The certificate as text: lines for a terminal, and a report in Markdown."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from lit_rl.algorithms import TRePO
from lit_rl.exact.certificate import Certificate, Claim, examine, position_shares
from lit_rl.exact.theorem import Line
from lit_rl.functional.cuts import Bernoulli, Stride
from lit_rl.tasks import Pairwise

HEADER = f"{'estimator':40} {'task':26} {'bias':>8} {'cosine':>7} {'tr cov':>8} {'rel var':>8} {'tokens':>6}  expected"
FILLS: dict[str, dict[str, Any]] = {
    "segment_td": {},
    "hold_mc": {},
    "linear_value_mc": {},
    "linear_value_td": {},
    "linear_advantage": {},
    "linear_advantage, random cuts": {"fill": "linear_advantage", "cuts": Bernoulli(0.5)},
    "masked_advantage, random cuts": {"fill": "masked_advantage", "cuts": Bernoulli(0.5)},
}

INTRODUCTION = """# The certificate

Which estimators estimate the gradient of J = E[r], and what do the others estimate? Each row is the code that trains:
every set of responses, greedy probes and continuations that the estimator can draw for a prompt is enumerated on a
small task, goes through the algorithm's own `prepare` and `loss`, and counts with its probability. The result is
compared with the gradient of the enumerated tree, in float64.

- **bias** |G - g| / |g|: G the expected estimate, g the exact gradient. **cosine**: of the two.
- **tr cov**: trace of the covariance of one prompt's gradient; **rel var**: over |G|^2, so that an estimator that only
  shrinks the gradient does not look quiet; **tokens**: sampled for it on average, probes included. Rows at different
  tokens are no comparison of estimators yet.
- **expected**: what G should be, by theory, and **off by** how much it is not, in units of |g|: less than 1e-9. In
  rows with a standard error (se) G was estimated from {samples:,} sampled groups, and 4 of these errors are allowed.
  Without a closed form a bias must show.

The policy is a table of random logits where nothing else is said. V tokens, T positions; EOS: the last token ends the
response, so lengths vary. TRePO has G=2, K=1 and a cut before every second token (before the 1st, the 3rd, ...) where
nothing else is said, its first value from the sibling; G=1 takes that value from a continuation of the prompt. Cuts:
Bernoulli with probability 1/2, entropy above 0.95 nats, boundary behind token 0, relative at half of the finished
response. In a table the scores of different states are orthogonal, which makes `segment_td` and `hold_mc` equally noisy
at K=1; in a transformer they are not. DAPO's loss is of a step of one prompt.

What is learned elsewhere is random here, so that nothing depends on its being any good: PPO's critic (values from
N(0, 1/4), fixed before sampling; V is the true value where a row says so), RTO's DPO policy (its reference is uniform)
and ABC's reward model, whose last token's attention is alpha. OnlineDPO stands where the policy still is its reference;
it trains on the best and the worst of G.

Symbols: g_t = E[r psi_t], what position t adds to g; p the chance of a reward; w_G(p) = sqrt((G-1)/G)
E_k[sqrt(k/G (1 - k/G))] / (p (1-p)), k ~ Binomial(G, p); L_k the length of the segment between two cuts that t lies in
and alpha_t how far along; beta the weight of the KL penalty; t is exact where its own advantage is known, being cut
before and behind; error of V: (1 - lambda) sum_l lambda^(l-1) E[psi_t e(s_(t+l))], e = V - V_pi, l from 1; c what is
added to V, a spurious reward for the length; past alpha: the sum of alpha over the tokens before t.

Made by `python -m lit_rl verify --report {folder}`.
"""

INTERPOLATION = """
## What interpolation does

TRePO (2506.02553) measures values at some prefixes and interpolates between the tokens whose advantages that makes
exact: `linear_advantage`. It can be read otherwise. What each reading keeps of g_t, where all responses are equally
long, on {task} with cuts before tokens 1 and 3, or before each later token with probability 1/2 (1 is unbiased):

{table}

An interpolated advantage is a mixture of two exact ones. The earlier one is decided before token t is chosen: a
baseline without a reward. The later one averages to nothing, whatever was chosen at t. So **interpolated tokens learn
nothing**: their expected update is 0, and what they add is noise. With random cuts each position keeps just the
probability of being exact, cut before and behind (the last token: before), and the rest of its updates is noise. With
cuts before tokens 1 and 3 of four, no token is exact, and there is no update at all. Where the lengths of responses
vary, the weights of the mixture look ahead to the end, and interpolated tokens get some update, of the wrong kind.

Interpolating *values* keeps 1 - alpha_t of the signal (`linear_value_mc`) or 1 / L_k of it (`linear_value_td`): it
weighs positions wrongly. Holding the value of the last cut (`hold_mc`, `segment_td`) keeps all of it, and so do exact
tokens alone at random places, weighted by the inverse of their probability (`masked_advantage`), at a price in noise.
"""


def line(found: Certificate) -> str:
    """One row for a terminal."""
    mark = "ok" if found.holds else "FAILS"
    error = f" (se {found.standard_error:.0e})" if found.standard_error is not None else ""
    return (
        f"{found.estimator:40} {found.task:26} {found.relative_bias:8.1e} {_number(found.cosine):>7} "
        f"{found.trace_cov:8.4f} {_number(found.relative_variance):>8} {found.tokens:6.1f}  {found.expected:24} "
        f"{_short(found.distance_to_expected):>8} off  {mark}{error}"
    )


def theorem_line(statement: Line) -> str:
    return f"{'proved' if statement.holds else 'FAILS '}  {statement.name}: {statement.claim}  [{statement.sizes}]"


def as_json(certificates: Sequence[Certificate]) -> str:
    return json.dumps([asdict(each) for each in certificates], indent=1)


def write_report(folder: Path, certificates: Sequence[Certificate], statements: Sequence[Line], samples: int) -> None:
    """``report.md`` and ``certificate.json`` in a folder, which is made."""
    parts = [INTRODUCTION.format(folder=folder.as_posix(), samples=samples), _table(certificates)]
    parts.append(_interpolation())
    parts.append(
        "\n## The theorem\n\nProved with sympy on small trees, for symbolic token rewards, gamma and logits.\n"
    )
    parts += [f"- {'' if s.holds else '**FAILS** '}{s.name} ({s.sizes}): `{s.claim}`" for s in statements]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text("\n".join(parts) + "\n")
    (folder / "certificate.json").write_text(as_json(certificates) + "\n")


def _table(certificates: Sequence[Certificate]) -> str:
    rows = ["| estimator | task | bias | cosine | tr cov | rel var | tokens | expected | off by | |", "|" + "---|" * 10]
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


def _interpolation() -> str:
    task = Pairwise(2, 4)
    rows = ["| fill | " + " | ".join(f"t = {t + 1}" for t in range(task.length)) + " |", "|---" * 5 + "|"]
    shared = {"samples": 1, "continuations": 1, "root": "continuations", "cuts": Stride(2)}
    for name, settings in FILLS.items():
        build = partial(TRePO, **{**shared, "fill": name, **settings})
        shares = position_shares(*examine(Claim(name, build, task)))
        rows.append(f"| `{name}` | " + " | ".join(f"{abs(x) if abs(x) < 5e-4 else x:.3f}" for x in shares) + " |")
    return INTERPOLATION.format(task="Pairwise V=2 T=4", table="\n".join(rows))


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.3f}"


def _short(x: float | None) -> str:
    return "-" if x is None else f"{x:.3f}" if x >= 0.001 else f"{x:.0e}"
