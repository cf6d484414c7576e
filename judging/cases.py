"""A case of Med-RewardBench: a picture, a question, two answers, and which of them physicians preferred.

Source: Med-RewardBench, arXiv:2508.21430; names of organs, dimensions and fields as its released code reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from datamodules.batch import ImageSource
from datamodules.graded import DIMENSIONS as DIMENSIONS

ORGANS = (
    *("abdomen", "brain", "breast", "chest", "eye", "foot", "gastrointestinal_tract", "heart", "lower_limb", "lung"),
    *("oral_cavity", "pelvic_cavity", "upper_limb"),
)
RELEASED_CASES = 1026
TAGS = ("department", "modality", "question_type", "dataset", "body_part", "flaws")
"""Fields by which results are broken down where the rows have them."""
SIDES = "AB"
"""What the first and the second answer are called."""


@dataclass(frozen=True)
class Case:
    """Two answers to one question about one picture.

    Attributes:
        organ: whose file it stands in.
        question_id: unique within the organ.
        question: that both answers answer, as the file has it.
        answers: the first (A) and the second (B), as the file has them.
        picture: that the question is about.
        cluster: hash of the picture's bytes: cases that share a picture go together in every interval.
        truth: dimension -> "A" or "B", the physicians' majority; of made pairs, dimensions on which they are equal are
            absent.
        tags: attributes to break results down by.
    """

    organ: str
    question_id: str
    question: str
    answers: tuple[str, str]
    picture: ImageSource
    cluster: str
    truth: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def case_id(self) -> str:
        """Unique within the release."""
        return f"{self.organ}/{self.question_id}"


def other(side: str) -> str:
    """B for A, and A for B."""
    return SIDES[1 - SIDES.index(side)]
