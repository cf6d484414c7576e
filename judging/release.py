"""Med-RewardBench from a local folder: every row is part of a case, or a fault with its place."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datamodules.batch import BadExampleError
from datamodules.rows import Fault, Record
from judging.cases import ORGANS, RELEASED_CASES, Case
from judging.organ_files import OrganReader

FOLDERS = ("data/pair_gt_all", "pair_gt_all", "")
"""Where the organs' files may lie below the root."""
LAYOUT = (
    "Layout: pair_gt_all/<organ>.jsonl (question_id, human_answer) and pair_gt_all/parquet/<organ>.parquet (image, "
    "question, answer1_text, answer2_text, question_id, modality_type); <organ>.jsonl in place of the Parquet file, "
    "with the picture's file name as image, is read too"
)
OnBadRow = Literal["fail", "skip"]


@dataclass(frozen=True)
class Release:
    """What the files hold.

    Attributes:
        cases: usable ones, by organ and in the order of the files.
        faults: rows that cannot be used, and what was not read.
        notes: what is strange and costs nothing.
    """

    cases: tuple[Case, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]

    def usable(self, on_bad_row: OnBadRow = "fail") -> tuple[Case, ...]:
        """The cases, if none had to be left out or that is allowed; what is left out is told on stderr.

        Raises:
            BadExampleError: rows cannot be used and `on_bad_row` is `fail`, something was not read at all, or nothing
                is left.
        """
        unread = [fault for fault in self.faults if fault.unread]
        if unread:
            reason = (
                "files were not read, and on_bad_row: skip leaves out only what was (organs takes a part of the 13)"
            )
            raise BadExampleError(f"{reason}:\n  {shown(unread)}")
        if self.faults and on_bad_row == "fail":
            raise BadExampleError(
                f"{len(self.faults)} rows cannot be used (on_bad_row: skip leaves their cases out):\n  "
                f"{shown(self.faults)}"
            )
        if not self.cases:
            raise BadExampleError(f"no case is left of {len(self.faults)} faults:\n  {shown(self.faults)}")
        if self.faults:
            print(f"LEFT OUT for {len(self.faults)} rows:\n  {shown(self.faults)}", file=sys.stderr)
        for note in self.notes:
            print(f"note: {note}", file=sys.stderr)
        return self.cases


def read_release(
    root: Path, organs: Sequence[str] = (), allowed: Sequence[str] = (), *, decode: bool = True
) -> Release:
    """Read the organs' files; what cannot be used is collected, not raised.

    Args:
        root: folder of the release, or one that holds its `data/`.
        organs: to read; empty reads all 13.
        allowed: further folders into which links below the root may lead.
        decode: look at every picture whole; else only at how it begins, for judges that look at none.

    Raises:
        BadExampleError: an organ is unknown, no file is there, or Parquet lacks the package that reads it.
    """
    if strange := [organ for organ in organs if organ not in ORGANS]:
        raise BadExampleError(f"organs: {', '.join(map(repr, strange))} unknown; the release has {', '.join(ORGANS)}")
    folder = next((root / name for name in FOLDERS if list((root / name).glob("*.jsonl"))), None)
    if folder is None:
        raise BadExampleError(f"{root}: holds no file of the release. {LAYOUT}")
    cases: list[Case] = []
    faults: list[Fault] = []
    notes: list[str] = []
    places: dict[str, Record] = {}
    for organ in organs or ORGANS:
        reader = OrganReader(root, folder, organ, allowed, decode)
        cases += reader.cases()
        faults += reader.faults
        notes += reader.notes
        places |= reader.places
    strays = sorted(path.name for path in folder.glob("*.jsonl") if path.stem not in ORGANS)
    notes += [f"{folder / name}: is of no organ of the release, and not read" for name in strays]
    if not organs and not faults and len(cases) != RELEASED_CASES:
        notes.append(f"{len(cases)} cases, and the release has {RELEASED_CASES}")
    kept = apart(cases, places, faults, notes)
    return Release(tuple(kept), tuple(faults), tuple(notes))


def apart(cases: Sequence[Case], places: Mapping[str, Record], faults: list[Fault], notes: list[str]) -> list[Case]:
    """The cases without those that two organs hold, which would count twice.

    Ids that two organs use for different questions, as where each numbers its own, are noted only: scores are matched
    within an organ.
    """
    seen: dict[str, list[Case]] = {}
    kept, numbered = [], []
    for case in cases:
        before = seen.setdefault(case.question_id, [])
        shown_again = (case.question, case.answers, case.cluster)
        alike = [one for one in before if (one.question, one.answers, one.cluster) == shown_again]
        if alike:
            here, there = places[case.case_id], places[alike[0].case_id]
            reason = f"question_id {case.question_id!r}: the same case stands in {there.file}, row {there.row}"
            faults.append(Fault(here.file, here.row, f"{reason}; a case belongs to one organ"))
            continue
        if before:
            numbered.append(f"{case.question_id!r} ({before[0].organ}, {case.organ})")
        before.append(case)
        kept.append(case)
    if numbered:
        told = ", ".join(numbered[:3]) + (", …" if len(numbered) > 3 else "")
        notes.append(f"{len(numbered)} ids are used by two organs for different questions: {told}")
    return kept


def data_sha256(cases: Sequence[Case]) -> str:
    """The hash of everything that questions and scores follow from."""
    digest = hashlib.sha256()
    for case in cases:
        told = (case.case_id, case.question, case.answers, case.cluster, sorted(case.truth.items()))
        digest.update(repr((*told, sorted(case.tags.items()))).encode())
    return digest.hexdigest()


def shown(faults: Sequence[Fault], most: int = 10) -> str:
    """The first faults, one a line."""
    more = [f"… and {len(faults) - most} more"] if len(faults) > most else []
    return "\n  ".join([*map(str, faults[:most]), *more])
