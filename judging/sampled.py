"""Answers that a model gave in an examination, each marked right or wrong: what a verifier learns from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Annotated

from typing_extensions import override

from configs.build import build
from configs.schema import Component, Slot
from datamodules.base import VQADataModule, uniform_hash
from datamodules.batch import BadExampleError, Example
from datamodules.graded import RIGHT, Graded
from evaluation.predictions import Prediction, by_variant, read_predictions
from evaluation.scorers import main_outcome
from judging.asked import questions_of


class SampledAnswers(VQADataModule):
    """Questions with one model's sampled answers to them, graded by the main score.

    Examine on a split whose questions the model has not learnt (`callbacks.evaluate.init_args.split=val`): its answers
    to training questions err less, and in other ways, than those that the verifier will see. Patients are split anew
    here, so that training and validation of the verifier do not share any.
    """

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """Whose answers, and where the questions come from."""

        predictions: str = ""
        """Folder of the examined experiment, or a file of predictions; several answers to each question."""
        model: str = ""
        """Row of its matrix whose answers are taken, such as `sft_dsa/{specialty}`, each specialty's own expert; empty
        takes the only one."""
        questions: dict[str, Annotated[Component, Slot("datamodules.base.VQADataModule")]] = field(default_factory=dict)
        """Specialty -> the set that its questions came from, with the options that the examination had."""
        test_fraction: float = 0.0
        """None is needed: a verifier is examined on other questions."""
        shuffle_options: bool = False
        """Options stay as they stood when they were answered."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.predictions or not self.questions:
                raise ValueError("predictions must name an examined experiment, and questions the sets that it asked")
            if self.shuffle_options:
                raise ValueError("shuffle_options must stay off: letters in the answers mean the options as they stood")

    @override
    def split_of(self, patient_id: str) -> str:
        """By another hash than that of the questions' own sets, of whose patients one split alone is here."""
        u = uniform_hash("sampled", self.config.split_seed, patient_id)
        if u < self.config.test_fraction:
            return "test"
        return "val" if u < self.config.test_fraction + self.config.val_fraction else "train"

    @override
    def examples(self) -> Iterator[Graded]:
        held = self.answers()
        for specialty, component in self.config.questions.items():
            answered = held.get(specialty, {})
            asked = questions_of(build(component, specialty=specialty), chain.from_iterable(answered.values()))
            for question_id, items in answered.items():
                yield marked(asked[question_id], items, f"{specialty}/{question_id}")

    def answers(self) -> dict[str, dict[str, list[Prediction]]]:
        """Specialty -> question id -> its answers, of the chosen row.

        Raises:
            BadExampleError: the row has no answers, or it is not clear which one is meant.
        """
        found = by_variant(read_predictions(Path(self.config.predictions)))[""]
        models = list(dict.fromkeys(item.model for item in found))
        if not self.config.model and len(models) > 1:
            raise BadExampleError(
                f"{self.config.predictions}: name the row whose answers are taken as `model`: {', '.join(models)}"
            )
        grouped: dict[str, dict[str, list[Prediction]]] = {}
        for item in found:
            if is_of(item, self.config.model) and item.completion.strip():
                grouped.setdefault(item.specialty, {}).setdefault(item.question_id, []).append(item)
        if missing := [name for name in self.config.questions if name not in grouped]:
            raise BadExampleError(
                f"{self.config.predictions}: model={self.config.model!r} has no answer on {missing[0]}; rows: "
                f"{', '.join(models)}"
            )
        return grouped


def is_of(item: Prediction, model: str) -> bool:
    """Whether an answer is of a row of the matrix; empty means any, and {specialty} the answer's own column.

    Examples:
        >>> from types import SimpleNamespace
        >>> is_of(SimpleNamespace(model="sft_dsa/skin", specialty="skin"), "sft_dsa/{specialty}")
        True
    """
    return not model or item.model == model.replace("{specialty}", item.specialty)


def marked(example: Example, items: list[Prediction], question_id: str) -> Graded:
    """A question with the answers that were given to it, its options as they stood then."""
    shown = replace(example, options=items[0].options)
    return Graded(
        patient_id=shown.patient_id,
        images=shown.images,
        question=shown.question,
        options=shown.options,
        answer=shown.answer,
        question_id=question_id,
        tags=dict(shown.tags),
        answers=tuple(item.completion for item in items),
        grades={RIGHT: tuple(float(main_outcome(item).right) for item in items)},
    )
