"""A table of numbers that is written as CSV, for whoever computes with it, and shown on a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ablations.analysis.statistics import Interval

Value = str | int | float | Interval | None


class Column(NamedTuple):
    """
    Attributes:
        name: its heading; those of an interval's limits have ``low`` and ``high`` behind it.
        unit: stands in brackets behind the heading.
        form: how its numbers are written, for example ``.2f``.
        interval: whether its values have limits.
    """

    name: str
    unit: str = ""
    form: str = ""
    interval: bool = False

    @property
    def headings(self) -> list[str]:
        unit = f" ({self.unit})" if self.unit else ""
        return [f"{self.name}{which}{unit}" for which in (("", " low", " high") if self.interval else ("",))]

    def write(self, value: Value) -> list[str]:
        """The fields of a value: of an interval three. What is not known is empty."""
        if not self.interval:
            return [self._one(value)]
        if isinstance(value, Interval):
            return [self._one(x) for x in value]
        return [self._one(value), "", ""]

    def show(self, value: Value) -> str:
        """A value with its limits in brackets, if it has any that differ from it."""
        first, *limits = self.write(value)
        return first if not any(limits) or set(limits) == {first} else f"{first} [{', '.join(limits)}]"

    def _one(self, value: Value) -> str:
        if value is None or value != value:
            return ""
        return value if isinstance(value, str) else format(value, self.form)


@dataclass(frozen=True)
class Table:
    """
    Attributes:
        name: of its file, without the ending.
        heading: of the report's part that it belongs to.
        says: what stands in it, in a sentence for the report.
        guide: how to read its columns.
    """

    name: str
    heading: str
    says: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    guide: str = ""

    def csv(self) -> list[list[str]]:
        """The headings and the rows; without columns that are empty throughout."""
        rows = [
            [field for column, value in zip(self.columns, row, strict=True) for field in column.write(value)]
            for row in self.rows
        ]
        headings = [heading for column in self.columns for heading in column.headings]
        kept = [i for i in range(len(headings)) if any(row[i] for row in rows)]
        return [[row[i] for i in kept] for row in (headings, *rows)]

    def shown(self, names: Sequence[str]) -> list[list[str]]:
        """The headings and the rows of some columns, by name, each value in one field."""
        chosen = [i for i, column in enumerate(self.columns) if column.name in names]
        heading = [self.columns[i].headings[0] for i in chosen]
        return [heading, *([self.columns[i].show(row[i]) for i in chosen] for row in self.rows)]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table on a page."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def listed(items: Sequence[str]) -> str:
    """Some words in a sentence: a, b and c."""
    return " and ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)
