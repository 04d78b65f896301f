"""Where continuations pay: the noise that they take away, predicted and measured, against what they cost."""

import math
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

from scipy.stats import spearmanr

from ablations.analysis import gradient_noise
from ablations.analysis.statistics import Interval, jackknife_interval
from ablations.analysis.tables import Column, Table, Value
from ablations.metric_names import KAPPA, PREDICTED, RESPONSE, SECOND, TOKEN
from ablations.records.study_results import StudyResults

SAYS = (
    "has each arm's gradient noise at frozen policies, relative to {baseline}'s, measured and predicted, at several "
    "costs."
)
GUIDE = (
    "At frozen policies, the same for all arms of a task; {baseline} is 1, smaller is better: tr Sigma when as many "
    "responses, generated tokens or seconds are spent, geometric means over seeds with 95% t intervals. Training a "
    'token costs kappa times what generating one costs: "noise at kappa" is at equal cost of both together, and "less '
    'noise from kappa" is the kappa from which on the arm has less noise than {baseline} at equal cost, by the '
    "measured noise and by the ends of its interval (0: always; inf: never)."
)
BY_TASK = "has the measured noise over the predicted one by task, in the geometric mean."
BY_PROFILE = (
    "The prediction takes the advantage of each segment to have the variance Var r (F' - F + (1 - F') / K + (1 - F) / "
    "K): F and F' are the shares of the reward's variance that are decided at its two ends, K the continuations per "
    "cut. It assumes score functions of one length and no correlation between positions. Over {n} TRePO arms "
)
BY_ENUMERATION = (
    "The prediction is E Σ A² |ψ|², enumerated over all responses with their exact values; it assumes no correlation "
    "between the gradients of different tokens. Over {n} arms "
)
THEORY = (
    "predicted and measured noise per response have a rank correlation of {rank}. The measured noise is {ratio} times "
    "the predicted one in the geometric mean, and between {least:.2f} and {most:.2f} times for single arms."
)


def table(results: StudyResults) -> Table:
    """Of all frozen arms, at each cost; without rows where there are none."""
    kappas = results.study.kappas
    units = [RESPONSE, TOKEN, *(f"{KAPPA}{kappa:g}" for kappa in kappas), SECOND]
    rows: list[list[Value]] = []
    for first, names in gradient_noise.groups(results).items():
        other = gradient_noise.measured(results, first)
        for arm in names:
            found, same = gradient_noise.measured(results, arm), arm == first
            ratios = [Interval(1, 1, 1) if same else gradient_noise.relative(found, other, unit) for unit in units]
            rows.append(
                [
                    results.study.arm(arm).task,
                    arm,
                    len(found),
                    fmean(noise.generated / noise.responses for noise in found.values()),
                    ratios[0],
                    None if same else predicted(results, arm),
                    *ratios[1:],
                    None if same else _pays(results, arm, ratios[0]),
                ]
            )
    columns = [
        *map(Column, ("task", "arm", "seeds")),
        Column("generated tokens per response", "", ".1f"),
        Column("noise per response", "", ".2f", True),
        Column("predicted noise per response", "", ".2f"),
        Column("noise per generated token", "", ".2f", True),
        *(Column(f"noise at kappa {kappa:g}", "", ".2f", True) for kappa in kappas),
        Column("noise per second", "", ".2f", True),
        Column("less noise from kappa", "", ".1f", True),
    ]
    says, guide = (text.format(baseline=gradient_noise.baselines(results)) for text in (SAYS, GUIDE))
    return Table("gradient_noise", gradient_noise.HEADING, says, columns, rows, guide)


def pays_from(noise: float, generated: float, trained: float, other: tuple[float, float]) -> float:
    """The least kappa at which noise * (generated + kappa trained) is below the baseline's: 0 if it always is, infinite
    if it never is.

    Args:
        noise: a response, relative to the baseline's.
        generated, trained: tokens a response; ``other``: the baseline's.
    """
    excess, gain = noise * generated - other[0], other[1] - noise * trained
    if excess <= 0 and gain >= 0:
        return 0.0
    return excess / gain if gain > 0 else math.inf


def predicted(results: StudyResults, arm: str) -> float | None:
    """The noise a response relative to the baseline's, RLOO: the mean over the policies. None without a theory.

    Where it was enumerated, as the exact rows have it; otherwise by the profile of resolved variance.
    """
    rows = [row for row in results.exact if row.get("arm") == arm and PREDICTED in row]
    if rows:
        return float(rows[0][PREDICTED]) if arm != gradient_noise.baseline(results, arm) else None
    arguments = results.config(arm)["model"]["init_args"]
    cuts = arguments.get("cuts", {})
    fill = arguments.get("fill", "segment_td")
    if not cuts.get("class_path", "").endswith("Stride") or fill not in ("segment_td", "hold_mc"):
        return None
    profiles = _profiles(results, gradient_noise.baseline(results, arm))
    if not profiles or arguments.get("reuse"):
        return None
    return fmean(_ratio(profile, cuts["init_args"]["every"], arguments) for profile in profiles)


