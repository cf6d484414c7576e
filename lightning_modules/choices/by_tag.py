"""A bound: every question names the guideline that it needs, which only made questions can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from datamodules.batch import Example
from lightning_modules.choices.choice import Choice


class ByTag(Choice):
    """All guided rollouts of a question are under the guideline that its tag names."""

    @dataclass(frozen=True)
    class Config:
        """Where the name stands."""

        tag: str = "question_type"
        """Tag of a question that names one of the guidelines; the clinic has this one."""

    @override
    def __call__(
        self, questions: Sequence[Example], states: Tensor, guidelines: Sequence[str], seeds: Sequence[int]
    ) -> list[tuple[str, ...]]:
        return [(example.tags[self.config.tag],) * len(guidelines) for example in questions]

    @override
    def fault(self, question: Example, guidelines: Sequence[str]) -> str:
        named = question.tags.get(self.config.tag)
        if named in guidelines:
            return ""
        return (
            f"the tag {self.config.tag} must name the guideline that a question needs, one of {list(guidelines)}; got "
            f"{named!r} among its tags {sorted(question.tags)}"
        )
