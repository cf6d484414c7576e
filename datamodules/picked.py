"""Items that are made when they are asked for, in an order that is known."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class Picked(Sequence[Item], Generic[Item]):
    """What a function gives for numbers, in their order; a slice is as lazy as the whole."""

    def __init__(self, give: Callable[[int], Item], numbers: Sequence[int]) -> None:
        """Ask for nothing yet.

        Args:
            give: the item of a number.
            numbers: in order, such as an array or a range.
        """
        self.give, self.numbers = give, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Picked(self.give, self.numbers[index])
        return self.give(self.numbers[index])

    def __iter__(self) -> Iterator[Item]:
        return map(self.give, self.numbers)

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has the same items in the same order."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None

    def __repr__(self) -> str:
        return f"Picked({len(self)} items)"


class Joined:
    """The items of several sequences by number, counted through all of them."""

    def __init__(self, parts: Sequence[Sequence]) -> None:
        """Keep them."""
        self.parts, self.starts = parts, [0, *accumulate(map(len, parts))]

    def __call__(self, number: int) -> Any:
        """The item of a number, at least 0."""
        part = bisect_right(self.starts, number) - 1
        return self.parts[part][number - self.starts[part]]


def joined(parts: Sequence[Sequence[Item]]) -> Picked[Item]:
    """Several sequences as one, one after the other; nothing is copied."""
    give = Joined(parts)
    return Picked(give, range(give.starts[-1]))
