"""What merging did to every expert, read from the reports that the merges left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.costs import read
from evaluation.report_files import Table

FILES = ("merged/*/conflict.json", "merged/*/rejected/conflict.json")
HEADER = ["method", "expert", "length", "retention", "interference", "survival"]
CAPTION = (
    "Retention: the share of the expert's update that the agent keeps in the expert's own direction (1: as strong as "
    "alone; below 0: the agent moves against it). Interference: what the others add on the expert's own inputs (0: "
    "undisturbed). Survival: the share of its entries that the method kept."
)


@dataclass(frozen=True)
class Conflicts:
    """All merges of one experiment.

    Attributes:
        table: every expert under every method.
        gates: method -> the gates' verdict, and what they say.
    """

    table: Table
    gates: Mapping[str, tuple[str, list[str]]]


def conflicts_of(folder: Path) -> Conflicts | None:
    """Read the reports below an experiment's folder; None where there are none.

    Raises:
        ValueError: one is damaged; names it.
    """
    rows, gates = [], {}
    for file in sorted(file for pattern in FILES for file in folder.glob(pattern)):
        method = file.parent.relative_to(folder / "merged").as_posix()
        found = read(file) or {}
        try:
            for name in found["names"]:
                one = found["experts"][name]
                figures = (one[key] for key in ("norm", "retention", "interference", "survival"))
                rows.append([method, name, *("-" if value is None else f"{value:.3f}" for value in figures)])
            gates[method] = said(found)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: is damaged ({type(error).__name__}: {error})") from error
    return Conflicts(Table(HEADER, rows, CAPTION, names=2), gates) if rows else None


def said(found: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Verdict of the gates, and all that they and the report say."""
    gates = found["gates"]
    told = [f"{gate['verdict']}: {gate['text']}" for gate in gates["gates"]]
    return str(gates["verdict"]), told + [f"report: {finding}" for finding in found["findings"]]
