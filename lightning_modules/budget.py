"""Cutting rows into pieces that fit."""

from __future__ import annotations

from collections.abc import Sequence


def within_budget(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Cut rows into runs whose sizes add up to at most `budget`; a larger row stands alone.

    >>> within_budget([3, 4, 9, 2, 2], budget=7)
    [[0, 1], [2], [3, 4]]
    """
    parts: list[list[int]] = []
    filled = budget
    for row, size in enumerate(sizes):
        if not parts or filled + size > budget:
            parts.append([])
            filled = 0
        parts[-1].append(row)
        filled += size
    return parts
