"""What a worker tells its runner; apart, so that the runner need not import what a cell needs."""

from typing import NamedTuple


class Status(NamedTuple):
    """What a running cell is doing, or a line that it would say if the terminal were its own."""

    cell: str
    phase: str
    iteration: int
    iterations: int
    reward: float | None
    line: str = ""
