"""Some rows of a plan, by their numbers: a plan of a million tiles makes its rows when asked."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, overload


class Chosen(Sequence[Any]):
    """Rows that are to be run, in the order of the plan; some of them reduced."""

    def __init__(self, rows: Sequence[Any]) -> None:
        """Begin with none.

        Args:
            rows: Of the plan.
        """
        self._rows = rows
        self._numbers = array("q")
        self._reduced: dict[int, Any] = {}

    def take(self, number: int, reduced: Any = None) -> None:
        """Add a row of the plan, or the part of it that is given."""
        self._numbers.append(number)
        if reduced is not None:
            self._reduced[number] = reduced

    def __len__(self) -> int:
        """How many."""
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """One row, or a list of some."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = self._numbers[index]
        return self._reduced[number] if number in self._reduced else self._rows[number]
