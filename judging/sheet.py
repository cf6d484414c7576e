"""A judge's replies as verdicts, case by case: what every measure starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from judging.cases import DIMENSIONS, SIDES, other
from judging.messages import Mode
from judging.record import Line, Record, RecordError
from judging.verdicts import Reading, graded, ranked, released, strict


@dataclass(frozen=True)
class Judged:
    """One case and what a judge said of it.

    Attributes:
        about: a line of the record that stands for the case.
        given: what the main reading makes of the answers in the order given.
        strict: what the strict reading makes of the same reply.
        swapped: what the main reading makes of the swapped order, sides called as in the order given; None where the
            judge was not asked.
        reply: as it came, in the order given; of single answers, the first one's.
        truncated: a reply reached its limit.
    """

    about: Line
    given: Reading
    strict: Reading
    swapped: Reading | None
    reply: str
    truncated: bool


@dataclass(frozen=True)
class Sheet:
    """All cases of one judge.

    Attributes:
        name: of the judge, for tables.
        asked: what its replies follow from.
        cases: by organ and question id.
    """

    name: str
    asked: Mapping[str, Any]
    cases: tuple[Judged, ...]

    @property
    def mode(self) -> Mode:
        """In which mode the judge was asked."""
        return self.asked["mode"]

    @property
    def both_orders(self) -> bool:
        """Whether the answers were also shown swapped."""
        return all(case.swapped is not None for case in self.cases)


def load_sheets(folders: Sequence[Path]) -> list[Sheet]:
    """Read folders of replies; each judge has its folder's name, or whole path where two have the same name.

    Raises:
        RecordError: as of `load_sheet`.
    """
    names = [folder.name for folder in folders]
    return [load_sheet(folder, folder.name if names.count(folder.name) == 1 else str(folder)) for folder in folders]


def load_sheet(folder: Path, name: str = "") -> Sheet:
    """Read a folder of replies.

    Args:
        folder: as `judging.run` leaves it.
        name: of the judge; empty takes the folder's.

    Raises:
        RecordError: it is damaged, or replies are missing: what was not asked must not count as wrong.
    """
    record = Record(folder)
    asked, lines = record.asked(), record.lines()
    by_case: dict[tuple[str, str], dict[tuple[str, int], Line]] = {}
    for line in lines:
        by_case.setdefault((line.organ, line.question_id), {})[line.order, line.part] = line
    wanted = [("given", 0), ("given", 1)] if asked["mode"] == "score" else [("given", 0)]
    if any(line.order == "swapped" for line in lines):
        wanted.append(("swapped", 0))
    there = sum(key in held for held in by_case.values() for key in wanted)
    if there != asked["cases"] * len(wanted):
        raise RecordError(
            f"{folder}: {there} of {asked['cases'] * len(wanted)} replies are there, and what was not asked must not "
            "count as wrong; run the judge again to ask for the rest"
        )
    cases = tuple(judged(asked["mode"], by_case[key]) for key in sorted(by_case))
    return Sheet(name or folder.name or str(folder), asked, cases)


def judged(mode: Mode, held: Mapping[tuple[str, int], Line]) -> Judged:
    """One case of its replies, by order and part."""
    about = held["given", 0]
    truncated = any(line.truncated for line in held.values())
    if mode == "score":
        reading = graded((about.reply, held["given", 1].reply))
        return Judged(about, reading, reading, None, about.reply, truncated)
    read = released if mode == "pair" else ranked
    swapped = turned(read(held["swapped", 0].reply)) if ("swapped", 0) in held else None
    strictly = strict(about.reply) if mode == "pair" else read(about.reply)
    return Judged(about, read(about.reply), strictly, swapped, about.reply, truncated)


def turned(reading: Reading) -> Reading:
    """The reading with each side called by the other's name."""
    return replace(reading, verdicts={name: other(side) for name, side in reading.verdicts.items()})


@dataclass(frozen=True)
class Rows:
    """Verdicts as arrays, one row per case and dimension; -1 stands for no verdict, 0 for A, 1 for B.

    Attributes:
        truth: physicians'.
        given: in the order given.
        strict: the same, strictly read.
        swapped: in the swapped order, sides called as in the order given; None where it was not asked.
        longer: the longer answer; -1 where both have as many characters.
        difference: characters of the first answer minus those of the second.
        cluster: what goes together.
    """

    truth: np.ndarray
    given: np.ndarray
    strict: np.ndarray
    swapped: np.ndarray | None
    longer: np.ndarray
    difference: np.ndarray
    cluster: np.ndarray


def rows_of(cases: Sequence[Judged], dimensions: Sequence[str] = DIMENSIONS) -> Rows:
    """The verdicts of cases on dimensions, where one of the answers is better."""
    pairs = [(case, name) for case in cases for name in dimensions if name in case.about.truth]

    def coded(readings: Sequence[Mapping[str, str]]) -> np.ndarray:
        found = [SIDES.find(held.get(name, "-")) for held, (_, name) in zip(readings, pairs, strict=True)]
        return np.array(found, dtype=np.int64)

    both = all(case.swapped is not None for case in cases)
    difference = np.array([case.about.lengths[0] - case.about.lengths[1] for case, _ in pairs], dtype=np.int64)
    return Rows(
        coded([case.about.truth for case, _ in pairs]),
        coded([case.given.verdicts for case, _ in pairs]),
        coded([case.strict.verdicts for case, _ in pairs]),
        coded([case.swapped.verdicts for case, _ in pairs]) if both else None,
        np.where(difference > 0, 0, np.where(difference < 0, 1, -1)),
        difference,
        np.array([case.about.cluster for case, _ in pairs]),
    )
