"""Made preference data: two answers to one question about one phantom, each with a known flaw or none."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from typing_extensions import override

from datamodules.base import VQADataModule
from datamodules.graded import Graded
from datamodules.phantoms.base import phantom_classes
from datamodules.phantoms.flaws import FLAWS, written
from guards.ranges import at_least, between


class PhantomPairs(VQADataModule):
    """Pairs about the patients of all phantom specialties; the tags say what each answer's flaw is.

    Patients, and so pictures, questions and splits, are those of the specialties themselves: who is examined here has
    been in no expert's training split, and the other way round. Which answer stands first is drawn.
    """

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """Options of the pairs."""

        n_patients: Annotated[int, at_least(1)] = 250
        """Synthetic patients of each specialty over all splits, each with one picture and two questions; at least 1."""
        pairs: Annotated[int, at_least(1)] = 2
        """Pairs of answers to each question; at least 1."""
        difficulty: Annotated[float, between(0, 1)] = 0.3
        """In [0, 1]: as in the specialties."""
        data_seed: int = 0
        """Draws another population; splits move with it because ids carry it."""

    @override
    def examples(self) -> Iterator[Graded]:
        c = self.config
        for specialty in phantom_classes():
            for index in range(c.n_patients):
                patient_id = f"{specialty.PREFIX}-{c.data_seed}-{index:05d}"
                rng = random.Random(patient_id)  # as in the specialty, so that the patient is the same
                case = specialty.sample(rng, c.difficulty)
                for question in specialty.questions(case, rng):
                    for number in range(c.pairs):
                        question_id = f"{patient_id}-{question.kind}-{number}"
                        own = random.Random(f"pairs {question_id}")
                        two = [written(specialty, case, question.kind, flaw, own) for flaw in own.sample(FLAWS, 2)]
                        grades = [one.grades for one in two]
                        yield Graded(
                            patient_id=patient_id,
                            images=(partial(specialty.draw, case),),
                            question=question.text,
                            options=tuple(specialty.PREVALENCE[question.kind]),
                            answer=question.answer,
                            question_id=question_id,
                            tags={
                                "question_type": question.kind,
                                "modality": specialty.MODALITY,
                                "flaws": " / ".join(sorted(one.flaw for one in two)),
                            },
                            answers=tuple(one.text for one in two),
                            grades={name: tuple(held[name] for held in grades) for name in grades[0]},
                        )
