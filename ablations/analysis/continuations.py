"""Where continuations pay: the noise that they take away, predicted and measured, against what they cost."""

import math
from itertools import pairwise
from statistics import fmean
from typing import Any

from scipy.stats import spearmanr

from ablations.analysis import gradient_noise
from ablations.analysis.statistics import Interval, jackknife_interval
from ablations.metric_names import KAPPA, RESPONSE, SECOND, TOKEN
from ablations.records.study_results import StudyResults

CAPTION = (
    "Of the same frozen policies, relative to {baseline} (smaller is better): tr Σ when as many responses to prompts, "
    "generated tokens or seconds are spent, or at a cost of one generated token and kappa a trained one, geometric "
    "means over seeds with 95% t intervals. Predicted: by the resolved variance, per response. Tokens: "
    "generated ones per response. Pays from: the kappa beyond which the arm has less noise than the baseline at equal "
    "cost, by the measured noise and by the ends of its interval."
)
THEORY = (
    "Predicted against measured over {n} TRePO arms (per response, relative to {baseline}): rank correlation {rank}; "
    "the measured noise is {ratio} of the predicted one in the geometric mean, for single arms between {least:.2f} and "
    "{most:.2f}, and by task {tasks}. "
    "The prediction takes the variance of the advantage of each segment, Var r (F' - F + (1 - F') / K + (1 - F) / K) "
    "with F and F' the shares of the reward's variance that are resolved at its ends, for the same length of every "
    "score function and no correlation between positions."
)


def columns(results: StudyResults) -> list[str]:
    """Of :func:`table`."""
    swept = [f"kappa {kappa:g}" for kappa in results.study.kappas]
    return ["arm", "seeds", "tokens", "per response", "predicted", "per token", *swept, "per second", "pays from kappa"]


def table(results: StudyResults, arms: list[str]) -> list[list[str]]:
    """The rows below :func:`columns`."""
    rows = []
    for arm in arms:
        found, other = (
            gradient_noise.measured(results, arm),
            gradient_noise.measured(results, gradient_noise.baseline(results, arm)),
        )
        same = arm == gradient_noise.baseline(results, arm)
        units = [TOKEN, *(f"{KAPPA}{kappa:g}" for kappa in results.study.kappas), SECOND]
        theory = predicted(results, arm)
        tokens = fmean(n.generated / n.responses for n in found.values())
        ratios = [gradient_noise.relative(found, other, unit) for unit in (RESPONSE, *units)]
        texts = ["1" if same else gradient_noise.factor(ratio) for ratio in ratios]
        rows.append(
            [
                results.label(arm),
                str(len(found)),
                f"{tokens:.1f}",
                texts[0],
                "" if theory is None or same else f"{theory:.2f}",
                *texts[1:],
                "" if same else _pays(results, arm, ratios[0]),
            ]
        )
    return rows


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
    """The noise a response relative to the baseline's, RLOO: the mean over the policies. None without a theory."""
    arguments = results.config(arm)["model"]["init_args"]
    cuts = arguments.get("cuts", {})
    fill = arguments.get("fill", "segment_td")
    if not cuts.get("class_path", "").endswith("Stride") or fill not in ("segment_td", "hold_mc"):
        return None
    profiles = _profiles(results, gradient_noise.baseline(results, arm))
    if not profiles or arguments.get("reuse"):
        return None
    return fmean(_ratio(profile, cuts["init_args"]["every"], arguments) for profile in profiles)


def theory(results: StudyResults) -> str:
    """The sentence on how prediction and measurement agree; empty without predictions."""
    arms = [(arm, ratio) for arm in gradient_noise.arms(results) if (ratio := predicted(results, arm)) is not None]
    if len(arms) < 3:
        return ""
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
    spread = [math.exp(x) / ratio for x, (_, ratio) in zip(ratios(shared), arms, strict=True)]
    own = jackknife_interval(bias, shared)
    tasks: dict[str, list[float]] = {}
    for (arm, _), ratio in zip(arms, spread, strict=True):
        tasks.setdefault(results.study.arm(arm).task, []).append(math.log(ratio))
    return THEORY.format(
        n=len(arms),
        baseline=_baselines(results),
        rank=gradient_noise.factor(jackknife_interval(rank, shared)),
        ratio=gradient_noise.factor(Interval(*map(math.exp, own))),
        least=min(spread),
        most=max(spread),
        tasks="; ".join(f"{task} {math.exp(fmean(logs)):.2f}" for task, logs in tasks.items()),
    )


def caption(results: StudyResults) -> str:
    return CAPTION.format(baseline=_baselines(results))


def _baselines(results: StudyResults) -> str:
    return " or ".join(
        dict.fromkeys(results.label(gradient_noise.baseline(results, arm)) for arm in gradient_noise.arms(results))
    )


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


def _pays(results: StudyResults, arm: str, noise: Interval) -> str:
    own, other = (
        tuple(
            fmean(x) for x in zip(*((n.generated / n.responses, n.trained / n.responses) for n in found), strict=True)
        )
        for found in (
            gradient_noise.measured(results, arm).values(),
            gradient_noise.measured(results, gradient_noise.baseline(results, arm)).values(),
        )
    )
    texts = []
    for each in noise:
        kappa = pays_from(each, own[0], own[1], (other[0], other[1]))
        texts.append("always" if kappa == 0 else "never" if kappa == math.inf else f"{kappa:.1f}")
    mean, low, high = texts
    return mean if noise.low != noise.low or low == high == mean else f"{mean} [{low}, {high}]"
