"""Sets whose questions are rows of files: every row is a question, left out by name, or a fault with its place."""

from __future__ import annotations

import sys
from abc import abstractmethod
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from typing_extensions import override

from datamodules.base import SPLITS, VQADataModule
from datamodules.batch import BadExampleError, Example, ImageSource
from datamodules.decoding import Encoding
from datamodules.hashes import bad_pictures
from datamodules.picked import Picked
from datamodules.pictures import Paged
from datamodules.places import find_picture, inside_root
from datamodules.readers import read_rows
from datamodules.rows import Fault, Record, RowCount
from datamodules.store import Store

MAX_CHARACTERS = 50_000
"""Of question and options together: ten times the longest of any release known to us."""
BY_PATIENT = ""
"""Stands for a split in `files`: the rows are split by a hash of their patients."""


class Places:
    """Where the examples of a store are from: question id -> (file, row) of those that are usable."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.names: list[str] = []  # of the files, in the order in which they were read
        self.files, self.rows = array("I"), array("Q")  # of an example by its number
        self.gone: set[int] = set()

    def __len__(self) -> int:
        return len(self.files) - len(self.gone)

    def __getitem__(self, question_id: str) -> tuple[str, int]:
        place = self.get(question_id)
        if place is None:
            raise KeyError(question_id)
        return place

    def get(self, question_id: str, default: Any = None) -> Any:
        """(file, row) of an example, or the default where there is no such one."""
        number = self.store.number_of(question_id)
        if number is None or number in self.gone:
            return default
        return self.file(number), self.rows[number]

    def file(self, number: int) -> str:
        """The file of an example by its number in the store."""
        return self.names[self.files[number]]

    def note(self, file: str, row: int) -> None:
        """Say where the next example of the store is from."""
        if not self.names or self.names[-1] != file:
            self.names.append(file)
        self.files.append(len(self.names) - 1)
        self.rows.append(row)

    def take(self, question_id: str) -> tuple[str, int]:
        """The place of an example that is usable no longer."""
        place = self[question_id]
        self.gone.add(self.store.number_of(question_id))
        return place


@dataclass(frozen=True)
class Scan:
    """What the files of a set hold.

    Attributes:
        store: every example that was read, also those that are left out.
        examples: split -> usable examples, in the order of the files.
        faults: the rows that cannot be used, and what was not read.
        places: question id -> (file, row) of every usable example.
        left_out: reason -> sound rows that were not asked for or may not be used in their split.
        files: split -> files that were read, relative to the root.
        rows: file -> what became of its rows.
        by_patient: whether rows are split by their patients.
    """

    store: Store
    examples: Mapping[str, Picked[Example]]
    faults: Sequence[Fault]
    places: Places
    left_out: Mapping[str, int]
    files: Mapping[str, list[str]] = field(default_factory=dict)
    rows: Mapping[str, RowCount] = field(default_factory=dict)
    by_patient: bool = False

    @property
    def all_rows(self) -> RowCount:
        """What became of the rows of all files."""
        return sum(self.rows.values(), RowCount())


class NotAskedError(Exception):
    """A sound row that the settings leave out; the text says why."""


class RowSet(VQADataModule):
    """Questions from files of rows: CSV, TSV, JSON lines, a JSON list, Parquet.

    A subclass says which files there are (`files`) and turns a row into an `Example` (`example`).
    """

    IMAGE_FOLDERS: ClassVar[Sequence[str]] = ("images", "")
    """Where pictures may lie below the root; "" is the root itself."""

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """What every set of rows understands."""

        on_bad_row: Literal["fail", "skip"] = "fail"
        """Refuse a set with bad rows, or leave them out (also those whose picture is missing or does not open, for
        which every picture is decoded once) and say on stderr how many. What was not read at all is always refused."""
        frames: Literal["refuse", "first", "middle"] = "refuse"
        """Files of several pages or frames: refuse them as bad rows, or show the first or the middle one."""
        encoding: Encoding = "utf-8"
        """The encoding of text files without a byte order mark; cp1252 is what older spreadsheets write."""

    @abstractmethod
    def files(self) -> Mapping[str, Sequence[Path]]:
        """Split -> its files; splits without files may be left out, `BY_PATIENT` takes those that hold all splits."""

    @abstractmethod
    def example(self, record: Record) -> Example:
        """Turn a row into an example.

        Raises:
            BadExampleError: the row cannot be used.
            NotAskedError: it is sound but not asked for.
        """

    @property
    def subset(self) -> str:
        """Names what is read, as a table should name it."""
        return type(self).__name__

    @property
    def statement(self) -> dict[str, Any]:
        """What is read, how many questions its release has (None: nobody says), and how many were found."""
        found = {name: len(held) for name, held in self.scan.examples.items() if held}
        return {"subset": self.subset, "released": None, "found": found}

    def not_asked(self, reason: str) -> NotAskedError:
        """To be raised for a sound row that the settings leave out; it is counted under the reason."""
        return NotAskedError(reason)

    def file(self, name: str) -> ImageSource:
        """A picture file below the root; errors as of `find_picture`."""
        path = find_picture(self.root, self.IMAGE_FOLDERS, name, self.config.allowed_roots)
        return path if self.config.frames == "refuse" else Paged(path, self.config.frames)

    def records(self) -> Iterator[tuple[str, Record | Fault]]:
        """Every row with its split, or `BY_PATIENT`.

        Raises:
            BadExampleError: there is no file.
        """
        files = self.files()
        if not any(files.values()):
            raise BadExampleError(f"root={self.config.root!r} holds no file of this set; {self.layout()}")
        for split, paths in files.items():
            for path in paths:
                yield from ((split, record) for record in self.rows_in(path))

    def rows_in(self, path: Path) -> Iterator[Record | Fault]:
        """The rows of one file, which must lie where files of the set may lie."""
        try:
            inside_root(path, self.root, self.config.allowed_roots)
        except BadExampleError as error:
            name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
            yield Fault(name, 0, str(error), 0, unread=True)
            return
        yield from read_rows(path, self.root, self.config.encoding)

    def layout(self) -> str:
        """What the folder should look like: the paragraph of the class's description that begins with `Layout:`."""
        paragraphs = [" ".join(part.split()) for part in (type(self).__doc__ or "").split("\n\n")]
        return next((part for part in paragraphs if part.startswith("Layout:")), "Layout: see the class")

    @cached_property
    def scan(self) -> Scan:
        """Read everything; bad rows are collected, not raised."""
        if isinstance(self.same_rows, RowSet):
            return self.same_rows.scan
        store = Store(self.memory)
        places = Places(store)
        split_of: list[str] = []  # by the example's number; empty where it is left out
        faults: list[Fault] = []
        left_out: Counter[str] = Counter()
        seen: Counter[str] = Counter()  # sound rows by file
        files: dict[str, dict[str, None]] = {name: {} for name in SPLITS}
        by_patient = False
        for named, record in self.records():
            split, by_patient = named or "train", by_patient or not named
            try:
                example = self.checked(record, places)
                seen[record.file] += 1
                split = named or self.split_of(example.patient_id)
            except NotAskedError as reason:
                seen[record.file] += 1
                left_out[str(reason)] += 1
            except BadExampleError as error:
                faults.append(record if isinstance(record, Fault) else Fault(record.file, record.row, str(error)))
            else:
                store.add(example)
                split_of.append(split)
                places.note(record.file, record.row)
            files[split][record.file] = None
        if self.config.on_bad_row == "skip":
            for key, reason in bad_pictures(store, self.memory).items():
                faults.append(Fault(*places.take(key), reason))
                seen[faults[-1].file] -= 1
                split_of[store.number_of(key)] = ""
        numbers = self.separated(store, split_of, left_out)
        examples = {name: Picked(store.__getitem__, held) for name, held in numbers.items()}
        read = Counter(places.file(number) for held in numbers.values() for number in held)
        unread, bad = ({name: 0 for held in files.values() for name in held} for _ in range(2))
        for fault in faults:
            (unread if fault.unread else bad)[fault.file] += fault.rows
        counts = {name: RowCount(read[name], bad[name], seen[name] - read[name], unread[name]) for name in bad}
        held_files = {split: list(held) for split, held in files.items() if held}
        return Scan(store, examples, tuple(faults), places, dict(left_out), held_files, counts, by_patient)

    def checked(self, record: Record | Fault, places: Places) -> Example:
        """A row as an example that may be used.

        Raises:
            BadExampleError: it may not.
            NotAskedError: it is not asked for.
        """
        if isinstance(record, Fault):
            raise BadExampleError(record.reason)
        example = self.with_targets(self.example(record))
        if (place := places.get(example.question_id)) is not None:
            file, row = place
            raise BadExampleError(f"question_id {example.question_id!r} stands in {file}, row {row} already")
        length = len(example.question) + sum(map(len, example.options))
        if length > MAX_CHARACTERS:
            raise BadExampleError(f"question and options have {length} characters, over the limit of {MAX_CHARACTERS}")
        return example

    def separated(self, store: Store, split_of: Sequence[str], left_out: Counter[str]) -> dict[str, array[int]]:
        """The numbers of the examples by split; a set whose splits share patients overrides this.

        Args:
            store: every example.
            split_of: of each, as its file or row has it; empty where it is not used.
            left_out: counts what this leaves out, by reason.
        """
        found = {name: array("Q") for name in SPLITS}
        for number, split in enumerate(split_of):
            if split:
                found[split].append(number)
        return found

    @override
    def examples(self) -> Iterator[Example]:
        yield from (example for held in self.scan.examples.values() for example in held)

    @override
    def collected(self) -> tuple[Store, dict[str, Sequence[int]]]:
        with self.named():
            scan = self.scan
            self.refuse_or_tell(scan)
        return scan.store, {split: held.numbers for split, held in scan.examples.items()}

    def refuse_or_tell(self, scan: Scan) -> None:
        """Refuse a set with bad rows, or say on stderr which are left out.

        Raises:
            BadExampleError: rows are bad and not to be left out, or were not read.
        """
        bad = [fault for fault in scan.faults if not fault.unread]
        unread = [fault for fault in scan.faults if fault.unread]
        count = scan.all_rows
        if unread:
            rows = f"{count.unread} of {count.rows} rows were not read" if count.unread else "rows may be missing"
            raise BadExampleError(
                f"{rows}, and on_bad_row: skip leaves out only what was read ({count}):\n  {shown([*unread, *bad])}"
            )
        if bad and self.config.on_bad_row == "fail":
            raise BadExampleError(
                f"{count.bad} of {count.rows} rows cannot be used (on_bad_row: skip leaves them out):\n  {shown(bad)}"
            )
        if bad:
            where = f"specialty {self.specialty!r}: LEFT OUT {count.bad} of {count.rows} rows"
            print(f"{where}:\n  {shown(bad)}", file=sys.stderr)

    @override
    def leave_out(self, unfit: Mapping[str, str]) -> None:
        faults = [Fault(*self.scan.places[name], reason) for name, reason in unfit.items()]
        count = f"{len(faults)} of {self.scan.all_rows.rows} rows"
        if self.config.on_bad_row == "fail":
            raise BadExampleError(
                f"specialty {self.specialty!r} (root={self.config.root!r}): the model cannot take {count} "
                f"(on_bad_row: skip leaves them out):\n  {shown(faults)}"
            )
        where = f"specialty {self.specialty!r}: LEFT OUT {count} that the model cannot take"
        print(f"{where}:\n  {shown(faults)}", file=sys.stderr)

    @override
    def expected_splits(self) -> Collection[str]:
        if self.scan.by_patient:
            return super().expected_splits()
        return [name for name in SPLITS if name in self.scan.files] if self.scan.files else SPLITS[-1:]


def shown(faults: Sequence[Fault], most: int = 10) -> str:
    """The first faults, one a line."""
    lines = [*map(str, faults[:most]), *([f"… and {len(faults) - most} more"] if len(faults) > most else [])]
    return "\n  ".join(lines)
