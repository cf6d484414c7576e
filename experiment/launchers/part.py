"""Which part of an experiment's work a command does, where a launcher deals it out over several commands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Part:
    """All of an experiment, or what one job of several does of it.

    Attributes:
        trains_only: leave all that is made of finished runs to later jobs.
        merges_only: also make what is made in one place; leave what is dealt out in shares, and what follows it.
        share: (index from 0, count) of the share of the questions to answer; None for everything.
    """

    trains_only: bool = False
    merges_only: bool = False
    share: tuple[int, int] | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """A part as the command line gives it: `train`, `merge`, or `2/8` for the second of eight shares.

        Examples:
            >>> Part.read("2/8").share
            (1, 8)

        Raises:
            ValueError: it is none of these.
        """
        if text in ("train", "merge"):
            return cls(trains_only=text == "train", merges_only=text == "merge")
        found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text, re.ASCII)
        if found is None or int(found[1]) > int(found[2]):
            raise ValueError(f"expected train, merge, or I/N with 1 <= I <= N, got {text!r}")
        return cls(share=(int(found[1]) - 1, int(found[2])))


WHOLE = Part()
"""Everything, as one command does it that no launcher started."""
