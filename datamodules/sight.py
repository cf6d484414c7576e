"""What a model can take of a set: its pictures by their shape, and prompt and completion within its context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from datamodules.batch import AnswerStyle, Example, ImageSource, PictureError, called, file_of, picture_size
from datamodules.loading import Demand
from datamodules.prompts import prompt_text


class TakesPictures(Protocol):
    """The part of a model that knows which pictures it takes; see `lightning_modules.families.base.PictureInput`."""

    most_tokens: int

    def tokens(self, width: int, height: int) -> int:
        """Tokens of a picture of that size; a `PictureError` where there can be none."""


class Model(Protocol):
    """The part of a model family that is asked here; it needs no weights."""

    to_input: TakesPictures

    @property
    def context(self) -> int:
        """Tokens that prompt and completion may have together."""

    def prompt_ids(self, text: str, image_tokens: Sequence[int]) -> list[int]:
        """Tokens of a prompt."""

    def text_ids(self, text: str) -> list[int]:
        """Tokens of a text, of which each stands for at least one byte."""


@dataclass
class Sight:
    """A model, and how the questions of each split are put to it."""

    model: Callable[[], Model]
    """Made when it is first needed."""
    demands: Mapping[str, Demand]
    """Split -> what is asked of it; a split that is not named is asked plainly."""
    _around: dict[int, int] = field(default_factory=dict, init=False, repr=False)

    def unfit(self, split: str, examples: Sequence[Example], answer_with: AnswerStyle) -> dict[str, str]:
        """Question id -> why the model cannot take it, for those that it cannot.

        A picture that cannot be read at all is left to who reads it.

        Args:
            split: of the questions.
            examples: the questions.
            answer_with: what the answer block of a training target holds.
        """
        if not examples:
            return {}
        model, demand, found = self.model(), self.demands.get(split, Demand()), {}
        for example in examples:
            try:
                reason = self._beyond(model, example, demand, answer_with)
            except PictureError as error:
                reason = str(error)
            if reason:
                found[example.question_id] = reason
        return found

    def _beyond(self, model: Model, example: Example, demand: Demand, answer_with: AnswerStyle) -> str:
        """Why prompt and completion do not fit into the context; empty where they do.

        A text has at most as many tokens as bytes, and a drawn picture at most as many as any; they are counted only
        where these bounds do not fit.
        """
        sure = [known_tokens(source, model.to_input) for source in example.images]
        most = [model.to_input.most_tokens if n is None else n for n in sure]
        prompts = [prompt_text(example, instruction) for instruction in demand.instructions]
        targets = [
            example.trace(name, answer_with)
            for name in example.reasoning
            if demand.traces is None or name in demand.traces
        ]
        count = len(example.images)
        if count not in self._around:
            self._around[count] = len(model.prompt_ids("", [0] * count))
        bound = self._around[count] + sum(most) + max(len(text.encode()) for text in prompts)
        after = max([demand.new_tokens, *(len(text.encode()) + 1 for text in targets)])
        if bound + after <= model.context:
            return ""
        pictures = [
            drawn_tokens(source, model.to_input) if n is None else n
            for source, n in zip(example.images, sure, strict=True)
        ]
        before = max(len(model.prompt_ids(text, pictures)) for text in prompts)
        after = max([demand.new_tokens, *(len(model.text_ids(text)) + 1 for text in targets)])
        return "" if before + after <= model.context else beyond(before, sum(pictures), after, model.context)


def beyond(prompt: int, pictures: int, completion: int, context: int) -> str:
    """Say that a prompt with its completion is too long for a model; all in tokens."""
    return (
        f"its prompt has {prompt} tokens, {pictures} of them for pictures, and its completion may have {completion}: "
        f"together {prompt + completion}, over the model's context of {context}; shorten the question or the limit of "
        "new tokens, show smaller pictures, or take a model with a longer context"
    )


def known_tokens(source: ImageSource, to_input: TakesPictures) -> int | None:
    """Tokens of a picture whose header tells its size; 0 where it cannot be read, None where it would have to be drawn.

    Raises:
        PictureError: the model takes no picture of that shape.
    """
    if file_of(source) is None and not hasattr(source, "look_at") and not hasattr(source, "size"):
        return None
    try:
        size = picture_size(source)
    except PictureError:  # told by whoever reads it, with what else is wrong with the set's pictures
        return 0
    return tokens_of(size, source, to_input)


def drawn_tokens(source: ImageSource, to_input: TakesPictures) -> int:
    """Tokens of a picture that is drawn to see its size; errors as of `known_tokens`."""
    return tokens_of(picture_size(source), source, to_input)


def tokens_of(size: tuple[int, int], source: ImageSource, to_input: TakesPictures) -> int:
    """Tokens of a picture of a size.

    Raises:
        PictureError: names the picture.
    """
    try:
        return to_input.tokens(*size)
    except PictureError as error:
        raise PictureError(error.trouble, f"{called(source)}: {error}") from error
