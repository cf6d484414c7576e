"""Ranges of settings, written once, beside the field.

    @dataclass(frozen=True)
    class Config(Ranged):
        group_size: Annotated[int, at_least(2)] = 8
        beta: Annotated[float, at_least(0)] = 0.04

A value outside its range is refused wherever the dataclass is made: by a configuration file, which hears of every one
at once, and in code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, ends included unless open; of a list, every entry."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    finite: bool = True

    def __str__(self) -> str:
        """`at least 0`, `above 0 and finite`, `[0, 1)`."""
        if self.high < math.inf and self.low > -math.inf:
            return f"lie in {'(' if self.open_low else '['}{self.low}, {self.high}{')' if self.open_high else ']'}"
        if self.low > -math.inf:
            return f"be {'above' if self.open_low else 'at least'} {self.low}"
        if self.high < math.inf:
            return f"be {'below' if self.open_high else 'at most'} {self.high}"
        return "be finite"

    def fault(self, name: str, value: Any) -> str:
        """What is wrong with a value; empty where it lies in the range or is no number (None stands for 'none')."""
        numbers = value if isinstance(value, list | tuple) else [value]
        if all(self.holds(number) for number in numbers if isinstance(number, int | float)):
            return ""
        finite = " and be finite" if any(number in (math.inf, -math.inf) for number in numbers) else ""
        return f"{name} must {self}{finite if str(self) != 'be finite' else ''}, got {written(value)}"

    def holds(self, value: float) -> bool:
        """Whether one number lies in the range; NaN lies in none."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and (not self.finite or value not in (math.inf, -math.inf))


@dataclass(frozen=True)
class Matches:
    """A text that a pattern matches from end to end."""

    pattern: str
    words: str
    """What the text must be, as in `must be a span of time`."""

    def fault(self, name: str, value: Any) -> str:
        """What is wrong with a value; empty where it matches or is no text."""
        if not isinstance(value, str) or re.fullmatch(self.pattern, value, re.ASCII):
            return ""
        return f"{name} must be {self.words}, got {written(value)}"


@dataclass(frozen=True)
class OneOf:
    """A value that a `Literal` lists."""

    choices: tuple[Any, ...]

    def fault(self, name: str, value: Any) -> str:
        """What is wrong with a value; empty where it is one of them."""
        if value in self.choices:
            return ""
        return f"{name} must be one of {', '.join(map(str, self.choices))}; got {written(repr(value))}"


def at_least(low: float, *, finite: bool = True) -> Range:
    """`low` and more."""
    return Range(low, finite=finite)


def above(low: float, *, finite: bool = True) -> Range:
    """More than `low`."""
    return Range(low, open_low=True, finite=finite)


def between(low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> Range:
    """From `low` to `high`."""
    return Range(low, high, open_low, open_high)


FINITE = Range()
"""Any number but infinity and NaN."""


def written(value: Any) -> str:
    """A value in a message: short, also where it is a number of thousands of digits."""
    try:
        text = str(list(value)) if isinstance(value, tuple) else str(value) if value == value else "nan"
    except ValueError:  # Python writes no whole number of more than some thousand digits
        return "a number of very many digits"
    return text if len(text) <= 60 else f"{text[:40]}…{text[-10:]}"


def rules(annotation: Any) -> Iterator[Any]:
    """What stands in an annotation besides the type, and can tell a fault; of `X | None` also what stands at X."""
    if get_origin(annotation) is Annotated:
        inner, *extras = get_args(annotation)
        yield from (extra for extra in extras if hasattr(extra, "fault"))
        yield from rules(inner)
    elif get_origin(annotation) is Literal:
        yield OneOf(get_args(annotation))
    elif type(None) in get_args(annotation) and not any(get_origin(m) is Literal for m in get_args(annotation)):
        for member in get_args(annotation):
            yield from rules(member)


@cache
def rules_of(config: type) -> dict[str, Sequence[Any]]:
    """Field -> its ranges, those of the classes that it inherits from included: a new default keeps the range."""
    hints = [get_type_hints(base, include_extras=True) for base in config.__mro__ if is_dataclass(base)]
    found = {field.name: [rule for some in hints for rule in rules(some.get(field.name))] for field in fields(config)}
    return {name: tuple(dict.fromkeys(some)) for name, some in found.items()}


class Ranged:
    """Base of a dataclass whose ranges are checked when it is made; all that is wrong is said at once."""

    def __post_init__(self) -> None:
        """Refuse values outside their ranges.

        Raises:
            ValueError: names every such field, its range and its value.
        """
        found = [rule.fault(name, getattr(self, name)) for name, some in rules_of(type(self)).items() for rule in some]
        if any(found):
            raise ValueError("; ".join(filter(None, found)))
