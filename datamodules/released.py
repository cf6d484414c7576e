"""Sets that others released: their files, their splits, their rows, and every bad row by file, row and reason."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from datamodules.base import SPLITS, uniform_hash
from datamodules.batch import BadExampleError, ImageSource
from datamodules.embedded import EmbeddedPicture, HubPicture, hub_rows
from datamodules.readers import SUFFIXES
from datamodules.regular import present
from datamodules.row_set import RowSet
from datamodules.rows import Fault, Record
from datamodules.store import Store

SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\b.*")


class ReleasedSet(RowSet):
    """Questions from files whose authors gave the splits.

    A subclass says which files make a split (`files`) and turns a row into an `Example` (`example`). A picture that is
    in several splits stays in the one that is examined: such rows leave train (and val), and are counted. Where a
    release has no validation split, `val_fraction` of the training patients make one.
    """

    RELEASED: ClassVar[Mapping[str, int]] = {}
    """Subset -> questions in the release, to tell an incomplete copy."""
    HUB: ClassVar[Mapping[str, str]] = {}
    """Our split -> the hub's name for it, for sets that can be read through `datasets`."""

    @dataclass(frozen=True)
    class Config(RowSet.Config):
        """What every released set understands."""

        hub: str = ""
        """Hub id to read through the package `datasets` instead of `root`; empty reads the folder."""
        shuffle_options: bool = False
        """Draw the order of the options per question; off, so that letters are those of the release."""

    @property
    @override
    def statement(self) -> dict[str, Any]:
        return {**super().statement, "released": self.RELEASED.get(self.subset)}

    def picture(self, record: Record, *names: str) -> ImageSource:
        """The picture of a field: a file below the root, or one that stands in the row itself.

        Raises:
            BadExampleError: the field is no name, or the name leads out of the root.
        """
        value = record.get(*names)
        if isinstance(value, EmbeddedPicture | HubPicture):
            return replace(value, frames=self.config.frames)
        return self.file(record.text(*names))

    @override
    def records(self) -> Iterator[tuple[str, Record | Fault]]:
        if not self.config.hub:
            yield from super().records()
            return
        if not self.HUB:
            raise BadExampleError(f"hub={self.config.hub!r}: {type(self).__name__} is read from a folder only")
        for split, name in self.HUB.items():
            yield from ((split, record) for record in hub_rows(self.config.hub, name))

    @override
    def separated(self, store: Store, split_of: Sequence[str], left_out: Counter[str]) -> dict[str, array[int]]:
        """The examples by split: no patient in two, and a validation split where there is something to train on."""
        patients: dict[str, set[str]] = {name: set() for name in ("test", "val")}
        for number, split in enumerate(split_of):
            if split in patients:
                patients[split].add(store[number].patient_id)
        carve = "train" in split_of and not patients["val"]
        found = {name: array("Q") for name in SPLITS}
        for number, split in enumerate(split_of):
            if not split:
                continue
            patient = store[number].patient_id
            examined = [name for name in patients if patient in patients[name]]
            if examined and examined[0] != split:
                left_out[f"{split} rows whose picture is in {examined[0]} too"] += 1
                continue
            if carve and split == "train":
                drawn = uniform_hash("val", self.config.split_seed, patient) < self.config.val_fraction
                split = "val" if drawn else "train"
            found[split].append(number)
        return found


def split_files(root: Path, names: Iterable[str], folders: Sequence[str] = ("", "data")) -> list[Path]:
    """The files of a split in the first folder that has any: `test.jsonl`, .json, .csv, .tsv, or shards of Parquet.

    Shards that are missing among the others are among them, to be told.

    Args:
        root: of the data set.
        names: spellings of the split, such as ("validation", "validate").
        folders: below the root.
    """
    for folder in folders:
        for name in names:
            paths = [root / folder / f"{name}{suffix}" for suffix in SUFFIXES]
            whole = [path for path in paths if present(path)]
            shards = sorted(path for stem in (name, f"{name}-*") for path in (root / folder).glob(f"{stem}.parquet"))
            if whole or shards:
                return whole[:1] or [*shards, *missing_shards(shards)]
    return []


def missing_shards(shards: Sequence[Path]) -> list[Path]:
    """The shards that the names of the others say there are: `train-00001-of-00003.parquet`."""
    named = [(path, found) for path in shards if (found := SHARD.fullmatch(path.stem))]
    held = {(found[1], int(found[2]), found[3]) for _, found in named}
    return [
        named[0][0].with_name(f"{stem}-{number:05}-of-{total}.parquet")
        for stem, total in sorted({(stem, total) for stem, _, total in held})
        for number in range(int(total))
        if (stem, number, total) not in held
    ]
