"""The two types that every data set, every module and every scorer share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from datamodules.regular import irregular

LETTERS = "ABCDEFGHIJ"

MAX_PIXELS = 64_000_000
"""Of a picture: 8000 x 8000. Above it stands a decompression bomb, or a whole slide that should have been tiled."""

ImageSource = Path | Image.Image | Callable[[], Image.Image]
"""A file, a picture in memory, or a function that draws one when it is looked at."""


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
    """

    examples: tuple[Example, ...]
    guidelines: tuple[str, ...] = ()
    completions: tuple[str, ...] = ()
    pictures: tuple[tuple[Any, ...], ...] = ()
    step: int = 0
    spares: Batch | None = None

    def __len__(self) -> int:
        return len(self.examples)

    def pictures_of(self, row: int) -> tuple[Any, ...] | None:
        """The pictures of an example as workers have read them; None where none did."""
        return self.pictures[row] if self.pictures else None


def load_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture as RGB.

    Raises:
        PictureError: the file is missing, is not a picture, is truncated, has more than 8 bits per channel, or has
            more than `max_pixels` pixels (a decompression bomb, or a whole slide that should have been tiled).
    """
    if not isinstance(source, Path):
        return as_rgb(source if isinstance(source, Image.Image) else source(), "picture in memory", max_pixels)
    try:
        if found := irregular(source):
            raise PictureError(
                "broken" if source.exists() else "missing", f"{source}: is {found}, expected a file of a picture"
            )
        with Image.open(source) as image:
            return as_rgb(image, str(source), max_pixels)
    except FileNotFoundError as error:
        raise PictureError("missing", f"{source}: no such image file") from error
    except BadExampleError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError("over_limits", f"{source}: is over the limit of {max_pixels} pixels ({error})") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        message = f"{source}: cannot be read as an image ({error}); is it truncated or not a picture?"
        raise PictureError("broken", message) from error


def as_rgb(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    """A picture of 8 bits per channel as RGB; arguments and errors as of `load_image`."""
    if image.width * image.height > max_pixels:
        size = f"{image.width}x{image.height}"
        raise PictureError("over_limits", f"{name}: {size} is over the limit of {max_pixels} pixels")
    if image.mode.startswith(("I", "F")):  # Pillow would clip these at 255: a radiograph would come out white
        raise PictureError(
            "broken",
            f"{name}: has mode {image.mode!r}, more than 8 bits per channel; the DataModule has to choose a grey-level "
            "window first (datamodules/windows.py)",
        )
    return image.convert("RGB")


def image_key(image: Image.Image) -> str:
    """SHA-256 of size and pixels: equal pictures have equal keys whatever file they came from."""
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
