"""How a piece of work ended."""

from typing import NamedTuple


class Failure(NamedTuple):
    """Why something failed; ``usage`` if it is a setting that the user can fix."""

    reason: str
    usage: bool

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """That of an error which is no mistake in settings."""
        return cls(f"{type(error).__name__}: {' '.join(str(error).split())}", False)


class Outcome(NamedTuple):
    """How something ended: finished, if there is no failure."""

    failure: Failure | None
