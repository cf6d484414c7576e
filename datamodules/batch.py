"""The two types that every data set, every module and every scorer share."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from PIL import Image

from datamodules.regular import irregular
from datamodules.shown import FORMATS, Frames, NotShownError, as_shown, choose_page, shown_size

LETTERS = "ABCDEFGHIJ"

SPECIALTY = "specialty"
"""Tag that tells whose a question is, where those of several specialties are mixed."""

MAX_PIXELS = 64_000_000
"""Of a picture: 8000 x 8000. Above it stands a decompression bomb, or a whole slide that should have been tiled."""

DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    struct.error,
)
"""What Pillow raises over a damaged file."""

ImageSource = Path | Image.Image | Callable[[], Image.Image]
"""A file, a picture in memory, or a function that draws one when it is looked at."""


Seen = TypeVar("Seen")
Look = Callable[[Image.Image, str], Seen]
"""Makes something of an opened picture, not decoded yet, and its name."""

AnswerStyle = Literal["letter", "text"]


class BadExampleError(ValueError):
    """A row of a data set that cannot be used; the message names the row, the value and what was expected."""


PictureTrouble = Literal["missing", "broken", "over_limits"]


class PictureError(BadExampleError):
    """A picture that cannot be used; `trouble` says in which of three ways."""

    def __init__(self, trouble: PictureTrouble, message: str) -> None:
        super().__init__(message)
        self.trouble = trouble

    def __reduce__(self) -> tuple[type[PictureError], tuple[PictureTrouble, str]]:
        """Errors are rebuilt from `args`, which hold the message alone; this one also travels between processes."""
        return type(self), (self.trouble, str(self))


@dataclass(frozen=True)
class Example:
    """One question about one patient: multiple-choice, or open with a short answer.

    Attributes:
        patient_id: the split key; two examples of one patient never fall into different splits.
        images: zero or more pictures, shown before the question in this order.
        question: the stem, without the options.
        options: two to ten distinct texts in the order shown, the first is option A; none for an open question.
        answer: the text of the right option, or the short answer of an open question.
        question_id: unique within its data set.
        reasoning: guideline name -> a worked chain of thought that ends in the conclusion, without tags.
        tags: attributes to break results down by, such as {"question_type": "grade", "modality": "X-ray"}.
    """

    patient_id: str
    images: tuple[ImageSource, ...]
    question: str
    options: tuple[str, ...]
    answer: str
    question_id: str
    reasoning: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"example {self.question_id!r}"
        if self.options and not 2 <= len(self.options) <= len(LETTERS):
            raise BadExampleError(f"{where}: got {len(self.options)} options, expected 2 to {len(LETTERS)}")
        if len(set(self.options)) != len(self.options):
            raise BadExampleError(f"{where}: options repeat: {self.options}")
        if self.options and self.answer not in self.options:
            raise BadExampleError(f"{where}: the answer {self.answer!r} is not among the options {self.options}")
        if not self.question.strip() or not self.patient_id or not self.answer.strip():
            raise BadExampleError(f"{where}: question, answer and patient_id must not be empty")

    @property
    def letter(self) -> str:
        """The right option's letter.

        Raises:
            BadExampleError: the question is open.
        """
        if not self.options:
            raise BadExampleError(f"example {self.question_id!r}: an open question has no letters; choose closed ones")
        return LETTERS[self.options.index(self.answer)]

    def trace(self, guideline: str, answer_with: AnswerStyle = "letter") -> str:
        """The completion to imitate: tagged reasoning under one guideline, then the answer.

        Args:
            guideline: a key of `reasoning`.
            answer_with: whether the answer block holds the option's letter or its text; strict scoring reads both. An
                open question is always answered with its text.
        """
        answer = self.letter if answer_with == "letter" and self.options else self.answer
        return f"<think>{self.reasoning[guideline]}</think><answer>{answer}</answer>"


@dataclass(frozen=True)
class Batch:
    """Rows of training work, or questions to roll out.

    Attributes:
        examples: B questions.
        guidelines: B guideline names, the instruction that each row's prompt carries.
        completions: B texts to imitate; empty for reinforcement learning and evaluation.
        pictures: for each example its pictures in order, each as (key, what the model takes in its place); empty where
            no worker has read them.
        step: the batch's place in the stream of batches; from 0.
        spares: further questions, the same on all devices and none of this step's; None where none were asked for.
        ahead: what this device's next steps will ask, where that was asked for.
    """

    examples: tuple[Example, ...]
    guidelines: tuple[str, ...] = ()
    completions: tuple[str, ...] = ()
    pictures: tuple[tuple[Any, ...], ...] = ()
    step: int = 0
    spares: Batch | None = None
    ahead: tuple[Example, ...] = ()

    def __len__(self) -> int:
        return len(self.examples)

    def pictures_of(self, row: int) -> tuple[Any, ...] | None:
        """The pictures of an example as workers have read them; None where none did."""
        return self.pictures[row] if self.pictures else None


def load_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture in RGB, as a viewer shows it; see `datamodules.shown`.

    Args:
        source: of the picture; its attribute `frames`, if it has one, says what is done with several pages.
        max_pixels: above it stands a decompression bomb, or a whole slide that should have been tiled.

    Raises:
        PictureError: the file is missing, is not a picture, is truncated, has more than `max_pixels` pixels, or cannot
            be shown without a choice (of a page, of a grey-level window).
    """
    frames = getattr(source, "frames", "refuse")
    return opened(source, lambda image, name: as_rgb(image, name, max_pixels, frames))


