"""Writes results/peers/report.md: ``python tests/peers_report.py``."""

import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peer_cases import CASES, Case, G, T, compare
from peers import TRLGRPO, TRLRLOO, equal_rewards
from transformers.utils.logging import disable_progress_bar

from lit_rl.algorithms import GRPO, RLOO
from lit_rl.exact.certificate import Build, Claim, describe, examine, judge
from lit_rl.exact.small_tasks import PAIRS, SUM_EOS
from lit_rl.tasks import PositionTask

REPORT = Path(__file__).parents[1] / "results" / "peers" / "report.md"
NONE = {"settings": {"scale_rewards": "none"}}
RAW = {"scale_by_std": False}
REWARD = 0.9  # no binary fraction

# its name, our normaliser of its loss, TRL's advantages in our loss, all ours, samples
ESTIMATORS: list[tuple[str, str, Build, Build, int]] = [
    ("RLOO", "row_sum", TRLRLOO, RLOO, 3),
    ("RLOO, in float32", "row_sum", partial(TRLRLOO, double=False), RLOO, 3),
    ("GRPO, `scale_rewards='none'`", "row_sum", partial(TRLGRPO, **NONE), partial(GRPO, **RAW), 3),
    ("the same, `loss_type='dr_grpo'`", "constant", partial(TRLGRPO, **NONE), partial(GRPO, **RAW), 3),
    ("GRPO", "row_sum", TRLGRPO, GRPO, 3),
    ("the same, `loss_type='grpo'`", "sequence_mean", TRLGRPO, GRPO, 3),
    ("the same, `loss_type='dapo'`", "token_mean", TRLGRPO, GRPO, 2),
]

TEXT = """# TRL's estimators beside ours

**Question.** Do RLOO and GRPO of TRL {version} estimate the gradient that this project's estimate, and which arguments
make them equal?

**Answer.** With the arguments below they estimate the same gradient, apart from two differences: TRL adds 1e-4 to the
standard deviation, and TRL's RLOO clips one ratio per response where ours has one per token. With all known differences
taken into account, the gradients agree to {left} of their length. In both projects RLOO is unbiased, and GRPO follows
another objective than the expected reward.

| TRL's configuration | equal here | distance | what differs |
|---|---|---|---|
{first}

**Distance** is the length of the difference of the two gradients, divided by the length of ours, on the weights that
sampled the responses.

Made by `make peers`. It installs the extra `peers`, runs `tests/test_peers.py`, which asserts what the lists below say,
and writes this file (`python tests/peers_report.py`).

## What they estimate

TRL's own trainer turns the enumerated rewards of a small task into advantages. They go through our loss with TRL's
normaliser, the number that divides the loss (the next section shows that it is the same). The expected gradient E is
then compared with the exact gradient g, as in [the certificate](../certificate/report.md).

- **bias**: |E - g| / |g|; **cosine**: of E and g; **ours**: the bias of our estimator.
- **apart**: |E - E'| / |g|, where E' is the expected gradient of our estimator.
- G: responses to a prompt. V: tokens in the vocabulary. T: positions. EOS: lengths vary.
- TRL computes the statistics of rewards in float64 here, so that rounding does not show; rows that say so have float32,
  as in training. DAPO's loss is that of a step on one prompt.

| TRL | normaliser | G | task | bias | cosine | ours | apart |
|---|---|---|---|---|---|---|---|
{oracle}

- RLOO's leave-one-out baseline is unbiased.
- GRPO without the standard deviation estimates (1 - 1/G) grad J, as ours does. With `loss_type='dr_grpo'` it is also
  divided by T.
- GRPO with the standard deviation follows another objective than J. TRL adds 1e-4 to the deviation and ours does not;
  this is the only difference. Both take the sample deviation (n - 1). For a binary reward and G = 3, TRL's expectation
  is ours times s / (s + 1e-4) with s = sqrt(1/3); the tests check this to 1e-9.
- If all rewards of a group are equal, our advantages are exactly 0. In TRL's float32, the rounding error of the mean is
  divided by 1e-4: three rewards of {reward} give advantages of {rounded:.1e}.

`PYTHONPATH=tests python -m lit_rl verify --model peers.TRLRLOO --model.samples 3` judges TRL's RLOO, and
`peers.TRLGRPO` its GRPO. `--model.settings` takes the arguments of TRL's configuration as JSON.

## Losses and gradients

Both compute a step on the same responses: {samples} to each of three prompts, up to {length} tokens, some of them
truncated. The policy is a Llama with random weights in float32. The table gives the distance of the gradients.

- **1st**: on the weights that sampled the responses.
- **2nd**: on the same responses after the weights have moved so far that GRPO's clipping removes the gradient of
  {low:.0%} to {high:.0%} of the tokens.
- **left**: the larger of the two distances after our rollouts were changed by **what differs**.
- TRL takes a step in two micro-batches where the row does not say otherwise; ours takes one.

| TRL's configuration | ours | 1st | 2nd | what differs | left |
|---|---|---|---|---|---|
{losses}

- By default, TRL's GRPO has DAPO's loss, a mean over tokens (`--model.normalizer token_mean`), and divides by the
  standard deviation. `loss_type='dr_grpo'` alone does not turn the deviation off.
- Both train on truncated responses by default. Both divide Dr.GRPO's loss by the longest response allowed
  (`max_completion_length`, `max_new_tokens`).
- With `beta` and TRL's other defaults, the penalty's value is k3. On the weights that sampled, its gradient is that of
  our `k2_loss`, which is the gradient of the reverse KL divergence. `use_bias_correction_kl=False` is our `k3_loss`.
- TRL's RLOO has one importance ratio per response. On the weights that sampled, its gradient is ours. Its loss is the
  mean of -A over responses; ours is the mean of -A times the number of tokens of the response.
"""
FIRST = ("RLOOConfig(beta=0.0)", "GRPOConfig()", "GRPOConfig(loss_type='grpo')")
FIRST += ("GRPOConfig(loss_type='dr_grpo', scale_rewards='none')",)


