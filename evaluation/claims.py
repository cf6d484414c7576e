"""A text as a sequence of claims about options, and what a sequence comes down to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

FINAL, VERDICT, LEANS = 2, 1, 0
"""Ranks of a claim: "the final answer is", a box; "the answer is", "is correct"; "fits best". A higher one counts."""


@dataclass(frozen=True)
class Claim:
    """One place in a text that settles something.

    Attributes:
        place: where it begins.
        options: indices of those that it is about; several for "A or B"; None among them where letter and text differ.
        rank: `FINAL`, `VERDICT` or `LEANS`.
        denied: it says what the answer is not.
        how: reason code of a reading that rests on it.
    """

    place: int
    options: frozenset[int | None]
    rank: int = VERDICT
    denied: bool = False
    how: str = "statement"


@dataclass(frozen=True)
class Rule:
    """What a claim looks like in a marked text.

    Attributes:
        pattern: its group `o` is the mark; a group `neg` that matched turns it into a denial.
        rank: of what it claims.
        behind: it ends behind the mark, so that words which follow may still take it back.
        denies: it says what the answer is not.
        letters: only letters, with or without their text, are heard.
    """

    pattern: re.Pattern[str]
    rank: int = VERDICT
    behind: bool = False
    denies: bool = False
    letters: bool = False


def settled(claims: Iterable[Claim], text: str, turn: re.Pattern[str]) -> tuple[int | None, str] | None:
    """What claims come down to: the last one, unless an earlier one that no turn took back says otherwise.

    Args:
        claims: in any order.
        text: the marked text.
        turn: words of revision; its group `all` takes back whatever was said before.

    Returns:
        (index, how it was said), or (None, reason); None where nothing is claimed.
    """
    ordered = sorted(claims, key=lambda claim: (claim.place, claim.rank))
    affirmed = [claim for claim in ordered if not claim.denied]
    if not affirmed:
        return (None, "negated") if ordered else None
    last = affirmed[-1]
    if any(match["all"] for match in turn.finditer(text, last.place)):
        return None, "conflict"
    if len(last.options) > 1 or None in last.options:
        return None, "conflict" if None in last.options else "several"
    for claim in ordered:
        differs = claim.options & last.options if claim.denied else claim.options != last.options
        outranked = claim.rank < last.rank and (claim.rank == LEANS or not claim.denied)
        first, second = sorted((claim.place, last.place))
        turned = claim.place < last.place and turn.search(text, first, second)
        if differs and not outranked and not turned:
            several = not claim.denied and len(claim.options) > 1
            return None, "several" if several else "conflict"
    (index,) = last.options
    return index, last.how
