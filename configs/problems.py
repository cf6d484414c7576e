"""What is wrong with a configuration: every fault with its place, all of them in one short error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from guards.printable import printable

MANY = 20
"""Beyond this many keys, a message that has a suggestion does not list them all."""
LONGEST, ALL = 800, 3600
"""Bytes of one printed problem, and of all together; an error never floods a terminal or a log."""


@dataclass(frozen=True)
class Problem:
    """One fault in a configuration.

    Attributes:
        place: "file:line" or "command line".
        key: dotted key that carries the fault; empty where the whole file is at fault.
        value: what stands there; None where something is missing.
        message: what is wrong, with the values that are allowed.
        suggestion: what was probably meant; may be empty.
    """

    place: str
    key: str
    value: Any = None
    message: str = ""
    suggestion: str = ""

    def __str__(self) -> str:
        """`configs/rl_gba.yaml:7: module.init_args.temprature: unknown key; did you mean 'temperature'?`."""
        head = f"{printable(self.place)}: {printable(self.key)}: " if self.key else f"{printable(self.place)}: "
        line = printable(head + self.message + (f"; {self.suggestion}" if self.suggestion else ""), LONGEST)
        while len(line.encode()) > LONGEST:
            line = printable(line, len(line) * 3 // 4)
        return line


class ConfigError(ValueError):
    """Every problem of a configuration at once; `problems` holds them in reading order, `str` prints one per line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        files = list(dict.fromkeys(problem.place.partition(":")[0] for problem in problems))
        self.problems = tuple(sorted(problems, key=lambda problem: reading_order(problem.place, files)))
        lines, left = [], ALL
        for problem in self.problems[:left]:
            line = str(problem)
            left -= len(line.encode()) + 1
            if left < 0:
                break
            lines.append(line)
        more = len(self.problems) - len(lines)
        super().__init__("\n".join([*lines, f"and {more} more problems"] if more else lines))


def reading_order(place: str, files: Sequence[str]) -> tuple[int, int]:
    """Sorts places as one reads: file by file, line by line."""
    file, _, line = place.partition(":")
    return files.index(file), int(line) if line.isdigit() else 0


class Report(Protocol):
    """Takes one fault; the receiver knows where the key was written."""

    def __call__(self, key: str, value: Any, message: str, suggestion: str = "") -> None:
        """Note a fault at a dotted key."""


def nearest(word: str, options: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The option most like a word, or None when none is like it by more than `cutoff` (0 anything, 1 equal)."""
    return next(iter(difflib.get_close_matches(word[:100], list(options), n=1, cutoff=cutoff)), None)


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """'did you mean …?' with the nearest option, or an empty text when nothing is near.

    Examples:
        >>> did_you_mean("gruop_size", ["group_size", "beta"])
        "did you mean 'group_size'?"
        >>> did_you_mean("zzz", ["group_size", "beta"])
        ''
    """
    near = nearest(word, options)
    return f"did you mean {near!r}?" if near else ""


def unknown_key(word: str, options: Sequence[str], owner: str) -> tuple[str, str]:
    """Message and suggestion for a key that its owner does not have."""
    accepted = f"({owner} accepts: {', '.join(options)})" if options else f"({owner} accepts no keys)"
    near = did_you_mean(word, options)
    if near and len(options) > MANY:
        return "unknown key", near
    return ("unknown key", f"{near} {accepted}") if near else (f"unknown key {accepted}", "")
