"""What tests of ``estimate`` share."""

from pathlib import Path

from lit_rl.commands.early import checked
from lit_rl.commands.estimate import Estimate, estimated

PAGE = (Path(__file__).parents[1] / "docs/estimate.md").read_text()


def of(*args: str, memory: float = 1000.0) -> Estimate:
    """The estimate of a run by the arguments of ``fit``, on devices of so many GiB."""
    return estimated(checked(["fit", *args])[1:], memory)
