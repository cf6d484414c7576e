"""A table of questions as a lab has it, CSV, spreadsheet export, JSON lines or Parquet, read by a mapping in YAML.

    specialties:
      dental:
        class_path: datamodules.table.Table
        init_args:
          root: data/dental
          file: questions.csv
          images: films
          answer_as: letter
          columns: {patient: case, question: question, images: [film], options: [A, B, C, D], answer: answer}

`python -m datamodules new NAME --from FILE` proposes it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from typing_extensions import override

from datamodules.base import SPLITS
from datamodules.batch import LETTERS, BadExampleError, Example, ImageSource, file_of
from datamodules.cells import SEVERAL, Cells, absent, written_list
from datamodules.columns import AnswerKind, Columns, answer_alone, chains, right_option, split_of, stem_and_choices
from datamodules.embedded import EmbeddedPicture, HubPicture, saved_rows
from datamodules.options import same_words
from datamodules.pictures import Paged
from datamodules.places import files_below, find_picture, inside_root
from datamodules.readers import SUFFIXES
from datamodules.regular import present
from datamodules.released import ReleasedSet, missing_shards
from datamodules.row_set import BY_PATIENT
from datamodules.rows import Fault, Record, shortened
from datamodules.store import Store

EMPTY = "rows whose cells are all empty"


class Table(ReleasedSet):
    """Questions of one table.

    Layout: a .csv, .tsv, .json, .jsonl or .parquet file below the root, or a folder that `datasets` saved; and the
    pictures that its rows name, below `images`.
    """

    @dataclass(frozen=True)
    class Config(ReleasedSet.Config):
        """Where the table lies, and what its columns hold."""

        file: str = "questions.csv"
        """Name of the file below the root, or a pattern for several, such as `data/*.parquet`."""
        columns: Columns = field(default_factory=Columns)
        """Which column holds what."""
        answer_as: AnswerKind = "text"
        """How the answer is given: the option's letter, its text, or its number counted from 0 or from 1."""
        separator: str = ""
        """Between the options of one cell that is no list and has no letters, such as `|`."""
        ask: str = ""
        """Question of every row, where there is no column for it."""
        choices: tuple[str, ...] = ()
        """Options of every row, where there is no column for them."""
        images: str = ""
        """Folder of the pictures, below the root or any other; empty is the root. No name in a row leaves it."""
        image_suffix: str = ""
        """Added to names of pictures that have none, such as `.jpg`."""
        answer_only: bool = True
        """Rows without a worked chain teach their answer alone; false trains on them only where questions are rolled
        out, and leaves them to the examination."""
        shuffle_options: bool = True
        """Draw the order of the options per question, so that no letter is favoured."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.columns.question and not self.ask.strip():
                raise ValueError("columns must name the column of the question, or `ask` say what all rows are asked")
            words = set(map(same_words, self.choices))
            if self.choices and not 2 <= len(words) == len(self.choices) <= len(LETTERS):
                raise ValueError(
                    f"choices must be 2 to {len(LETTERS)} texts that differ in more than case and spaces, got "
                    f"{list(self.choices)}"
                )
            if self.choices and self.columns.options:
                raise ValueError(
                    "choices are the options of every row, and columns.options names columns of them; leave one out"
                )
            if self.answer_as != "text" and not (self.choices or self.columns.options):
                raise ValueError(
                    f"answer_as is {self.answer_as}, which needs options; open questions have answer_as: text"
                )

    def __init__(self, config: Config | None = None, **arguments: Any) -> None:
        """Read nothing yet; arguments as of `VQADataModule`."""
        super().__init__(config, **arguments)
        self.assumed: Counter[str] = Counter()

    @property
    @override
    def subset(self) -> str:
        return f"table {self.config.file}"

    @property
    @override
    def statement(self) -> dict[str, Any]:
        return {**super().statement, "assumed": self.assumptions()}

    def assumptions(self) -> list[str]:
        """What was assumed of the cells and the rows that were read, a sentence each."""
        c, columns = self.config, self.config.columns
        found = [f"{what} ({count} cells)" for what, count in sorted(self.assumed.items())]
        if not columns.patient:
            stands = "picture" if columns.images else "row"
            found.append(f"no column names patients: each {stands} counts as a patient of its own")
        if not columns.reasoning:
            taught = "their answers alone are taught" if c.answer_only else "nothing is there to imitate"
            found.append(f"no column has worked chains: {taught}")
        return found

    @override
    def files(self) -> Mapping[str, Sequence[Path]]:
        name = self.config.file
        if not any(sign in name for sign in "*?["):
            path = self.root / name
            return {BY_PATIENT: [path] if present(path) else []}
        found = files_below(self.root, name, self.config.allowed_roots)
        return {BY_PATIENT: [*found, *missing_shards(found)]}

    @override
    def records(self) -> Iterator[tuple[str, Record | Fault]]:
        column = self.config.columns.split
        for split, record in super().records():
            named = ""
            if column and isinstance(record, Record):
                try:
                    named = split_of(Cells(record, Counter()), column)
                except BadExampleError as error:
                    record = Fault(record.file, record.row, str(error))
            yield named or split, record

    @override
    def rows_in(self, path: Path) -> Iterator[Record | Fault]:
        """The rows of a file; where a column is missing from its header, one fault for all of them."""
        rows = self.saved(path) if path.is_dir() else super().rows_in(path)
        first = next(rows, None)
        if isinstance(first, Record) and path.suffix not in (".json", ".jsonl"):  # whose rows have keys of their own
            missing = [name for name in self.config.columns.named() if name not in first.fields]
            if missing:
                count = 1 + sum(one.rows if isinstance(one, Fault) else 1 for one in rows)
                yield Fault(first.file, 0, absent(missing[0], first.fields), count, unread=True)
                return
        if first is not None:
            yield first
        yield from rows

    def saved(self, folder: Path) -> Iterator[Record | Fault]:
        """The rows of a folder that `datasets` saved, which must lie where files of the set may lie."""
        inside_root(folder, self.root, self.config.allowed_roots)
        yield from saved_rows(folder, self.config.file)

    @override
    def example(self, record: Record) -> Example:
        if all(record.get(name) is None for name in record.fields):
            raise self.not_asked(EMPTY)
        c, columns, cells = self.config, self.config.columns, Cells(record, self.assumed)
        stem, options = stem_and_choices(cells, columns, c.ask, c.separator)
        options = dict(zip(LETTERS, c.choices, strict=False)) or options
        if columns.options and not options:
            cells.assume(columns.options[0], "rows without any option are open questions")
        images = tuple(source for name in columns.images for source in self.pictures(cells, name))
        closed = bool(options) or c.answer_as != "text"
        answer = right_option(cells, columns.answer, options, c.answer_as) if closed else cells.text(columns.answer)
        key = cells.name(columns.id) if columns.id else key_of(record)
        reasoning = chains(cells, columns)
        if not reasoning and c.answer_only:
            reasoning = answer_alone(answer)
        tags = {name: cells.text(column, "") for name, column in columns.tags.items()}
        return Example(
            patient_id=cells.name(columns.patient) if columns.patient else self.picture_name(images) or key,
            images=images,
            question=stem,
            options=tuple(options.values()),
            answer=answer,
            question_id=key,
            reasoning=reasoning,
            tags={name: text for name, text in tags.items() if text},
        )

    def pictures(self, cells: Cells, column: str) -> list[ImageSource]:
        """The pictures of a cell: those that stand in it, or that it names.

        Raises:
            BadExampleError: something else stands there, or a name leads out of the folder.
        """
        value = cells.value(column)
        found = written_list(value) if isinstance(value, str) else value
        if isinstance(found, list):
            held = [one for one in found if one is not None]
        elif isinstance(value, str):
            held = [value] if present(self.place(value)) else [name for name in SEVERAL.split(value) if name]
        else:
            held = [] if value is None else [value]
        if not all(isinstance(one, str | EmbeddedPicture | HubPicture) for one in held):
            raise BadExampleError(f"{column} is {shortened(value)}, expected pictures or names of pictures")
        return [
            self.picture_of(one, cells, column) if isinstance(one, str) else replace(one, frames=self.config.frames)
            for one in held
        ]

    def picture_of(self, name: str, cells: Cells, column: str) -> ImageSource:
        """The picture of a name in a cell; errors as of `find_picture`."""
        place = self.place(name)
        return self.shown(place if present(place) else self.place(cells.whole(name, column)))

    def picture_name(self, images: Sequence[ImageSource]) -> str:
        """The first picture, which tells patients apart where no column does; empty where there is none."""
        if not images:
            return ""
        file = file_of(images[0])
        return getattr(images[0], "sha256", "") if file is None else file.relative_to(self.pictures_root).as_posix()

    @property
    def pictures_root(self) -> Path:
        """The folder of the pictures."""
        return self.root / self.config.images

    @property
    @override
    def further_folders(self) -> tuple[str, ...]:
        return (*super().further_folders, str(self.pictures_root))

    def place(self, name: str) -> Path:
        """The file of a picture's name, whichever way its separators lean; errors as of `find_picture`."""
        c = self.config
        suffixed = name if name.lower().endswith(c.image_suffix.lower()) else name + c.image_suffix
        place = find_picture(self.pictures_root, ("",), suffixed, c.allowed_roots)
        if "\\" in suffixed and not present(place):
            return find_picture(self.pictures_root, ("",), suffixed.replace("\\", "/"), c.allowed_roots)
        return place

    def shown(self, path: Path) -> ImageSource:
        """A file, or the page of it that the settings choose."""
        return path if self.config.frames == "refuse" else Paged(path, self.config.frames)

    @override
    def taught(self) -> dict[str, int]:
        train = self.splits["train"]
        alone = sum(example.reasoning == answer_alone(example.answer) for example in train)
        bare = sum(not example.reasoning for example in train)
        return {"chains": len(train) - alone - bare, "answers_alone": alone, "not_imitated": bare}

    @override
    def expected_splits(self) -> Collection[str]:
        held = [name for name in SPLITS if self.scan.examples[name]]
        return held if self.config.columns.split else super().expected_splits()

    @override
    def collected(self) -> tuple[Store, dict[str, Sequence[int]]]:
        found = super().collected()
        for sentence in self.assumptions():
            tell(f"specialty {self.specialty!r}: assumed: {sentence}")
        return found


def key_of(record: Record) -> str:
    """What a row is called that has no name of its own: by its file and its number there.

    Examples:
        >>> [key_of(Record(file, 7, {})) for file in ("q.csv", "b/part-0.parquet", "v1.0:test")]
        ['q-7', 'b/part-0-7', 'v1.0:test-7']
    """
    path = PurePosixPath(record.file)
    stem = path.with_suffix("") if path.suffix in (*SUFFIXES, ".parquet") else path
    return f"{stem}-{record.row}"


@cache
def tell(line: str) -> None:
    """Say something on stderr, once in a process, though experiments of a lineage may read the set differently."""
    print(line, file=sys.stderr, flush=True)
