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


class Failure(NamedTuple):
    """Why something failed; ``usage`` if it is a setting that the user can mend."""

    reason: str
    usage: bool

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """That of an error which is no mistake in settings."""
        return cls(f"{type(error).__name__}: {' '.join(str(error).split())}", False)


class Outcome(NamedTuple):
    """How something ended: finished, if there is no failure."""

    failure: Failure | None
