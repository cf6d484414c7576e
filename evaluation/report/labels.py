"""Colours that the colour-blind tell apart, and names that a drawing shows and does not obey."""

from __future__ import annotations

from guards.printable import printable

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6BB1")
"""Source: Okabe and Ito, Color Universal Design, 2008; the last is ours."""


def label(name: str, limit: int = 40) -> str:
    """A name on one line, in which the drawing library reads no formula."""
    return printable(name, limit).replace("$", r"\$")