def oracle_row(estimator: tuple[str, str, Build, Build, int], task: PositionTask) -> str:
    name, normalizer, theirs, ours, samples = estimator
    settings: dict[str, Any] = {"samples": samples, "normalizer": normalizer}
    claims = [Claim(name, partial(build, **settings), task) for build in (theirs, ours)]
    found = [examine(claim) for claim in claims]
    peer, own = (judge(claim, *each) for claim, each in zip(claims, found, strict=True))
    apart = float((found[0][1].mean - found[1][1].mean).norm() / found[0][0].gradient().norm())
    numbers = [_short(peer.relative_bias), f"{peer.cosine:.3f}", _short(own.relative_bias), _short(apart)]
    return _row(name, f"`{normalizer}`", samples, describe(task), *numbers)


def loss_row(case: Case, distances: list[float], left: float) -> str:
    config = ", ".join(f"{key}={value!r}" for key, value in case.theirs.items())
    arguments = [f"--model.{key} {str(value).lower()}" for key, value in case.ours.items()]
    name, differs = case.model.__name__, case.differs
    if case.microbatches == 1:
        differs += ", if TRL takes one micro-batch"
    ours = " ".join([f"--model {name}", *arguments])
    return _row(f"`{name}Config({config})`", f"`{ours}`", *map(_short, distances), differs, _short(left))


def first_rows(lines: list[str]) -> list[str]:
    """The rows of page one, from those of :func:`loss_row`."""
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    chosen = [next(row for row in cells if row[0] == f"`{config}`") for config in FIRST]
    return [_row(theirs, ours, first, differs) for theirs, ours, first, _, differs, _ in chosen]


def _row(*cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _short(x: float) -> str:
    return f"{x:.0e}" if x < 1e-2 else f"{x:.3f}"


def main() -> None:
    torch.set_num_threads(1)
    disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # TRL's, of transformers
    oracle = [oracle_row(estimator, task) for estimator in ESTIMATORS for task in (PAIRS, SUM_EOS)]
    steps = [compare(case) for case in CASES]
    lines = [
        loss_row(case, [s.distance for s in found], max(s.unexplained for s in found))
        for case, found in zip(CASES, steps, strict=True)
    ]
    clipped = [found[1].clipped for found in steps if found[1].clipped]
    text = TEXT.format(
        version=version("trl"),
        left=_short(max(step.unexplained for found in steps for step in found)),
        first="\n".join(first_rows(lines)),
        oracle="\n".join(oracle),
        reward=REWARD,
        rounded=equal_rewards(TRLGRPO(samples=3, double=False), REWARD),
        samples=G,
        length=T,
        low=min(clipped),
        high=max(clipped),
        losses="\n".join(lines),
    )
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(text)


if __name__ == "__main__":
    main()
