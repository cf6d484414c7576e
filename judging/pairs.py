"""Graded answers of a data set as cases: what a judge says of them is known to be right or wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from datamodules.base import VQADataModule
from datamodules.batch import BadExampleError, image_key, load_image
from datamodules.graded import DIMENSIONS, graded
from datamodules.prompts import question_text
from judging.cases import SIDES, TAGS, Case
from judging.release import data_sha256


def pair_cases(data: VQADataModule) -> tuple[Case, ...]:
    """The pairs of a set's test split; those that are equal on all dimensions are no case.

    A pair stands under its question type, which takes the organ's place, and goes together with all pairs about its
    patient.

    Raises:
        BadExampleError: a question has no two graded answers, or not one picture; or nothing is left.
    """
    found = []
    for example in graded(data.splits["test"], DIMENSIONS):
        if len(example.images) != 1:
            raise BadExampleError(
                f"example {example.question_id!r}: has {len(example.images)} pictures, and judges are shown one"
            )
        winners = {name: example.winner(name) for name in DIMENSIONS}
        truth = {name: SIDES[winner] for name, winner in winners.items() if winner is not None}
        if truth:
            first, second = example.answers
            found.append(
                Case(
                    organ=example.tags.get("question_type", "pairs"),
                    question_id=example.question_id,
                    question=question_text(example),
                    answers=(first, second),
                    picture=example.images[0],
                    cluster=example.patient_id,
                    truth=truth,
                    tags={name: example.tags[name] for name in TAGS if name in example.tags},
                )
            )
    if not found:
        raise BadExampleError("pairs: in no pair of the test split is one of the answers better")
    return tuple(found)


def pairs_sha256(cases: Sequence[Case]) -> str:
    """The hash of pairs and of what their pictures show, which in a case of theirs stands nowhere else.

    Raises:
        BadExampleError: a picture cannot be read.
    """
    pictures = (image_key(load_image(case.picture)) for case in cases)
    return hashlib.sha256("\n".join([data_sha256(cases), *pictures]).encode()).hexdigest()
