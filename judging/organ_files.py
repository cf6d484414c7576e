"""The two files of one organ in the release: rows that fit together are cases, all others faults with their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datamodules.assets import file_hash
from datamodules.batch import BadExampleError, ImageSource, PictureError, load_image, picture_size
from datamodules.embedded import EmbeddedPicture
from datamodules.places import find_picture, inside_root
from datamodules.readers import read_rows
from datamodules.rows import Fault, Record, shortened
from judging.cases import DIMENSIONS, SIDES, TAGS, Case


class OrganReader:
    """The two files of one organ.

    Attributes:
        faults: of rows that were read so far.
        notes: what is strange and costs nothing.
        places: case id -> the row of its inputs.
    """

    def __init__(self, root: Path, folder: Path, organ: str, allowed: Sequence[str], decode: bool) -> None:
        self.root, self.folder, self.organ, self.allowed, self.decode = root, folder, organ, allowed, decode
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
        (load_image if self.decode else picture_size)(picture)
        return picture, cluster


def verbatim(record: Record, name: str) -> str:
    """A text field exactly as it stands in the file, spaces at its ends included; errors as of `Record.text`."""
    record.text(name)
    return str(record.get(name))


def comparable(record: Record) -> dict[str, Any]:
    """What tells two rows apart: of pictures their bytes."""
    return {key: getattr(value, "sha256", value) for key, value in record.fields.items()}
