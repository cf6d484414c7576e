"""The candidates: every training question of every pool, with what is known of its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.build import build
from configs.schema import Component
from curation.ledger import Rejected
from curation.settings import Pool
from curation.specialties import UNASSIGNED, Assigned, Rule, assign
from datamodules.base import VQADataModule, uniform_hash
from datamodules.batch import BadExampleError
from datamodules.check.audit import Audit, Item, audit
from datamodules.row_set import RowSet
from datamodules.rows import Fault


@dataclass(frozen=True)
class Row:
    """A candidate.

    Attributes:
        id: pool's name and question's id.
        pool: its name.
        item: the question with its pictures.
        assigned: its specialty by the rules.
        specialty: the one that counts; that of the rules until a classifier decides.
    """

    id: str
    pool: str
    item: Item
    assigned: Assigned
    specialty: str

    def rejected(self, gate: str, reason: str, detail: str) -> Rejected:
        """This row as one that goes no further."""
        return Rejected(self.id, self.pool, self.item.example.question_id, self.specialty, gate, reason, detail)


@dataclass(frozen=True)
class Candidates:
    """What the pools hold.

    Attributes:
        rows: candidates in the order of the pools, then in hash order.
        unreadable: rows that are no question at all.
        examinations: questions of the pools' own test and validation splits.
    """

    rows: Sequence[Row]
    unreadable: Sequence[Rejected]
    examinations: Sequence[Item]


def read_pools(pools: Mapping[str, Pool], rules: Sequence[Rule], tag_points: int, limit: int) -> Candidates:
    """Read every pool and open every picture.

    Args:
        pools: name -> pool.
        rules: of the specialties; a pool's name is a tag `pool` to them.
        tag_points: as of `specialties.assign`.
        limit: candidates per pool; 0 takes all.

    Raises:
        BadExampleError: a pool cannot be read, is for examination only, or has no training question.
    """
    rows: list[Row] = []
    unreadable: list[Rejected] = []
    examinations: list[Item] = []
    for name, pool in pools.items():
        data = build(pool.data, specialty=f"pools.{name}")
        if data.TEST_ONLY:
            raise BadExampleError(f"pools.{name}: never a training set: {data.TEST_ONLY}")
        found = look_into(data)
        held = sorted(found.items.get("train", ()), key=lambda item: uniform_hash("order", item.example.question_id))
        if not held:
            raise BadExampleError(f"pools.{name}: there is no training question")
        for item in held[: limit or None]:
            tags = {**item.example.tags, "pool": name}
            assigned = assign(item.example, tags, rules, tag_points)
            rows.append(Row(f"{name}/{item.example.question_id}", name, item, assigned, assigned.specialty))
        if not limit:
            for fault in bad_rows(data, found):
                place = f"{fault.file}, row {fault.row}"
                detail = (UNASSIGNED, "usable", "bad_row", fault.reason)
                unreadable.append(Rejected(f"{name}/{place}", name, place, *detail))
        examinations += [item for split in ("test", "val") for item in found.items.get(split, ())]
    return Candidates(rows, unreadable, examinations)


def bad_rows(data: VQADataModule, found: Audit) -> list[Fault]:
    """The rows of a set's training files that are no question; those with a bad picture are candidates all the same."""
    if not isinstance(data, RowSet):
        return []
    files = data.scan.files.get("train", ())
    held = {(item.file, item.row) for items in found.items.values() for item in items}
    faults = (fault for fault in data.scan.faults if fault.row and fault.file in files)
    return [fault for fault in faults if (fault.file, fault.row) not in held]


def look_into(data: VQADataModule) -> Audit:
    """All that can be seen of a set, its pictures opened.

    Raises:
        BadExampleError: the set, or one of its files, cannot be read at all.
    """
    found = audit(data)
    items = [item for held in found.items.values() for item in held]
    of_pictures = {f"{item.example.question_id}: {p.reason}" for item in items for p in item.pictures if p.trouble}
    whole = [problem for problem in found.problems if problem.row == 0 and problem.reason not in of_pictures]
    if whole:
        raise BadExampleError(f"{data.specialty}: {whole[0]}")
    return found


def unusable(row: Row) -> tuple[str, str] | None:
    """Why a candidate cannot be a row of a set of closed questions about pictures that open; None if it can."""
    item = row.item
    bad = next((picture for picture in item.pictures if picture.trouble), None)
    if bad is not None:
        return f"picture_{bad.trouble}", bad.reason
    if not item.example.options:
        return "open_question", "traces of open questions cannot be checked by rule"
    return None


def read_examinations(test_sets: Mapping[str, Component]) -> list[Item]:
    """Every test and validation question of the sets that agents are examined on.

    Raises:
        BadExampleError: a set cannot be read, has no such question, or has rows or pictures that cannot be read (unless
            its on_bad_row is skip): nothing could be kept apart from them.
    """
    items: list[Item] = []
    for name, component in test_sets.items():
        found = look_into(build(component, specialty=f"test_sets.{name}"))
        held = [item for split in ("test", "val") for item in found.items.get(split, ())]
        if not held:
            raise BadExampleError(f"test_sets.{name}: there is no test question; is the folder right?")
        if not found.usable:
            first = (
                f"{len(found.problems)} rows cannot be compared (on_bad_row: skip gives them up): {found.problems[0]}"
            )
            raise BadExampleError(f"test_sets.{name}: {first}")
        items += held
    return items
