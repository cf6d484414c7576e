"""SLAKE: questions in English and Chinese about CT, MR and X-ray pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from typing_extensions import override

from datamodules.batch import Example
from datamodules.modalities import modality_name
from datamodules.released import split_files
from datamodules.rows import Record
from datamodules.short_answers import ShortAnswerSet


class Slake(ShortAnswerSet):
    """Questions with short answers, in two languages.

    Layout: train.json, validation.json (or validate.json), test.json and imgs/, as on the hub.

    Source: Liu et al., arXiv:2102.09542, hub id BoKelvin/SLAKE, CC BY 4.0. English: 4919 training, 1053 validation
        and 1061 test questions, of which 416 are CLOSED; CLOSED is not only yes or no. MedEvalKit scores both
        languages together.
    """

    IMAGE_FOLDERS: ClassVar[Sequence[str]] = ("imgs", "images", "")

    @dataclass(frozen=True)
    class Config(ShortAnswerSet.Config):
        """Which language."""

        language: Literal["en", "zh", "all"] = "en"
        """Language of the questions; Chinese ones have no yes or no in Latin letters and count as open."""

    @property
    @override
    def subset(self) -> str:
        return f"SLAKE {self.config.language} {self.config.questions}"

    @override
    def files(self) -> Mapping[str, Sequence[Path]]:
        return {
            "train": split_files(self.root, ["train"]),
            "val": split_files(self.root, ["validation", "validate"]),
            "test": split_files(self.root, ["test"]),
        }

    @override
    def example(self, record: Record) -> Example:
        language = record.text("q_lang")
        if self.config.language not in (language, "all"):
            raise self.not_asked(f"questions in {language}")
        return super().example(record)

    @override
    def tags(self, record: Record) -> Mapping[str, str]:
        return {
            "dataset": "SLAKE",
            "modality": modality_name(record.text("modality", default="unknown")),
            "answer_type": record.text("answer_type", default="unknown"),
            "body_part": record.text("location", default="unknown"),
            "content_type": record.text("content_type", default="unknown"),
            "language": record.text("q_lang"),
        }

    @override
    def question_id(self, record: Record) -> str:
        return f"slake-{record.text('qid')}"
