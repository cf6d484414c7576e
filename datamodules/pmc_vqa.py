"""PMC-VQA: four options about figures of open-access papers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from typing_extensions import override

from datamodules.batch import BadExampleError, Example
from datamodules.options import chosen, named
from datamodules.released import ReleasedSet
from datamodules.rows import Record, shortened

FILES = {
    ("v1", "clean"): ("train.csv", "test_clean.csv"),
    ("v1", "full"): ("train.csv", "test.csv"),
    ("v2", "clean"): ("train_2.csv", "test_2.csv"),
    ("v2", "full"): ("train_2.csv", "test_2.csv"),
}
PREFIX = re.compile(r"\s*([A-D])\s*[:.)]\s*")


class PMCVQA(ReleasedSet):
    """Questions written by a language model about figures.

    Layout: version 1: train.csv, test_clean.csv (or test.csv) and images/; version 2: train_2.csv, test_2.csv and
    images_2/.

    Columns: Figure_path, Question, Choice A to Choice D (" A:Diffuse uptake", the letter is cut off), and the right
    letter under Answer_label (version 1) or Answer (version 2; the text of a choice is understood as well). Rows whose
    choices carry another letter, or repeat, are bad: a few of the release are, so set on_bad_row: skip.

    Source: Zhang et al., arXiv:2305.10415, hub id RadGenome/PMC-VQA. MedEvalKit's test is version 2 with 33 430
        questions; MedVLThinker, HuatuoGPT and OctoMed use the 2000 of version 1's test_clean.csv.
    """

    RELEASED: ClassVar[Mapping[str, int]] = {"PMC-VQA v1 clean": 2000, "PMC-VQA v2": 33_430}
    IMAGE_FOLDERS: ClassVar[Sequence[str]] = ("images", "images_2", "figures", "")

    @dataclass(frozen=True)
    class Config(ReleasedSet.Config):
        """Which version."""

        version: Literal["v1", "v2"] = "v1"
        """v1 has compound figures, v2 single ones."""
        test: Literal["clean", "full"] = "clean"
        """Of v1, the 2000 questions checked by hand or the whole test file; v2 has one file."""

    @property
    @override
    def subset(self) -> str:
        return f"PMC-VQA {self.config.version}" + (f" {self.config.test}" if self.config.version == "v1" else "")

    @override
    def files(self) -> Mapping[str, Sequence[Path]]:
        names = dict(zip(("train", "test"), FILES[self.config.version, self.config.test], strict=True))
        return {split: [self.root / name] if (self.root / name).is_file() else [] for split, name in names.items()}

    @override
    def example(self, record: Record) -> Example:
        options = {letter: choice(record.text(f"Choice {letter}"), letter) for letter in "ABCD"}
        figure = record.text("Figure_path")
        return Example(
            patient_id=figure,
            images=(self.file(figure),),
            question=record.text("Question"),
            options=tuple(options.values()),
            answer=right_choice(record, options),
            question_id=f"pmcvqa-{Path(record.file).stem}-{record.row}",
            tags={"version": self.config.version},
        )


def choice(text: str, letter: str) -> str:
    """A choice without its letter.

    Raises:
        BadExampleError: it carries another letter, or nothing else.
    """
    match = PREFIX.match(text)
    if match and match.group(1) != letter:
        raise BadExampleError(f"Choice {letter} is {shortened(text)}, which carries the letter {match.group(1)}")
    rest = text[match.end() :].strip() if match else text
    if not rest:
        raise BadExampleError(f"Choice {letter} is {shortened(text)}: no text")
    return rest


def right_choice(record: Record, options: Mapping[str, str]) -> str:
    """The right choice by its letter, else by its text; errors as of `chosen` and `named`."""
    label = record.text("Answer_label", "Answer")
    if len(label) == 1:
        return chosen(label, options)
    match = PREFIX.match(label)
    return named(label[match.end() :] if match else label, list(options.values()))
