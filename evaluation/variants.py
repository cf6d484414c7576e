"""How a question is put besides its plain form: other pictures, another order of options, another wording.

A variant turns an `Example` into another `Example`, so that whatever asks the plain question can ask it too. Everything
is drawn from the question's id: the same variant of the same question is the same in every process and on every day.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from PIL import Image

from datamodules.batch import LETTERS, Example, ImageSource, load_image
from datamodules.prompts import reworded
from evaluation.predictions import VARIED

ImageAblation = Literal["shown", "none", "blank", "swapped"]
MOST_ORDERS = len(LETTERS) - 1
"""Rotations that a question with the most options has besides its own."""
GREY = (128, 128, 128)
"""Every pixel of a blank picture."""


@dataclass(frozen=True)
class Variant:
    """One way to put questions.

    Attributes:
        image: `shown` as they are; `none`, without pictures and their tokens; `blank`, mid-grey of the same sizes;
            `swapped`, those of a question with another `patient_id` of the same set. Released sets that name no
            patient have one per picture, so that a swapped picture may be another slice of the same person.
        shuffle: 0 keeps the order of the options; r takes the r-th of a question's other rotations, in a drawn order,
            so that r = 1 … options - 1 bring the right answer to every other letter once.
        wording: 0 is the plain question; n its n-th other wording, see `datamodules.prompts.WORDINGS`.
    """

    image: ImageAblation = "shown"
    shuffle: int = 0
    wording: int = 0

    @property
    def protocol(self) -> dict[str, str]:
        """What differs from the plain question, for `Prediction.protocol`."""
        plain = Variant()
        return {name: str(getattr(self, name)) for name in VARIED if getattr(self, name) != getattr(plain, name)}


def variants(images: Sequence[ImageAblation], orders: int, wordings: int) -> list[Variant]:
    """The main way, with the first of `images`, then every way that differs from it in one thing."""
    main = Variant(images[0])
    return [
        main,
        *(replace(main, image=image) for image in images[1:]),
        *(replace(main, shuffle=order) for order in range(1, orders + 1)),
        *(replace(main, wording=number) for number in range(1, wordings + 1)),
    ]


def asked(questions: Sequence[Example], variant: Variant, main: Variant, pool: Sequence[Example]) -> Iterator[Example]:
    """The questions as a variant puts them; beside the main way only those that it changes.

    A question without pictures is not asked again with other pictures, nor one with r options or fewer in its r-th
    other order.

    Args:
        questions: as the data set has them.
        variant: how they are put.
        main: how they are put otherwise; the variant itself asks all.
        pool: the set that swapped pictures come from.

    Raises:
        ValueError: pictures are to be swapped, and no other patient of the pool has any.
    """
    with_pictures = [example for example in pool if example.images]
    for example in questions:
        if variant.image != main.image and not example.images:
            continue
        if variant.shuffle >= max(1, len(example.options)) and variant != main:
            continue
        yield reworded(rotated(with_images(example, variant.image, with_pictures), variant.shuffle), variant.wording)


def with_images(example: Example, image: ImageAblation, pool: Sequence[Example]) -> Example:
    """A question with its pictures shown, left out, blanked or swapped.

    Args:
        example: the question.
        image: what becomes of its pictures.
        pool: questions with pictures.

    Raises:
        ValueError: as of `asked`.
    """
    if image == "shown" or not example.images:
        return example
    if image == "none":
        return replace(example, images=())
    if image == "blank":
        return replace(example, images=tuple(partial(blank, source) for source in example.images))
    start = int(hashlib.sha256(f"swap\x1f{example.question_id}".encode()).hexdigest(), 16) % max(1, len(pool))
    others = (pool[(start + step) % len(pool)] for step in range(len(pool)))
    other = next((other for other in others if other.patient_id != example.patient_id), None)
    if other is None:
        raise ValueError(
            f"image=swapped: question {example.question_id!r} is about patient {example.patient_id!r}, and no other "
            "patient of the set has a picture"
        )
    return replace(example, images=other.images)


def blank(source: ImageSource) -> Image.Image:
    """A mid-grey picture of the size of another."""
    return Image.new("RGB", load_image(source).size, GREY)


def rotated(example: Example, order: int) -> Example:
    """A question with its options rotated: 0 leaves them, r takes the r-th shift of a drawn sequence of all others."""
    if order == 0 or not example.options:
        return example
    shifts = list(range(1, len(example.options)))
    random.Random(f"orders:{example.question_id}").shuffle(shifts)
    shift = shifts[order - 1]
    return replace(example, options=example.options[shift:] + example.options[:shift])
