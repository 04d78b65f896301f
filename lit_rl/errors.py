"""The exception for mistakes that the user can fix, and one that must not be taken for an end."""

from collections.abc import Callable
from functools import wraps
from typing import Any


class UsageError(Exception):
    """A wrong setting, file or server: printed as one line that names it and says what to do; exit code 2."""


def never_the_end(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, with a StopIteration that leaves it as a RuntimeError, as from a generator (PEP 479).

    Lightning's loops call what a user writes, and take its StopIteration for their own end: training would be a
    success after half an iteration.
    """

    @wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except StopIteration as error:
            raise RuntimeError(f"{method.__qualname__} raised StopIteration") from error

    return called


def usage_error(error: BaseException | None) -> UsageError | None:
    """The user's mistake behind an error, if there is one: the parser wraps what a constructor raises."""
    while error is not None and not isinstance(error, UsageError):
        error = error.__cause__ or error.__context__
    return error
