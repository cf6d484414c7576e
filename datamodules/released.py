"""Sets that others released: their files, their splits, their rows, and every bad row by file, row and reason."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from typing_extensions import override

from datamodules.base import SPLITS, VQADataModule, uniform_hash
from datamodules.batch import BadExampleError, Example, ImageSource, load_image
from datamodules.embedded import EmbeddedPicture, HubPicture, hub_rows
from datamodules.pictures import Paged, find_picture, inside_root
from datamodules.readers import SUFFIXES, read_rows
from datamodules.rows import Fault, Record

MAX_CHARACTERS = 50_000
"""Of question and options together: ten times the longest of any release known to us."""


@dataclass(frozen=True)
class Scan:
    """What the files of a set hold.

    Attributes:
        examples: split -> usable examples, in the order of the files.
        faults: the rows that cannot be used.
        places: question id -> (file, row) of every usable example.
        left_out: reason -> sound rows that were not asked for or may not be used in their split.
        files: split -> files that were read, relative to the root.
    """

    examples: Mapping[str, list[Example]]
    faults: Sequence[Fault]
    places: Mapping[str, tuple[str, int]]
    left_out: Mapping[str, int]
    files: Mapping[str, list[str]] = field(default_factory=dict)


class NotAskedError(Exception):
    """A sound row that the settings leave out; the text says why."""


class ReleasedSet(VQADataModule):
    """Questions from files whose authors gave the splits.

    A subclass says which files make a split (`files`) and turns a row into an `Example` (`example`). A picture that is
    in several splits stays in the one that is examined: such rows leave train (and val), and are counted. Where a
    release has no validation split, `val_fraction` of the training patients make one.
    """

    RELEASED: ClassVar[Mapping[str, int]] = {}
    """Subset -> questions in the release, to tell an incomplete copy."""
    IMAGE_FOLDERS: ClassVar[Sequence[str]] = ("images", "")
    """Where pictures may lie below the root; "" is the root itself."""
    HUB: ClassVar[Mapping[str, str]] = {}
    """Our split -> the hub's name for it, for sets that can be read through `datasets`."""

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """What every released set understands."""

        hub: str = ""
        """Hub id to read through the package `datasets` instead of `root`; empty reads the folder."""
        on_bad_row: Literal["fail", "skip"] = "fail"
        """Refuse a set with bad rows, or leave them out (also those whose picture is missing or does not open, for
        which every picture is decoded once) and say on stderr how many."""
        frames: Literal["refuse", "first", "middle"] = "refuse"
        """Files of several pages or frames: refuse them as bad rows, or show the first or the middle one."""
        shuffle_options: bool = False
        """Draw the order of the options per question; off, so that letters are those of the release."""

    @abstractmethod
    def files(self) -> Mapping[str, Sequence[Path]]:
        """Split -> its files; splits without files may be left out."""

    @abstractmethod
    def example(self, record: Record) -> Example:
        """Turn a row into an example.

        Raises:
            BadExampleError: the row cannot be used.
            NotAskedError: it is sound but not asked for.
        """

    @property
    def subset(self) -> str:
        """Names the part of the release that is read, as a table should name it."""
        return type(self).__name__

    @property
    def statement(self) -> dict[str, Any]:
        """The part of the release, how many questions the release has in it, and how many were found."""
        found = {name: len(held) for name, held in self.scan.examples.items() if held}
        return {"subset": self.subset, "released": self.RELEASED.get(self.subset), "found": found}

    def not_asked(self, reason: str) -> NotAskedError:
        """To be raised for a sound row that the settings leave out; it is counted under the reason."""
        return NotAskedError(reason)

    def picture(self, record: Record, *names: str) -> ImageSource:
        """The picture of a field: a file below the root, or one that stands in the row itself.

        Raises:
            BadExampleError: the field is no name, or the name leads out of the root.
        """
        value = record.get(*names)
        if isinstance(value, EmbeddedPicture | HubPicture):
            return replace(value, frames=self.config.frames)
        return self.file(record.text(*names))

    def file(self, name: str) -> ImageSource:
        """A picture file below the root; errors as of `find_picture`."""
        path = find_picture(self.root, self.IMAGE_FOLDERS, name)
        return path if self.config.frames == "refuse" else Paged(path, self.config.frames)

    def records(self) -> Iterator[tuple[str, Record | Fault]]:
        """Every row with its split."""
        if self.config.hub:
            if not self.HUB:
                raise BadExampleError(f"hub={self.config.hub!r}: {type(self).__name__} is read from a folder only")
            for split, name in self.HUB.items():
                yield from ((split, record) for record in hub_rows(self.config.hub, name))
            return
        files = self.files()
        if not any(files.values()):
            raise BadExampleError(f"root={self.config.root!r} holds no file of this set; {self.layout()}")
        for split, paths in files.items():
            for path in paths:
                inside_root(path, self.root)
                yield from ((split, record) for record in read_rows(path, self.root))

    def layout(self) -> str:
        """What the folder should look like: the paragraph of the class's description that begins with `Layout:`."""
        paragraphs = [" ".join(part.split()) for part in (type(self).__doc__ or "").split("\n\n")]
        return next((part for part in paragraphs if part.startswith("Layout:")), "Layout: see the class")

    @cached_property
    def scan(self) -> Scan:
        """Read everything; bad rows are collected, not raised."""
        rows: dict[str, Example] = {}
        split_of: dict[str, str] = {}
        places: dict[str, tuple[str, int]] = {}
        faults: list[Fault] = []
        left_out: Counter[str] = Counter()
        files: dict[str, dict[str, None]] = {name: {} for name in SPLITS}
        for split, record in self.records():
            files[split][record.file] = None
            try:
                example = self.checked(record, rows, places)
            except NotAskedError as reason:
                left_out[str(reason)] += 1
            except BadExampleError as error:
                faults.append(Fault(record.file, record.row, str(error)))
            else:
                rows[example.question_id] = example
                split_of[example.question_id] = split
                places[example.question_id] = (record.file, record.row)
        examples = self.separated(rows, split_of, left_out)
        return Scan(examples, tuple(faults), places, dict(left_out), {k: list(v) for k, v in files.items() if v})

    def checked(
        self, record: Record | Fault, rows: Mapping[str, Example], places: Mapping[str, tuple[str, int]]
    ) -> Example:
        """A row as an example that may be used.

        Raises:
            BadExampleError: it may not.
            NotAskedError: it is not asked for.
        """
        if isinstance(record, Fault):
            raise BadExampleError(record.reason)
        example = self.with_targets(self.example(record))
        if example.question_id in rows:
            file, row = places[example.question_id]
            raise BadExampleError(f"question_id {example.question_id!r} stands in {file}, row {row} already")
        length = len(example.question) + sum(map(len, example.options))
        if length > MAX_CHARACTERS:
            raise BadExampleError(f"question and options have {length} characters, over the limit of {MAX_CHARACTERS}")
        if self.config.on_bad_row == "skip":
            for source in example.images:
                load_image(source)
        return example

    def separated(
        self, rows: Mapping[str, Example], split_of: Mapping[str, str], left_out: Counter[str]
    ) -> dict[str, list[Example]]:
        """The rows by split: no patient in two, and a validation split where there is something to train on."""
        patients: dict[str, set[str]] = {name: set() for name in SPLITS}
        for key, example in rows.items():
            patients[split_of[key]].add(example.patient_id)
        carve = bool(patients["train"]) and not patients["val"]
        found: dict[str, list[Example]] = {name: [] for name in SPLITS}
        for key, example in rows.items():
            split, patient = split_of[key], example.patient_id
            examined = [name for name in ("test", "val") if patient in patients[name]]
            if examined and examined[0] != split:
                left_out[f"{split} rows whose picture is in {examined[0]} too"] += 1
                continue
            if carve and split == "train":
                drawn = uniform_hash("val", self.config.split_seed, patient) < self.config.val_fraction
                split = "val" if drawn else "train"
            found[split].append(example)
        return found

    @override
    def examples(self) -> Iterator[Example]:
        yield from (example for held in self.scan.examples.values() for example in held)

    @override
    def placed(self) -> Iterator[tuple[str, Example]]:
        faults = self.scan.faults
        total = len(faults) + len(self.scan.places)
        shown = "\n  ".join(map(str, faults[:10]))
        if faults and self.config.on_bad_row == "fail":
            raise BadExampleError(
                f"{len(faults)} of {total} rows cannot be used (on_bad_row: skip leaves them out):\n  {shown}"
            )
        if faults:
            print(f"specialty {self.specialty!r}: LEFT OUT {len(faults)} of {total} rows:\n  {shown}", file=sys.stderr)
        for split, held in self.scan.examples.items():
            yield from ((split, example) for example in held)

    @override
    def leave_out(self, unfit: Mapping[str, str]) -> None:
        faults = [Fault(*self.scan.places[name], reason) for name, reason in unfit.items()]
        total, shown = len(self.scan.places), "\n  ".join(map(str, faults[:10]))
        if self.config.on_bad_row == "fail":
            raise BadExampleError(
                f"specialty {self.specialty!r} (root={self.config.root!r}): the model cannot take {len(faults)} of "
                f"{total} rows (on_bad_row: skip leaves them out):\n  {shown}"
            )
        left = f"LEFT OUT {len(faults)} of {total} rows that the model cannot take"
        print(f"specialty {self.specialty!r}: {left}:\n  {shown}", file=sys.stderr)

    @override
    def expected_splits(self) -> Collection[str]:
        return [name for name in SPLITS if name in self.scan.files] if self.scan.files else SPLITS[-1:]


def split_files(root: Path, names: Iterable[str], folders: Sequence[str] = ("", "data")) -> list[Path]:
    """The files of a split in the first folder that has any: `test.jsonl`, `.json`, `.csv`, or shards of Parquet.

    Args:
        root: of the data set.
        names: spellings of the split, such as ("validation", "validate").
        folders: below the root.
    """
    for folder in folders:
        for name in names:
            paths = [root / folder / f"{name}{suffix}" for suffix in SUFFIXES]
            whole = [path for path in paths if path.is_file()]
            shards = sorted(path for stem in (name, f"{name}-*") for path in (root / folder).glob(f"{stem}.parquet"))
            if whole or shards:
                return whole[:1] or shards
    return []
