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
from lit_rl.exact.claims import PAIRS, SUM_EOS
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

TEXT = """# TRL's estimators

The RLOO and GRPO of TRL {version}, by TRL's own code, under the oracle of
[the certificate](../certificate/report.md), and beside this project's. Made by `make peers`, which installs the extra
`peers`, runs `tests/test_peers.py`, which asserts what the two lists say, and writes this file
(`python tests/peers_report.py`).

## What they estimate

TRL's trainer turns the enumerated rewards into advantages, which go through the shared loss with the normaliser that
the next section shows to be TRL's. **bias** |E - g| / |g| and **cosine** of the expected gradient E and the exact one
g, as in the certificate; **ours**: the bias of this project's estimator; **apart**: |E - E'| / |g|, E' the expectation
of ours. TRL takes the rewards' statistics in float64 here, so that no rounding is seen; in one row in float32, as it
trains. DAPO's loss is of a step of one prompt.

| TRL | normaliser | G | task | bias | cosine | ours | apart |
|---|---|---|---|---|---|---|---|
{oracle}

- RLOO's leave-one-out is unbiased.
- Without the deviation GRPO estimates (1 - 1/G) grad J, as ours does; with `loss_type='dr_grpo'` over T besides.
- With the deviation it is another objective than J, and the two projects' differ by the 1e-4 that TRL adds to the
  deviation and ours does not. Both take the sample deviation (n - 1). Of a binary reward and G = 3 TRL's expectation is
  ours times s / (s + 1e-4), s = sqrt(1/3), which the tests check to 1e-9.
- A group whose rewards are equal has advantages of exactly 0 in ours. In TRL's float32 the rounding of their mean is
  divided by 1e-4: with 3 rewards of {reward} the advantages are {rounded:.1e}.

`PYTHONPATH=tests python -m lit_rl verify --model peers.TRLRLOO --model.samples 3` judges one of them; `peers.TRLGRPO`
is the other, and `--model.settings` takes what TRL's configuration takes, as JSON.

## Losses and gradients

On the same responses, {samples} to each of three prompts, up to {length} tokens, some of them truncated, by the same
Llama of random weights in float32: how far TRL's gradient is from that of ours, relative to ours. **1st** step: on the
weights that sampled; **2nd**: on the same responses, with the weights moved so far that GRPO's clipping removes the
gradient of {low:.0%} to {high:.0%} of the tokens. **left**: the larger distance of the two steps where our rollouts are
first changed by **what differs**. TRL takes a step in two micro-batches where nothing else is said, ours in one.

| TRL's configuration | ours | 1st | 2nd | what differs | left |
|---|---|---|---|---|---|
{losses}

- By its defaults TRL's GRPO has DAPO's loss, a mean over tokens, and the deviation: `--model.normalizer token_mean`.
  `loss_type='dr_grpo'` does not turn the deviation off by itself.
- Both train on truncated responses by default, and both divide Dr.GRPO's loss by the longest response allowed
  (`max_completion_length`, `max_new_tokens`).
- With `beta` and its defaults the penalty's gradient is that of our `k2_loss` on the weights that sampled, the reverse
  KL's, though its value is k3; `use_bias_correction_kl=False` is our `k3_loss`.
- TRL's RLOO has one importance ratio a response. On the weights that sampled its gradient is ours, while its loss is
  the mean of -A over responses and ours that of -A times the response's tokens.
"""


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
        differs += ", in one micro-batch"
    ours = " ".join([f"--model {name}", *arguments])
    return _row(f"`{name}Config({config})`", f"`{ours}`", *map(_short, distances), differs, _short(left))


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
