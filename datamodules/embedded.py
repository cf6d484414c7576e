"""Rows that carry their pictures: Parquet files, and a hub's data sets. Both need packages that nothing else needs."""

from __future__ import annotations

import hashlib
import importlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from datamodules.batch import BadExampleError, ImageSource, Look, Seen, load_image, looked_at
from datamodules.rows import Fault, Record
from datamodules.shown import Frames
from datamodules.stored_cells import class_names, plain_cells, written_features

ROWS_AT_ONCE = 64
"""Of a saved data set, with the bytes of their pictures."""


@dataclass(frozen=True)
class EmbeddedPicture:
    """A picture inside a Parquet file, read when it is looked at.

    Attributes:
        path: the file.
        group: row group.
        index: row within it.
        column: name of the picture column.
        sha256: of its bytes, so that equal pictures are known without decoding them.
        frames: what is done with several pages.
        place: in a cell that holds a list of pictures; -1 where it holds one.
    """

    path: Path
    group: int
    index: int
    column: str
    sha256: str
    frames: Frames = "refuse"
    place: int = -1

    def __call__(self) -> Image.Image:
        """Decode it."""
        return load_image(self)

    def look_at(self, look: Look[Seen]) -> Seen:
        """As of `datamodules.batch.opened`."""
        held = picture_column(self.path, self.group, self.column)[self.index]
        name = f"{self.path}: row {self.index + 1} of group {self.group}, {self.column}"
        return looked_at(io.BytesIO(picture_bytes(held, self.place)), name, look)


@dataclass(frozen=True)
class HubPicture:
    """A picture of a hub's data set, read when it is looked at; equal where its bytes are."""

    sha256: str
    dataset: Any = field(compare=False, repr=False)
    index: int = field(compare=False)
    column: str = field(compare=False)
    frames: Frames = "refuse"
    place: int = field(compare=False, default=-1)

    def __call__(self) -> Image.Image:
        """Decode it."""
        return load_image(self)

    def look_at(self, look: Look[Seen]) -> Seen:
        """As of `datamodules.batch.opened`."""
        (held,) = self.dataset[self.index][self.column].to_pylist()
        content = picture_bytes(held, self.place)
        return looked_at(io.BytesIO(content), f"{self.column} of row {self.index + 1}", look)


@lru_cache(maxsize=2)
def picture_column(path: Path, group: int, column: str) -> list[dict[str, Any]]:
    """The picture cells of one row group."""
    return parquet_reader().ParquetFile(path).read_row_group(group, columns=[column])[column].to_pylist()


def parquet_reader() -> ModuleType:
    """The package that reads Parquet; nothing else here needs it.

    Raises:
        BadExampleError: it is not installed.
    """
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise BadExampleError("Parquet files need the package pyarrow: pip install pyarrow") from error


def parquet_rows(path: Path, name: str) -> Iterator[Record | Fault]:
    """Rows of every row group; picture cells become `EmbeddedPicture`s. A group that cannot be read is unread."""
    try:
        source = parquet_reader().ParquetFile(path)
    except ValueError as error:
        if isinstance(error, BadExampleError):
            raise
        yield Fault(name, 0, f"is not Parquet ({error}); was it downloaded whole?", 0, unread=True)
        return
    columns = source.schema_arrow.names
    if repeated := sorted({column for column in columns if columns.count(column) > 1}):
        reason = f"names {', '.join(map(repr, repeated))} twice, and only one of them can be meant"
        yield Fault(name, 0, reason, source.metadata.num_rows, unread=True)
        return
    names, row = class_names(written_features(source.schema_arrow.metadata)), 0
    for group in range(source.num_row_groups):
        held = source.metadata.row_group(group).num_rows
        try:
            rows = source.read_row_group(group).to_pylist(maps_as_pydicts="strict")
        except (OSError, ValueError, KeyError) as error:  # the last, of a mapping that has a key twice
            yield Fault(name, row + 1, f"row group {group + 1} cannot be read ({error})", held, unread=True)
            row += held
            continue
        for index, fields in enumerate(rows):
            row += 1

            def made(column: str, content: bytes, place: int, group: int = group, index: int = index) -> ImageSource:
                sha256 = hashlib.sha256(content).hexdigest()
                return EmbeddedPicture(path, group, index, column, sha256, place=place)

            yield Record(name, row, plain_cells(fields, names, made))


def picture_bytes(held: Any, place: int) -> bytes:
    """The bytes of a picture, out of its cell as it was read."""
    one = held if place < 0 else held[place]
    return one if isinstance(one, bytes) else one["bytes"]


def hub_rows(hub: str, split: str, part: str | None = None) -> Iterator[Record]:
    """Rows of a hub's data set through the package `datasets`, which nothing else here needs.

    Args:
        hub: id such as "flaviagiammarino/vqa-rad", or a folder in the hub's layout.
        split: as the hub calls it.
        part: name of the configuration, where there are several.

    Raises:
        BadExampleError: the package is not installed.
    """
    dataset = hub_reader(f"hub={hub!r}").load_dataset(hub, part, split=split)
    yield from dataset_rows(dataset, f"{hub}:{part}/{split}" if part else f"{hub}:{split}")


def saved_rows(folder: Path, name: str) -> Iterator[Record | Fault]:
    """Rows of a folder that `datasets` saved; of several splits each row has its own as the field `split`.

    Args:
        folder: as `save_to_disk` wrote it.
        name: of it in messages.

    Raises:
        BadExampleError: the package is not installed.
    """
    try:
        found = hub_reader(f"the folder {name}").load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, BadExampleError):
            raise
        yield Fault(name, 0, f"is no folder that `datasets` saved ({error})", 0, unread=True)
        return
    for split, dataset in found.items() if isinstance(found, dict) else ((None, found),):
        for record in dataset_rows(dataset, f"{name}:{split}" if split else name):
            yield replace(record, fields={"split": split, **record.fields}) if split else record


def hub_reader(wanted_by: str) -> ModuleType:
    """The package that reads a hub's data sets; nothing else here needs it.

    Raises:
        BadExampleError: it is not installed.
    """
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise BadExampleError(
            f"{wanted_by} needs the package datasets (pip install datasets); files of rows under root need nothing"
        ) from error


def dataset_rows(dataset: Any, name: str) -> Iterator[Record]:
    """Rows of one split; the bytes of pictures are left in it."""
    names = class_names(dataset.features.to_dict())
    stored = dataset.with_format("arrow")  # pictures as they are stored, and not decoded
    index = 0
    for batch in stored.iter(batch_size=ROWS_AT_ONCE):
        for fields in batch.to_pylist():

            def made(column: str, content: bytes, place: int, index: int = index) -> ImageSource:
                return HubPicture(hashlib.sha256(content).hexdigest(), stored, index, column, place=place)

            index += 1
            yield Record(name, index, plain_cells(fields, names, made))
