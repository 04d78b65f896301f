"""What a worker tells its parent; apart, so that the parent need not import what a cell needs."""

from typing import NamedTuple


class Status(NamedTuple):
    """What a running cell is doing."""

    cell: str
    phase: str
    iteration: int
    iterations: int
    reward: float | None


class Failure(NamedTuple):
    """Why a cell failed; ``usage`` if it is a setting that the user can mend."""

    reason: str
    usage: bool
