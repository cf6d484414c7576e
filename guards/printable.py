"""Text from files and users on its way to a terminal, a log or a report: nothing in it acts, and it stays short."""

from __future__ import annotations

import reprlib
from typing import Any

SHORT = reprlib.Repr()
SHORT.maxlevel, SHORT.maxdict, SHORT.maxlist, SHORT.maxtuple = 3, 4, 6, 6
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 200


def printable(text: object, limit: int = 200) -> str:
    r"""A text as one line that a terminal shows and does not obey.

    Args:
        text: anything; what is no text is made one by `str`.
        limit: characters of the result at most; what lies in the middle of a longer one is left out.

    Returns:
        The text with control characters, escape sequences, directional marks, line ends and halves of surrogate pairs
        written as backslash escapes.

    Examples:
        >>> printable("red \x1b[31m, λ and 图\n")
        'red \\x1b[31m, λ and 图\\n'
        >>> printable("a" * 50, limit=9)
        'aaaa…aaaa'
    """
    whole = str(text)
    if len(whole) > limit:  # before the escapes, so that a long text costs no more than a short one
        whole = f"{whole[:limit]}…{whole[-limit:]}"
    line = escaped(whole)
    if len(line) <= limit:
        return line
    head = limit // 2
    return f"{line[:head]}…{line[len(line) - (limit - head - 1) :]}"


def escaped(line: str) -> str:
    """A line with backslash escapes in place of all that is not printable."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


def printable_whole(text: object) -> str:
    r"""A report of which nothing is left out, each line of it printable.

    Examples:
        >>> printable_whole("| model\x1b[2J |\n| --- |")
        '| model\\x1b[2J |\n| --- |'
    """
    return "\n".join(map(escaped, str(text).split("\n")))


def printable_lines(text: object, limit: int = 800, most: int = 40) -> str:
    r"""A text of several lines, each of them printable; what lies beyond `most` lines is left out.

    Examples:
        >>> printable_lines("a\nb\x1b[2J")
        'a\nb\\x1b[2J'
    """
    lines = str(text).split("\n")
    left_out = [f"and {len(lines) - most} more lines"] if len(lines) > most else []
    return "\n".join([*(printable(line, limit) for line in lines[:most]), *left_out])


def shown(value: Any, limit: int = 80) -> str:
    """A value as it is written in code, short and safe to print.

    Examples:
        >>> shown({"a": [1, 2]})
        "{'a': [1, 2]}"
    """
    try:
        return printable(SHORT.repr(value), limit)
    except ValueError:  # Python writes no whole number of more than some thousand digits
        return f"a {type(value).__name__} that is too long to show"
