"""The book of a curation: every row that came in either goes out or is written down with the gate and the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

GATES = ("usable", "repeats", "overlap", "specialty", "pass_rate", "traces")


@dataclass(frozen=True)
class Rejected:
    """A row that goes no further.

    Attributes:
        row: its id.
        pool: it came from.
        source_id: its name there.
        specialty: as far as it was known; "unassigned" before.
        gate: that it failed.
        reason: a word, to be counted.
        detail: the same for a reader.
    """

    row: str
    pool: str
    source_id: str
    specialty: str
    gate: str
    reason: str
    detail: str


@dataclass
class Ledger:
    """Counts and rejections, gate by gate."""

    rejected: list[Rejected] = field(default_factory=list)
    gates: dict[str, dict[str, Any]] = field(default_factory=dict)
    traces: dict[str, dict[str, Any]] = field(default_factory=dict)

    def close(self, gate: str, came: Mapping[str, str], rejected: Sequence[Rejected]) -> None:
        """Note what a gate did.

        Args:
            gate: one of `GATES`.
            came: row id -> specialty of every row that came to it.
            rejected: the rows that it stopped.

        Raises:
            RuntimeError: a row was rejected that did not come, or twice: a defect of ours.
        """
        gone = {one.row: one for one in rejected}
        if len(gone) != len(rejected) or not set(gone) <= set(came):
            raise RuntimeError(f"gate {gate}: {len(rejected)} rejections do not fit the {len(came)} rows that came")
        self.rejected += rejected
        entry: dict[str, Any] = {"in": len(came), "out": len(came) - len(gone)}
        entry["rejected"] = dict(sorted(Counter(one.reason for one in rejected).items()))
        entry["by_specialty"] = {}
        for specialty in sorted(set(came.values())):
            rows = [row for row, name in came.items() if name == specialty]
            reasons = Counter(gone[row].reason for row in rows if row in gone)
            out = sum(row not in gone for row in rows)
            entry["by_specialty"][specialty] = {"in": len(rows), "out": out, "rejected": dict(sorted(reasons.items()))}
        self.gates[gate] = entry

    def note_trace(self, guideline: str, outcome: str, kind: str) -> None:
        """Count one reply of the teacher: "accepted", "rejected" or "unknown", and why."""
        entry = self.traces.setdefault(guideline, {"in": 0, "accepted": 0, "rejected": Counter(), "unknown": Counter()})
        entry["in"] += 1
        if kind == "accepted":
            entry["accepted"] += 1
        else:
            entry[kind][outcome] += 1


def imbalance(counts: Mapping[str, Any], kept: Mapping[str, int], rejected: int) -> list[str]:
    """Where a set's counts do not add up; empty when they do.

    Args:
        counts: as in counts.json.
        kept: specialty -> rows that are there.
        rejected: rows in rejected.jsonl.
    """
    wrong = []
    for gate, entry in counts["gates"].items():
        parts = list(entry["by_specialty"].values())
        sums = {side: sum(part[side] for part in parts) for side in ("in", "out")}
        if sums != {side: entry[side] for side in sums} or any(map(lost, [entry, *parts])):
            wrong.append(f"{gate}: what came in is not what went out and what was rejected: {entry}")
    for (before, one), (after, other) in pairwise(counts["gates"].items()):
        if one["out"] != other["in"]:
            wrong.append(f"{one['out']} went out of {before}, but {other['in']} came to {after}")
    last = counts["gates"][GATES[-1]]["by_specialty"]
    going = {name: part["out"] for name, part in last.items() if part["out"]}
    if going != dict(kept):
        wrong.append(f"{going} went out of the last gate, but {dict(kept)} are there")
    total = sum(sum(entry["rejected"].values()) for entry in counts["gates"].values())
    if total != rejected:
        wrong.append(f"the gates rejected {total}, but {rejected} rejections are written")
    for guideline, entry in counts["traces"].items():
        if entry["in"] != entry["accepted"] + sum(entry["rejected"].values()) + sum(entry["unknown"].values()):
            wrong.append(f"traces of {guideline}: {entry} do not add up")
    return wrong


def lost(part: Mapping[str, Any]) -> bool:
    """Whether rows came to a gate and neither passed it nor were rejected."""
    return part["in"] != part["out"] + sum(part["rejected"].values())
