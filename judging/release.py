"""Med-RewardBench from a local folder: every row is part of a case, or a fault with its place."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datamodules.assets import file_hash
from datamodules.batch import BadExampleError, ImageSource, PictureError, picture_size
from datamodules.embedded import EmbeddedPicture
from datamodules.places import find_picture, inside_root
from datamodules.readers import read_rows
from datamodules.rows import Fault, Record, shortened
from judging.cases import DIMENSIONS, ORGANS, RELEASED_CASES, SIDES, TAGS, Case

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


def read_release(root: Path, organs: Sequence[str] = (), allowed: Sequence[str] = ()) -> Release:
    """Read the organs' files; what cannot be used is collected, not raised.

    Args:
        root: folder of the release, or one that holds its `data/`.
        organs: to read; empty reads all 13.
        allowed: further folders into which links below the root may lead.

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
        reader = OrganReader(root, folder, organ, allowed)
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


class OrganReader:
    """The two files of one organ.

    Attributes:
        faults: of rows that were read so far.
        notes: what is strange and costs nothing.
        places: case id -> the row of its inputs.
    """

    def __init__(self, root: Path, folder: Path, organ: str, allowed: Sequence[str]) -> None:
        self.root, self.folder, self.organ, self.allowed = root, folder, organ, allowed
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self.places: dict[str, Record] = {}

    def cases(self) -> Iterator[Case]:
        """The cases whose two rows can be used."""
        truths = self.by_id(self.folder / f"{self.organ}.jsonl")
        inputs = self.by_id(self.input_file())
        for name, record in truths.items():
            if name not in inputs:
                self.fault(record, f"question_id {name!r} has no usable row among the inputs")
        for name, record in inputs.items():
            if name not in truths:
                self.fault(record, f"question_id {name!r} has no usable ground truth in {self.organ}.jsonl")
                continue
            place = truths[name]
            try:
                truth = self.truth(place)
                place = record
                case = self.case(name, record, truth)
                self.places[case.case_id] = record
                yield case
            except BadExampleError as error:
                self.fault(place, str(error))

    def fault(self, record: Record, reason: str) -> None:
        """Note that a row cannot be used."""
        self.faults.append(Fault(record.file, record.row, reason))

    def input_file(self) -> Path:
        """The Parquet file of the inputs, or the JSON lines in its place."""
        parquet, lines = (self.folder / "parquet" / f"{self.organ}.{suffix}" for suffix in ("parquet", "jsonl"))
        if parquet.exists() and lines.exists():
            reason = f"stands beside {lines.name}, and one of them must be meant; take one away"
            self.faults.append(Fault(f"parquet/{parquet.name}", 0, reason, 0, unread=True))
        return lines if lines.exists() and not parquet.exists() else parquet

    def by_id(self, path: Path) -> dict[str, Record]:
        """The rows of a file by their ids. Of rows that repeat an id and differ none can be trusted, nor kept."""
        found: dict[str, Record] = {}
        differing: set[str] = set()
        try:
            inside_root(path, self.root, self.allowed)
        except BadExampleError as error:
            self.faults.append(Fault(path.name, 0, str(error), 0, unread=True))
            return {}
        for record in read_rows(path, self.root):
            if isinstance(record, Fault):
                self.faults.append(record)
                continue
            try:
                name = record.text("question_id")
            except BadExampleError as error:
                self.fault(record, str(error))
                continue
            if name in found:
                first = found[name]
                alike = comparable(first) == comparable(record)
                told = "the same again" if alike else "and they differ, so that neither is used"
                self.fault(record, f"question_id {name!r} stands in row {first.row} already, {told}")
                differing |= set() if alike else {name}
                continue
            found[name] = record
        for name in differing:
            self.fault(found.pop(name), f"question_id {name!r} is repeated further down with other contents")
        return found

    def truth(self, record: Record) -> dict[str, str]:
        """The six preferences.

        Raises:
            BadExampleError: a dimension is missing, or is neither "A" nor "B".
        """
        held = record.get("human_answer")
        if not isinstance(held, dict):
            raise BadExampleError(f"human_answer is {shortened(held)}, expected an object of {', '.join(DIMENSIONS)}")
        strange = [key for key in held if key not in DIMENSIONS]
        if missing := [name for name in DIMENSIONS if name not in held]:
            beside = f"; it has {shortened(strange)} instead" if strange else ""
            raise BadExampleError(f"human_answer lacks {', '.join(missing)}{beside}")
        if wrong := {key: held[key] for key in DIMENSIONS if held[key] not in tuple(SIDES)}:
            raise BadExampleError(f"human_answer has {shortened(wrong)}, expected 'A' or 'B'")
        if strange:
            self.notes.append(f"{record.file}, row {record.row}: human_answer has {shortened(strange)} too; not used")
        return {name: held[name] for name in DIMENSIONS}

    def case(self, name: str, record: Record, truth: dict[str, str]) -> Case:
        """A row of the inputs with its truth.

        Raises:
            BadExampleError: a field is missing, the row is another organ's, or the picture cannot be used.
        """
        if (organ := record.text("modality_type")) != self.organ:
            raise BadExampleError(f"modality_type is {organ!r}, and the file is that of {self.organ!r}")
        picture, cluster = self.picture(record.get("image"))
        tags = {tag: str(record.get(tag)) for tag in TAGS if isinstance(record.get(tag), str | int)}
        question, *answers = (verbatim(record, key) for key in ("question", "answer1_text", "answer2_text"))
        return Case(self.organ, name, question, tuple(answers), picture, cluster, truth, tags)

    def picture(self, held: Any) -> tuple[ImageSource, str]:
        """A picture that opens, and the hash of its bytes.

        Raises:
            BadExampleError: there is none, or it does not open.
        """
        name = held.get("path") if isinstance(held, dict) else held
        if isinstance(held, EmbeddedPicture):
            picture, cluster = held, held.sha256
        elif isinstance(name, str):
            base = self.folder.relative_to(self.root).as_posix()
            folders = tuple(dict.fromkeys(("", "images", base, f"{base}/images", f"{base}/parquet")))
            picture = find_picture(self.root, folders, name, self.allowed)
            if not picture.is_file():
                raise PictureError("missing", f"image {name!r}: no such file below {self.root}")
            cluster = file_hash(picture)
        else:
            raise PictureError("missing", f"image is {shortened(held)}, expected a picture or a file's name")
        picture_size(picture)
        return picture, cluster


def verbatim(record: Record, name: str) -> str:
    """A text field exactly as it stands in the file, spaces at its ends included; errors as of `Record.text`."""
    record.text(name)
    return str(record.get(name))


def comparable(record: Record) -> dict[str, Any]:
    """What tells two rows apart: of pictures their bytes."""
    return {key: getattr(value, "sha256", value) for key, value in record.fields.items()}


def data_sha256(cases: Sequence[Case]) -> str:
    """Of everything that questions and scores follow from."""
    digest = hashlib.sha256()
    for case in cases:
        told = (case.case_id, case.question, case.answers, case.cluster, sorted(case.truth.items()))
        digest.update(repr((*told, sorted(case.tags.items()))).encode())
    return digest.hexdigest()


def shown(faults: Sequence[Fault], most: int = 10) -> str:
    """The first faults, one a line."""
    more = [f"… and {len(faults) - most} more"] if len(faults) > most else []
    return "\n  ".join([*map(str, faults[:most]), *more])
