"""The examples of a set, however many: the first ones as they are, those behind them as text in a file without a name.

Of a row behind the first `HELD` stay in memory where it begins and how its id is found again. What is read back is
equal to what was put in, to the character; what text could not give back so (a picture in memory, a mapping of a kind
of its own) is held as it is.
"""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from datamodules.batch import Example, ImageSource
from datamodules.embedded import EmbeddedPicture
from datamodules.pictures import Paged

HELD = 8192
"""Examples of a set that are held as they are, so that sets of usual size are as fast as a list."""
PIECE = 2**20
"""Bytes that are written at once."""


class Store:
    """Examples by number, in the order in which they were added; they are never changed or taken out."""

    def __init__(self, folder: Path | None = None, held: int | None = None) -> None:
        """Hold nothing yet.

        Args:
            folder: for the file, which has no name there and is gone with the process; None, and one that cannot be
                made or written to, is the system's for such files.
            held: examples that are held as they are; None means `HELD`.
        """
        self.folder = folder
        self.most_held = HELD if held is None else held
        self.held: list[Example] = []
        self.odd: dict[int, Example] = {}
        self.sources: list[ImageSource] = []  # pictures that no text says
        self.ends = array("Q", [0])  # of the rows that are written
        self._numbers: dict[int, int] = {}  # hash of an id -> the first example with it
        self._others: dict[str, int] = {}  # ids whose hash another id has too
        self._last: tuple[int, Any] = (-1, None)  # the example that was read last is often asked for again
        self._file: Any = None
        self._waiting = bytearray()  # to be written

    def __len__(self) -> int:
        return len(self.held) + len(self.ends) - 1

    def __getitem__(self, number: int) -> Example:
        if number < len(self.held):
            return self.held[number]
        if number in self.odd:
            return self.odd[number]
        last, example = self._last
        if last != number:
            row = number - len(self.held)
            example = self._decoded(self._read(self.ends[row], self.ends[row + 1]))
            self._last = number, example
        return example

    def __iter__(self) -> Iterator[Example]:
        return map(self.__getitem__, range(len(self)))

    def add(self, example: Example) -> int:
        """Put an example behind the others; returns its number.

        Raises:
            OSError: the disk is full, or cannot be written to.
        """
        number = len(self)
        key = hash(example.question_id)
        if key in self._numbers:
            self._others[example.question_id] = number
        else:
            self._numbers[key] = number
        if number < self.most_held:
            self.held.append(example)
            return number
        text = self._encoded(example)
        if text is None:
            self.odd[number] = example
        else:
            self._waiting += text
        self.ends.append(self.ends[-1] + len(text or b""))
        if len(self._waiting) >= PIECE:
            self._write()
        return number

    def number_of(self, question_id: str) -> int | None:
        """The number of an example; None where there is none."""
        first = self._numbers.get(hash(question_id))
        if first is None or self[first].question_id == question_id:
            return first
        return self._others.get(question_id)

    # -- the file ------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Empty what waits into the file, at its place: a process that was forked off would write the same there."""
        if self._file is None:
            self._file = nameless(self.folder)
        place = self.ends[-1] - len(self._waiting)
        try:
            while self._waiting:
                done = os.pwrite(self._file.fileno(), self._waiting, place)
                place += done
                del self._waiting[:done]
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"a file of rows in {self.place}") from error

    def _read(self, begin: int, end: int) -> bytes:
        written = self.ends[-1] - len(self._waiting)
        if begin >= written:
            return bytes(self._waiting[begin - written : end - written])
        found = os.pread(self._file.fileno(), end - begin, begin)
        if len(found) != end - begin:
            raise OSError(f"a file of rows in {self.place} gave {len(found)} bytes of {end - begin} at {begin}")
        return found

    @property
    def place(self) -> str:
        """The folder of the file, for messages."""
        return str(self.folder or tempfile.gettempdir())

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[Any, ...]]:
        """A file without a name cannot be sent to another process; its rows can."""
        return filled, (self.folder, self.most_held, list(self))

    # -- a row as text -------------------------------------------------------------------------------------------

    def _encoded(self, example: Example) -> bytes | None:
        """An example as text; None where text would not give it back as it is."""
        mappings = (example.reasoning, example.tags)
        if type(example) is not Example or any(type(held) is not dict for held in mappings):
            return None
        texts = (example.patient_id, example.question, example.answer, example.question_id, *example.options)
        texts += tuple(text for held in mappings for pair in held.items() for text in pair)
        if any(type(text) is not str for text in texts) or type(example.options) is not tuple:
            return None
        fields = (*texts[:4], example.options, *mappings, [self._said(source) for source in example.images])
        return json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")

    def _said(self, source: ImageSource) -> Any:
        """A picture as JSON: a file, a page of one, a cell of a Parquet file, or a number of what is held."""
        if type(source) is type(Path()):
            return str(source)
        if type(source) is Paged and type(source.file) is type(Path()):
            return [str(source.file), source.frames]
        if type(source) is EmbeddedPicture and type(source.path) is type(Path()):
            where = [str(source.path), source.group, source.index, source.column]
            return [*where, source.sha256, source.frames, source.place]
        self.sources.append(source)
        return len(self.sources) - 1

    def _decoded(self, text: bytes) -> Example:
        patient_id, question, answer, question_id, options, reasoning, tags, images = json.loads(
            text.decode("utf-8", "surrogatepass")
        )
        sources = tuple(map(self._source, images))
        return Example(patient_id, sources, question, tuple(options), answer, question_id, reasoning, tags)

    def _source(self, said: Any) -> ImageSource:
        """The picture that `_said` told."""
        if isinstance(said, int):
            return self.sources[said]
        if isinstance(said, str):
            return Path(said)
        path, *rest = said
        return Paged(Path(path), *rest) if len(rest) == 1 else EmbeddedPicture(Path(path), *rest)


def nameless(folder: Path | None) -> Any:
    """A file that is gone with the process, in a folder or where the system keeps such files."""
    if folder is not None:
        with suppress(OSError):
            folder.mkdir(exist_ok=True)  # beside the runs, once there are any
            return tempfile.TemporaryFile(dir=folder, buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def filled(folder: Path | None, held: int, examples: Iterable[Example]) -> Store:
    """A store of examples."""
    store = Store(folder, held)
    for example in examples:
        store.add(example)
    return store


class Shown:
    """The examples of a store as a set shows them, by number; those that the store holds are made once."""

    def __init__(self, store: Store, numbers: Sequence[int], show: Callable[[Example], Example]) -> None:
        """Make those that are held.

        Args:
            store: of the examples as they came.
            numbers: that may be asked for.
            show: makes of an example what is shown.
        """
        self.store, self.show = store, show
        self.ready = {number: show(store[number]) for number in numbers if number < len(store.held)}

    def __call__(self, number: int) -> Example:
        """The example of a number."""
        return self.ready.get(number) or self.show(self.store[number])