def picture_size(source: ImageSource, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) of what `load_image` would return, from the header where there is one; errors alike."""

    def size(image: Image.Image, name: str) -> tuple[int, int]:
        wind(image, name, max_pixels, getattr(source, "frames", "refuse"))
        return shown_size(image)

    return opened(source, size)


def file_of(source: ImageSource) -> Path | None:
    """The file that a picture is, whole or a page of it; None where it is none."""
    return source if isinstance(source, Path) else getattr(source, "file", None)


def called(source: ImageSource) -> str:
    """A picture's name for messages."""
    return str(file_of(source) or ("a picture in memory" if isinstance(source, Image.Image) else source))


def opened(source: ImageSource, look: Look[Seen]) -> Seen:
    """What a function makes of an opened picture and its name; errors as of `load_image`.

    Args:
        source: a file, a picture, or a function that draws one, unless it opens something itself (`look_at`).
        look: makes it.
    """
    if not isinstance(source, Path):
        if hasattr(source, "look_at"):
            return source.look_at(look)
        return look(source if isinstance(source, Image.Image) else source(), "picture in memory")
    try:
        return looked_at(source, str(source), look)
    except FileNotFoundError as error:
        raise PictureError("missing", f"{source}: no such image file") from error


def looked_at(file: Path | BinaryIO, name: str, look: Look[Seen]) -> Seen:
    """What a function makes of a file's picture.

    Args:
        file: path, or open stream.
        name: for messages.
        look: as of `opened`.

    Raises:
        PictureError: as of `load_image`.
        FileNotFoundError: there is no such file.
    """
    if isinstance(file, Path) and (found := irregular(file)):
        raise PictureError(
            "broken" if file.exists() else "missing", f"{file}: is {found}, expected a file of a picture"
        )
    try:
        # Never by its path: Pillow 13 maps an uncompressed TIFF into memory then, and skews one that lies on its side.
        with (
            file.open("rb") if isinstance(file, Path) else file as stream,
            Image.open(stream, formats=FORMATS) as image,
        ):
            return look(image, name)
    except (BadExampleError, FileNotFoundError):
        raise
    except Image.DecompressionBombError as error:
        raise PictureError("over_limits", f"{name}: is over the limit of {MAX_PIXELS} pixels ({error})") from error
    except DAMAGE as error:
        message = f"{name}: cannot be read as an image ({error}); is it truncated or not a picture?"
        raise PictureError("broken", message) from error


def as_rgb(image: Image.Image, name: str, max_pixels: int, frames: Frames) -> Image.Image:
    """An opened picture in RGB, as a viewer shows it; errors as of `load_image`."""
    wind(image, name, max_pixels, frames)
    with shown_by_name(name):
        return as_shown(image)


def wind(image: Image.Image, name: str, max_pixels: int, frames: Frames) -> None:
    """Go to the page that is shown, and refuse one of too many pixels; errors as of `load_image`."""
    with shown_by_name(name):
        choose_page(image, frames)
    if image.width * image.height > max_pixels:
        size = f"{image.width}x{image.height}"
        raise PictureError("over_limits", f"{name}: {size} is over the limit of {max_pixels} pixels")


@contextmanager
def shown_by_name(name: str) -> Iterator[None]:
    """Say of which picture it is that it cannot be shown."""
    try:
        yield
    except NotShownError as error:
        raise PictureError("broken", f"{name}: {error}") from error


def image_key(image: Image.Image) -> str:
    """SHA-256 of size and pixels: equal pictures have equal keys whatever file they came from."""
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
