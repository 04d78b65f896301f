"""What one row of an exact table has: a setting, its exact bias and noise, and the bias that theory predicts."""

from torch import Tensor

from lit_rl.exact.certificate import TOLERANCE
from lit_rl.exact.expectation import Moments

Row = dict[str, str | float]


def row(setting: dict[str, str | float], found: Moments, target: Tensor, predicted: Tensor | None, noise: float) -> Row:
    """A line of the table.

    Args:
        setting: its first columns.
        found: mean and noise of the estimator's gradient.
        target: the gradient that it should have, [D].
        predicted: the mean that theory gives it, [D]; None if no formula is known.
        noise: tr Sigma of the row that it is compared with.
    """
    size = float(target.norm())
    known: Row = {"predicted bias": "", "disagreement": "", "holds": ""}
    if predicted is not None:
        apart = float((found.mean - predicted).norm()) / size
        known = {
            "predicted bias": float((predicted - target).norm()) / size,
            "disagreement": apart,
            "holds": "yes" if apart <= TOLERANCE else "no",
        }
    bias = float((found.mean - target).norm()) / size
    return {**setting, "relative bias": bias, **known, "noise": found.trace_cov / noise}
