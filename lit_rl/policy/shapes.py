"""Models as shapes: built from their configs on the meta device, where parameters hold no numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_alone: ContextVar[bool] = ContextVar("_alone", default=False)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Within, models that would be loaded are built as shapes; no weight is read."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def without_weights() -> bool:
    """Whether models are built as shapes."""
    return _alone.get()
