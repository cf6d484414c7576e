"""A question as tokens: the prompt's ids, its pictures, its positions, and how much of it others may share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from datamodules.batch import BadExampleError, Example
from datamodules.prompts import prompt_text
from datamodules.sight import beyond
from lightning_modules.families.base import ImageInput, VisionLanguageFamily


@dataclass(frozen=True)
class Prompt:
    """One tokenised prompt.

    Attributes:
        ids: L token ids with image placeholders in place.
        images: (key, preprocessed picture) in order.
        positions: (A, L) int64.
        question_id: whose prompt it is, for messages.
        shared: first tokens that may be computed once for several prompts: they hold all pictures, or are none.
    """

    ids: tuple[int, ...]
    images: tuple[tuple[str, ImageInput], ...]
    positions: Tensor = field(compare=False)
    shared: int = 0
    question_id: str = field(default="", compare=False)

    @property
    def prefix(self) -> tuple:
        """Equal for prompts whose shared tokens are the same."""
        return self.ids[: self.shared], tuple(key for key, _ in self.images)


def write_prompts(
    family: VisionLanguageFamily,
    example: Example,
    instructions: Sequence[str],
    images: tuple[tuple[str, ImageInput], ...],
) -> list[Prompt]:
    """Tokenise a question under several instructions, and note how far the prompts are the same.

    Args:
        family: whose tokens and positions.
        example: the question.
        instructions: of guidelines; empty for the neutral prompt.
        images: (key, preprocessed picture) of its pictures, in order.
    """
    counts = [item.n_tokens for _, item in images]
    ids = [tuple(family.prompt_ids(prompt_text(example, text), counts)) for text in instructions]
    shared = common_length(ids)
    if family.image_token_id in ids[0][shared:]:
        shared = 0
    grids = [item.grid for _, item in images]
    name = example.question_id
    return [Prompt(prompt, images, family.position_ids(prompt, grids), shared, name) for prompt in ids]


def refuse_beyond(context: int, prompts: Sequence[Prompt], completions: Sequence[int]) -> None:
    """Refuse what a model was not made for: it would answer, and nobody would know that it had not read.

    Args:
        context: of the model, in tokens.
        prompts: B prompts.
        completions: of each, the tokens that follow it, or may follow.

    Raises:
        BadExampleError: names the first question that is too long.
    """
    for prompt, after in zip(prompts, completions, strict=True):
        if len(prompt.ids) + after > context:
            pictures = sum(item.n_tokens for _, item in prompt.images)
            reason = beyond(len(prompt.ids), pictures, after, context)
            raise BadExampleError(f"question {prompt.question_id!r}: {reason}")


def common_length(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the common beginning, such that every sequence goes on for at least one more."""
    limit = min(map(len, sequences)) - 1
    columns = zip(*(sequence[:limit] for sequence in sequences), strict=True)
    return next((place for place, column in enumerate(columns) if len(set(column)) > 1), limit)
