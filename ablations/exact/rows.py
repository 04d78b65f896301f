"""What one row of an exact table has: a setting, its exact bias and noise, and the bias that theory predicts."""

from torch import Tensor

from lit_rl.exact.certificate import TOLERANCE
from lit_rl.exact.expectation import Moments

Row = dict[str, str | float]


def row(
    setting: Row,
    found: Moments,
    target: Tensor,
    predicted: Tensor | None,
    noise: float,
    predicted_noise: float | None = None,
) -> Row:
    """A line of the table.

    Args:
        setting: its first columns.
        found: mean and noise of the estimator's gradient.
        target: the gradient that it should have, [D].
        predicted: the mean that theory gives it, [D]; None if no formula is known.
        noise: tr Sigma of the row that it is compared with.
        predicted_noise: tr Sigma that theory gives it; None if nothing is known.
    """
    size = float(target.norm())
    apart = None if predicted is None else float((found.mean - predicted).norm()) / size
    noisier = None if predicted_noise is None else abs(found.trace_cov - predicted_noise) / noise
    known = [distance <= TOLERANCE for distance in (apart, noisier) if distance is not None]
    return {
        **setting,
        "relative bias": float((found.mean - target).norm()) / size,
        "predicted bias": "" if predicted is None else float((predicted - target).norm()) / size,
        "disagreement": "" if apart is None else apart,
        "noise": found.trace_cov / noise,
        "predicted noise": "" if predicted_noise is None else predicted_noise / noise,
        "holds": ("yes" if all(known) else "no") if known else "",
    }