class Agreement(NamedTuple):
    """How predictions and measurements agree.

    Attributes:
        rank: their rank correlation.
        ratio: measured over predicted noise, geometric mean.
        arms: the same of each arm.
    """

    rank: Interval
    ratio: Interval
    arms: dict[str, float]


def agreement(results: StudyResults) -> Agreement | None:
    """None with fewer than three predictions."""
    arms = [(arm, ratio) for arm in gradient_noise.arms(results) if (ratio := predicted(results, arm)) is not None]
    if len(arms) < 3:
        return None
    noise = {
        arm: gradient_noise.measured(results, arm)
        for each, _ in arms
        for arm in (each, gradient_noise.baseline(results, each))
    }

    def ratios(seeds: Any) -> list[float]:
        logs = {arm: fmean(n[seed].log(RESPONSE) for seed in seeds) for arm, n in noise.items()}
        return [logs[arm] - logs[gradient_noise.baseline(results, arm)] for arm, _ in arms]

    def rank(seeds: Any) -> float:
        return float(spearmanr(ratios(seeds), [ratio for _, ratio in arms]).statistic)

    def bias(seeds: Any) -> float:
        return fmean(x - math.log(ratio) for x, (_, ratio) in zip(ratios(seeds), arms, strict=True))

    shared = sorted(set.intersection(*(set(n) for n in noise.values())))
    own = {arm: math.exp(x) / ratio for x, (arm, ratio) in zip(ratios(shared), arms, strict=True)}
    mean = Interval(*map(math.exp, jackknife_interval(bias, shared)))
    return Agreement(jackknife_interval(rank, shared), mean, own)


def theory(results: StudyResults) -> str:
    """What the prediction is and how it agrees with the measurement; empty without predictions."""
    found = agreement(results)
    if found is None:
        return ""
    rank, ratio = map(gradient_noise.factor, (found.rank, found.ratio))
    least, most = min(found.arms.values()), max(found.arms.values())
    by = BY_ENUMERATION if any(PREDICTED in row for row in results.exact) else BY_PROFILE
    return f"{by}{THEORY}".format(n=len(found.arms), rank=rank, ratio=ratio, least=least, most=most)


def by_task(results: StudyResults) -> Table:
    """Measured over predicted noise; without rows where nothing is predicted."""
    tasks: dict[str, list[float]] = {}
    found = agreement(results) if results.study.kappas else None
    for arm, ratio in found.arms.items() if found else ():
        tasks.setdefault(results.study.arm(arm).task, []).append(math.log(ratio))
    columns = Column("task"), Column("arms"), Column("measured over predicted noise, geometric mean", "", ".2f")
    rows: list[list[Value]] = [[task, len(logs), math.exp(fmean(logs))] for task, logs in tasks.items()]
    return Table("prediction", gradient_noise.HEADING, BY_TASK, columns, rows)


def _profiles(results: StudyResults, baseline: str) -> list[list[float]]:
    """F_t of the policies, t = 0, 1, ..., with F = 1 behind the last token."""
    found = []
    for cell in results.of(baseline):
        curves = {int(k.split("/")[-1]): v for k, v in cell.curves.items() if k.startswith("credit/resolved/")}
        if curves:
            found.append([curves[t][min(curves[t])] for t in sorted(curves)] + [1.0])
    return found


def _ratio(resolved: list[float], stride: int, arguments: dict[str, Any]) -> float:
    length, samples, k = len(resolved) - 1, arguments.get("samples", 4), arguments["continuations"]
    paid = arguments.get("root", "siblings") == "continuations"
    cuts = [*range(0, length, stride), length]

    def error(t: int) -> float:
        copies = math.inf if t == length else k if t or paid else samples - 1
        return (1 - resolved[t]) / copies

    total = 0.0
    for here, there in pairwise(cuts):
        later = length if arguments.get("fill") == "hold_mc" else there
        total += (there - here) * (resolved[later] - resolved[here] + error(later) + error(here))
    return total / (length * samples / (samples - 1))


def _pays(results: StudyResults, arm: str, noise: Interval) -> Interval:
    """The kappa from which on the arm has less noise than its baseline, by its noise and the interval's limits."""
    own, other = (
        tuple(
            fmean(x) for x in zip(*((n.generated / n.responses, n.trained / n.responses) for n in found), strict=True)
        )
        for found in (
            gradient_noise.measured(results, arm).values(),
            gradient_noise.measured(results, gradient_noise.baseline(results, arm)).values(),
        )
    )
    return Interval(*(x if x != x else pays_from(x, own[0], own[1], (other[0], other[1])) for x in noise))
